/**
 * Which SPIFFE ID is at the address of a runner.
 *
 * @since 0.1.0
 */
import * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import { PeerDirectory } from "@agentweave/transport/PeerDirectory"
import { hostOf } from "@agentweave/transport/Wire"
import type { RunnerAddress } from "@effect/cluster/RunnerAddress"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import { RunnerIdentityError } from "./RunnerIdentityError.js"

/**
 * Knows the SPIFFE ID of each runner by its address. Addresses come from the runner storage, which anybody who can write to it
 * can change; the ID that must be at the other end comes from here.
 *
 * @since 0.1.0
 * @category tags
 */
export class RunnerPeers extends Context.Tag("@agentweave/cluster/RunnerPeers")<
  RunnerPeers,
  {
    /**
     * The ID that must be at the other end of every connection to this address. Asked each time a runner is connected to. Fails
     * with `RunnerIdentityError` (reason `UnknownAddress`): there is then no connection, and the runner gets no shard.
     */
    readonly of: (address: RunnerAddress) => Effect.Effect<SpiffeId.SpiffeId, RunnerIdentityError>
  }
>() {}

const unknown = (address: RunnerAddress, description: string): RunnerIdentityError =>
  new RunnerIdentityError({ reason: "UnknownAddress", address: `${address.host}:${address.port}`, description })

/**
 * IDs by a function of the caller's. Each runner is to have an ID of its own: where two addresses have one ID, either runner
 * could stand in for the other.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { RunnerPeers } from "@agentweave/cluster"
 *
 * // runner-3.internal:34431 is spiffe://example.org/runner/runner-3
 * const Peers = RunnerPeers.layer(({ host }) => `spiffe://example.org/runner/${host.split(".")[0]}`)
 * ```
 */
export const layer = (idOf: (address: RunnerAddress) => string | undefined): Layer.Layer<RunnerPeers> =>
  Layer.succeed(RunnerPeers, {
    of: (address) =>
      Effect.suspend(() => {
        const id = idOf(address)
        return id === undefined
          ? Effect.fail(
              unknown(address, `expected a SPIFFE ID for the runner at ${address.host}:${address.port}, got none`)
            )
          : Either.mapLeft(SpiffeId.parse(id), ({ message }) => unknown(address, message))
      })
  })

const isAt = (url: string, { host, port }: RunnerAddress): boolean => {
  if (!URL.canParse(url)) return false
  const at = new URL(url)
  return hostOf(at.hostname) === host.toLowerCase() && Number(at.port === "" ? 443 : at.port) === port
}

/**
 * IDs by the `PeerDirectory` of the program: the runner at an address is the peer that the directory has there. The directory
 * has to name its peers (`PeerDirectory.peers`), and the host of a URL must be that of the runner's address, as text. Two peers
 * at one address are refused.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { RunnerPeers } from "@agentweave/cluster"
 * import { PeerDirectory } from "@agentweave/transport"
 * import { Layer } from "effect"
 *
 * const Peers = RunnerPeers.layerDirectory.pipe(
 *   Layer.provide(
 *     PeerDirectory.layerStatic({
 *       "spiffe://example.org/runner/1": "https://10.0.0.1:34431",
 *       "spiffe://example.org/runner/2": "https://10.0.0.2:34431"
 *     })
 *   )
 * )
 * ```
 */
export const layerDirectory: Layer.Layer<RunnerPeers, never, PeerDirectory> = Layer.effect(
  RunnerPeers,
  Effect.map(PeerDirectory, (directory) => ({
    of: Effect.fnUntraced(function* (address: RunnerAddress) {
      const peers = yield* directory.peers ?? Effect.succeed([])
      const found = yield* Effect.filter(
        peers,
        (peer) =>
          Effect.match(directory.resolve(peer), { onFailure: () => false, onSuccess: (url) => isAt(url, address) }),
        { concurrency: "unbounded" }
      )
      const [id] = found
      if (id !== undefined && found.length === 1) return id
      return yield* unknown(
        address,
        `expected one peer of the directory at ${address.host}:${address.port}, got ${found.length === 0 ? "none" : found.join(", ")}`
      )
    })
  }))
)
