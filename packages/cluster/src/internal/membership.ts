/** Membership of the cluster: the storage's word for a runner counts once a verified connection confirms it. */
import { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import { InvalidConfigError } from "@agentweave/transport/InvalidConfigError"
import type { Runner } from "@effect/cluster/Runner"
import type { RunnerAddress } from "@effect/cluster/RunnerAddress"
import { RunnerStorage } from "@effect/cluster/RunnerStorage"
import * as Runners from "@effect/cluster/Runners"
import { ShardingConfig } from "@effect/cluster/ShardingConfig"
import * as RpcClient from "@effect/rpc/RpcClient"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import { RunnerIdentityError } from "../RunnerIdentityError.js"
import { RunnerPeers } from "../RunnerPeers.js"

const keyOf = ({ host, port }: RunnerAddress): string => `${host}:${port}`

const noAddress = new InvalidConfigError({
  config: "ShardingConfig",
  field: "runnerAddress",
  description: "expected the address of this runner, got none: a program without one takes layerClientOnly"
})

/** The address to listen on, of a runner whose own identity is the one that the others expect at its address. */
export const checkOwn = Effect.fnUntraced(function* (authorize: PeerMatcher.PeerMatcher) {
  const { runnerAddress, runnerListenAddress } = yield* ShardingConfig
  if (Option.isNone(runnerAddress)) return yield* noAddress
  const address = keyOf(runnerAddress.value)
  const expected = yield* Effect.flatMap(RunnerPeers, (peers) => peers.of(runnerAddress.value))
  const { svid } = yield* Effect.flatMap(IdentityProvider, (identity) => identity.x509Context)
  if (svid.spiffeId !== expected) {
    const description = `expected to be ${expected}, the runner at ${address}, our own SVID is of ${svid.spiffeId}`
    return yield* new RunnerIdentityError({ reason: "OtherIdentity", address, description })
  }
  if (!PeerMatcher.matches(authorize, expected)) {
    const description = `expected ${PeerMatcher.describe(authorize)} to join, our own SVID is of ${expected}`
    return yield* new RunnerIdentityError({ reason: "NotAuthorized", address, description })
  }
  return Option.getOrElse(runnerListenAddress, () => runnerAddress.value)
})

/** Shorter than the time that `Sharding` gives a whole look at the storage. */
const verifyTimeout = "3 seconds"

type Registered = readonly [runner: Runner, healthy: boolean]

/** The error and its causes as one text: the one that says why is often the last. */
const explain = (error: unknown): string =>
  Predicate.isError(error)
    ? `${error.message}${error.cause === undefined ? "" : `: ${explain(error.cause)}`}`
    : Predicate.hasProperty(error, "cause")
      ? explain(error.cause)
      : String(error)

const warn = (message: string): Effect.Effect<void> =>
  Effect.annotateLogs(Effect.logWarning(message), { package: "@agentweave/cluster" })

/**
 * The storage of runners, in which
 *
 * - another runner counts as healthy only when it has answered a ping over a verified connection. It is asked again when it was
 *   not healthy or not listed in the meantime; whether it stays alive is for `RunnerHealth`;
 * - this runner takes a shard only when it was alone once, or when another one has answered it: one that all the others refuse
 *   takes none.
 */
const make = Effect.gen(function* () {
  const storage = yield* RunnerStorage
  const connect = yield* Runners.RpcClientProtocol
  const { runnerAddress } = yield* ShardingConfig
  const verified = new Set<string>()
  const refused = new Set<string>()
  let isMember = false
  let isWarned = false

  const isOwn = ({ address }: Runner): boolean =>
    Option.isSome(runnerAddress) && Equal.equals(address, runnerAddress.value)

  const ping = (address: RunnerAddress) =>
    Effect.flatMap(connect(address), (protocol) =>
      Effect.provideService(Runners.makeRpcClient, RpcClient.Protocol, protocol)
    ).pipe(
      Effect.flatMap((client) => client.Ping()),
      Effect.scoped,
      Effect.timeout(verifyTimeout)
    )

  const accept = (key: string): boolean => {
    refused.delete(key)
    verified.add(key)
    return true
  }

  const refuse = (key: string, cause: Cause.Cause<unknown>): Effect.Effect<boolean> => {
    if (Cause.isInterruptedOnly(cause)) return Effect.interrupt
    const isKnown = refused.has(key)
    refused.add(key)
    return isKnown
      ? Effect.succeed(false)
      : Effect.as(warn(`the runner at ${key} gets no shard: ${explain(Cause.squash(cause))}`), false)
  }

  const verify = (address: RunnerAddress): Effect.Effect<boolean> =>
    Effect.matchCauseEffect(ping(address), {
      onSuccess: () => Effect.sync(() => accept(keyOf(address))),
      onFailure: (cause) => refuse(keyOf(address), cause)
    })

  const check = ([runner, healthy]: Registered): Effect.Effect<Registered> =>
    !healthy || isOwn(runner) || verified.has(keyOf(runner.address))
      ? Effect.succeed([runner, healthy])
      : Effect.map(verify(runner.address), (isVerified) => [runner, isVerified])

  const look = (listed: ReadonlyArray<Registered>) => {
    const others = listed
      .filter(([runner, healthy]) => healthy && !isOwn(runner))
      .map(([{ address }]) => keyOf(address))
    // Those that are not there or not healthy any more are forgotten.
    for (const known of [verified, refused]) for (const key of known) if (!others.includes(key)) known.delete(key)
    return Effect.tap(Effect.forEach(listed, check, { concurrency: "unbounded" }), () => {
      isMember ||= others.length === 0 || verified.size > 0
      if (isMember || isWarned || Option.isNone(runnerAddress)) return Effect.void
      isWarned = true
      return warn(`this runner takes no shard: none of ${others.join(", ")} has answered over a verified connection`)
    })
  }

  return RunnerStorage.of({
    ...storage,
    getRunners: Effect.flatMap(storage.getRunners, look),
    acquire: (address, shardIds) => (isMember ? storage.acquire(address, shardIds) : Effect.succeed([]))
  })
})

export const layer: Layer.Layer<RunnerStorage, never, RunnerStorage | Runners.RpcClientProtocol | ShardingConfig> =
  Layer.effect(RunnerStorage, make)
