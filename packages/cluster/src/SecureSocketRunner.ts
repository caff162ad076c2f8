/**
 * Runners of `@effect/cluster` over verified sockets.
 *
 * @since 0.1.0
 */
import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import type { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import { decoder, ValueOf } from "@agentweave/spiffe/OptionsDecoder"
import { isPeerMatcher, type PeerMatcher } from "@agentweave/spiffe/PeerMatcher"
import type { AuditLog } from "@agentweave/transport/AuditLog"
import type { Connector } from "@agentweave/transport/Connector"
import type { InvalidConfigError } from "@agentweave/transport/InvalidConfigError"
import * as SecureSocket from "@agentweave/transport/SecureSocket"
import * as TransportConfig from "@agentweave/transport/TransportConfig"
import * as NodeSecureSocketServer from "@agentweave/transport-node/NodeSecureSocketServer"
import type { MessageStorage } from "@effect/cluster/MessageStorage"
import type { RunnerAddress } from "@effect/cluster/RunnerAddress"
import type { RunnerStorage } from "@effect/cluster/RunnerStorage"
import * as Runners from "@effect/cluster/Runners"
import type { Sharding } from "@effect/cluster/Sharding"
import type { ShardingConfig } from "@effect/cluster/ShardingConfig"
import type { SocketServerError } from "@effect/platform/SocketServer"
import type { RpcSerialization } from "@effect/rpc/RpcSerialization"
import * as RpcServer from "@effect/rpc/RpcServer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { checkOwn } from "./internal/membership.js"
import * as runner from "./internal/runner.js"
import type { RunnerIdentityError } from "./RunnerIdentityError.js"
import { RunnerPeers } from "./RunnerPeers.js"

/**
 * Options of a program that sends messages to the cluster and has no shards.
 *
 * @since 0.1.0
 * @category models
 */
export interface ClientOptions {
  /** How messages are written; all runners must agree. Default `"msgpack"`. */
  readonly serialization?: "msgpack" | "ndjson" | undefined
  /** The most bytes of one message. Default 16 MiB. */
  readonly maxMessageSize?: number | undefined
  /** Of the connections to other runners: `connectTimeout`, `maxConnectionAge`, `tlsMinVersion` and `tlsMaxVersion` hold. */
  readonly config?: TransportConfig.Options | undefined
}

/**
 * Options of a runner. `authorize` is required; the rest have defaults.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends ClientOptions {
  /**
   * Which peers may send to this runner: the other runners, and programs that have `layerClientOnly`. Required: there is no
   * default and no "anyone".
   */
  readonly authorize: PeerMatcher
  /** Limits of the server, as of `NodeSecureSocketServer.layer`. */
  readonly server?: Omit<NodeSecureSocketServer.Options, "port" | "host" | "authorize" | "protocols"> | undefined
}

const clientFields = { ...runner.serializationFields, config: Schema.optional(Schema.Unknown) }

const decodeClient = decoder("SecureSocketRunner", Schema.Struct(clientFields))

const decode = decoder(
  "SecureSocketRunner",
  Schema.Struct({
    ...clientFields,
    authorize: ValueOf("a PeerMatcher", isPeerMatcher),
    server: Schema.optional(Schema.Unknown)
  })
)

/**
 * How runners are connected to: one socket for each, which is opened when there is something to send, and again when it was
 * lost. For authors of other compositions; it is part of {@link layer} and {@link layerClientOnly}.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { SecureSocketRunner } from "@agentweave/cluster"
 * import { Runners } from "@effect/cluster"
 * import { RpcSerialization } from "@effect/rpc"
 * import { Layer } from "effect"
 *
 * const Others = Runners.layerRpc.pipe(
 *   Layer.provide(SecureSocketRunner.layerClientProtocol()),
 *   Layer.provide(RpcSerialization.layerMsgPack)
 * )
 * ```
 */
export const layerClientProtocol = (
  config: TransportConfig.Options = {}
): Layer.Layer<Runners.RpcClientProtocol, InvalidConfigError, Connector | RunnerPeers | RpcSerialization> =>
  Layer.effect(
    Runners.RpcClientProtocol,
    Effect.gen(function* () {
      yield* TransportConfig.make(config)
      const context = yield* Effect.context<Connector | RpcSerialization>()
      const peers = yield* RunnerPeers
      return (address: RunnerAddress) =>
        Effect.gen(function* () {
          const { host, port } = address
          const socket = yield* SecureSocket.make({ peer: yield* peers.of(address), host, port, config })
          return yield* runner.overSocket(socket)
        }).pipe(
          Effect.orDie,
          Effect.mapInputContext((scope: Context.Context<Scope.Scope>) => Context.merge(context, scope))
        )
    })
  )

type Needs = Connector | RunnerPeers | ShardingConfig | MessageStorage | RunnerStorage

/**
 * A runner over verified sockets: what `SocketRunner.layer` and `NodeClusterSocket.layer` are without identities.
 *
 * - Both sides of every connection are verified: the runner that is connected to has the SPIFFE ID that `RunnerPeers` has at its
 *   address, and the one that connects has an ID that `authorize` accepts, before a byte of a message is written or read.
 * - A runner whose own SVID is not that of its address, or not one that may join, is not built (`RunnerIdentityError`): it is
 *   never registered.
 * - A runner that is registered gets shards once it has answered over a verified connection, and not before, whatever the storage
 *   says of it. One that no other runner has answered takes none, unless it was alone in the storage.
 * - `RunnerHealth` is by pings over verified connections.
 * - It listens on `runnerListenAddress`, or `runnerAddress`, of the `ShardingConfig`.
 * - A connection ends with the credentials that justified it. What is sent meanwhile is sent again by `@effect/cluster`: a
 *   persisted message is handled once and its reply kept, another one may be handled twice.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { ClusterStorage, RunnerPeers, SecureSocketRunner } from "@agentweave/cluster"
 * import { PeerMatcher, TrustDomain } from "@agentweave/spiffe"
 * import { NodeConnector } from "@agentweave/transport-node"
 * import { RunnerAddress, ShardingConfig } from "@effect/cluster"
 * import { Layer, Option } from "effect"
 *
 * const Runner = SecureSocketRunner.layer({ authorize: PeerMatcher.memberOf(TrustDomain.make("cluster.example.org")) }).pipe(
 *   Layer.provide(RunnerPeers.layer(({ host }) => `spiffe://cluster.example.org/runner/${host}`)),
 *   Layer.provide(ClusterStorage.layer({ file: "cluster.db" })),
 *   Layer.provide(ShardingConfig.layer({ runnerAddress: Option.some(RunnerAddress.make("runner-1", 34431)) })),
 *   Layer.provide(NodeConnector.layer)
 * )
 * ```
 */
export const layer = (
  options: Options
): Layer.Layer<
  Sharding | Runners.Runners,
  SocketServerError | IdentityError | RunnerIdentityError | InvalidConfigError,
  Needs | IdentityProvider | AuditLog
> =>
  Layer.unwrapEffect(
    Effect.gen(function* () {
      const { authorize, ...settings } = yield* decode(options)
      const { host, port } = yield* checkOwn(authorize)
      return runner.server.pipe(
        Layer.provide(RpcServer.layerProtocolSocketServer),
        Layer.provide(NodeSecureSocketServer.layer({ ...options.server, authorize, host, port })),
        Layer.provide(layerClientProtocol(options.config)),
        Layer.provide(runner.serialization(settings))
      )
    })
  )

/**
 * A program that sends messages to the cluster and is no part of it: it is never registered and has no shards. The runners must
 * `authorize` it all the same.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { ClusterStorage, RunnerPeers, SecureSocketRunner } from "@agentweave/cluster"
 * import { ShardingConfig } from "@effect/cluster"
 * import { Layer } from "effect"
 *
 * const Cluster = SecureSocketRunner.layerClientOnly().pipe(
 *   Layer.provide(RunnerPeers.layer(({ host }) => `spiffe://cluster.example.org/runner/${host}`)),
 *   Layer.provide(ClusterStorage.layer({ file: "cluster.db" })),
 *   Layer.provide(ShardingConfig.layerDefaults)
 * )
 * ```
 */
export const layerClientOnly = (
  options: ClientOptions = {}
): Layer.Layer<Sharding | Runners.Runners, InvalidConfigError, Needs> =>
  Layer.unwrapEffect(
    Effect.map(decodeClient(options), (settings) =>
      runner.clientOnly.pipe(
        Layer.provide(layerClientProtocol(options.config)),
        Layer.provide(runner.serialization(settings))
      )
    )
  )
