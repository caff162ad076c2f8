/**
 * Runners of `@effect/cluster` over verified HTTP or WebSockets.
 *
 * @since 0.1.0
 */
import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import type { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import { decoder, OneOf, ValueOf } from "@agentweave/spiffe/OptionsDecoder"
import { isPeerMatcher, type PeerMatcher } from "@agentweave/spiffe/PeerMatcher"
import type { AuditLog } from "@agentweave/transport/AuditLog"
import type { Connector } from "@agentweave/transport/Connector"
import type { InvalidConfigError } from "@agentweave/transport/InvalidConfigError"
import * as SecureChannel from "@agentweave/transport/SecureChannel"
import * as TransportConfig from "@agentweave/transport/TransportConfig"
import { addressOf } from "@agentweave/transport/Wire"
import * as NodeSecureServer from "@agentweave/transport-node/NodeSecureServer"
import * as NodeSecureWebSocket from "@agentweave/transport-node/NodeSecureWebSocket"
import type { MessageStorage } from "@effect/cluster/MessageStorage"
import type { RunnerAddress } from "@effect/cluster/RunnerAddress"
import type { RunnerStorage } from "@effect/cluster/RunnerStorage"
import * as Runners from "@effect/cluster/Runners"
import type { Sharding } from "@effect/cluster/Sharding"
import type { ShardingConfig } from "@effect/cluster/ShardingConfig"
import { HttpClient } from "@effect/platform/HttpClient"
import * as HttpLayerRouter from "@effect/platform/HttpLayerRouter"
import type { ServeError } from "@effect/platform/HttpServerError"
import * as RpcClient from "@effect/rpc/RpcClient"
import type { RpcSerialization } from "@effect/rpc/RpcSerialization"
import * as RpcServer from "@effect/rpc/RpcServer"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { checkOwn } from "./internal/membership.js"
import * as runner from "./internal/runner.js"
import type { RunnerIdentityError } from "./RunnerIdentityError.js"
import { RunnerPeers } from "./RunnerPeers.js"

/**
 * Options of a program that sends messages to the cluster and has no shards. `transport` is required.
 *
 * @since 0.1.0
 * @category models
 */
export interface ClientOptions {
  /**
   * - `"websocket"`: one connection to each runner, for all messages.
   * - `"http"`: a request for each message, and so as many connections to a runner as messages wait for its reply.
   */
  readonly transport: "http" | "websocket"
  /** The path of the cluster on its servers; all runners must agree. Default `"/"`. */
  readonly path?: `/${string}` | undefined
  /** How messages are written; all runners must agree. Default `"msgpack"`. */
  readonly serialization?: "msgpack" | "ndjson" | undefined
  /** The most bytes of one message. Default 16 MiB. */
  readonly maxMessageSize?: number | undefined
  /**
   * Of the connections to other runners. With `"http"`, by default: 256 `connections` to a runner, further messages wait for
   * one; 5 minutes of `timeout` for a reply; no `bodyTimeout` for a stream of replies. With `"websocket"` hold `connectTimeout`,
   * `maxConnectionAge`, `tlsMinVersion` and `tlsMaxVersion`.
   */
  readonly config?: TransportConfig.Options | undefined
}

/**
 * Options of a runner. `transport` and `authorize` are required; the rest have defaults.
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
  /** Limits of the server, as of `NodeSecureServer.layer`. */
  readonly server?: Omit<NodeSecureServer.Options, "port" | "host" | "authorize"> | undefined
}

const isPath = (input: unknown): input is `/${string}` => typeof input === "string" && input.startsWith("/")

const clientFields = {
  ...runner.serializationFields,
  transport: OneOf("http", "websocket"),
  path: Schema.optionalWith(ValueOf("a path that begins with a slash", isPath), { default: () => "/" as const }),
  config: Schema.optional(Schema.Unknown)
}

const decodeClient = decoder("SecureHttpRunner", Schema.Struct(clientFields))

const decode = decoder(
  "SecureHttpRunner",
  Schema.Struct({
    ...clientFields,
    authorize: ValueOf("a PeerMatcher", isPeerMatcher),
    server: Schema.optional(Schema.Unknown)
  })
)

/** Calls may take as long as they like, and wait for each other. */
const httpDefaults: TransportConfig.Options = {
  connections: 256,
  timeout: "5 minutes",
  bodyTimeout: Duration.infinity
}

type Protocol = Effect.Effect<
  RpcClient.Protocol["Type"],
  unknown,
  Connector | IdentityProvider | RpcSerialization | Scope.Scope
>

/** A connection to the runner at an address, by one of the two ways. */
const connectBy: Record<
  ClientOptions["transport"],
  (peer: string, place: string, config: TransportConfig.Options) => Protocol
> = {
  http: (peer, place, config) =>
    Layer.build(
      SecureChannel.layerHttpClient({ peer, baseUrl: `https://${place}`, config: { ...httpDefaults, ...config } })
    ).pipe(Effect.flatMap((services) => RpcClient.makeProtocolHttp(Context.get(services, HttpClient)))),
  websocket: (peer, place, config) =>
    Effect.flatMap(NodeSecureWebSocket.make({ peer, url: `wss://${place}`, config }), runner.overSocket)
}

/**
 * How runners are connected to. For authors of other compositions; it is part of {@link layer} and {@link layerClientOnly}.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { SecureHttpRunner } from "@agentweave/cluster"
 * import { Runners } from "@effect/cluster"
 * import { RpcSerialization } from "@effect/rpc"
 * import { Layer } from "effect"
 *
 * const Others = Runners.layerRpc.pipe(
 *   Layer.provide(SecureHttpRunner.layerClientProtocol({ transport: "websocket" })),
 *   Layer.provide(RpcSerialization.layerMsgPack)
 * )
 * ```
 */
export const layerClientProtocol = ({
  config = {},
  path = "/",
  transport
}: Pick<ClientOptions, "transport" | "path" | "config">): Layer.Layer<
  Runners.RpcClientProtocol,
  InvalidConfigError,
  Connector | IdentityProvider | RunnerPeers | RpcSerialization
> =>
  Layer.effect(
    Runners.RpcClientProtocol,
    Effect.gen(function* () {
      yield* TransportConfig.make(config)
      const context = yield* Effect.context<Connector | IdentityProvider | RpcSerialization>()
      const peers = yield* RunnerPeers
      return (address: RunnerAddress) =>
        Effect.flatMap(peers.of(address), (peer) =>
          connectBy[transport](peer, addressOf(address.host, address.port) + path, config)
        ).pipe(
          Effect.orDie,
          Effect.mapInputContext((scope: Context.Context<Scope.Scope>) => Context.merge(context, scope))
        )
    })
  )

const serverProtocol = { http: RpcServer.layerProtocolHttpRouter, websocket: RpcServer.layerProtocolWebsocketRouter }

type Needs = Connector | IdentityProvider | RunnerPeers | ShardingConfig | MessageStorage | RunnerStorage

/**
 * A runner over verified HTTP or WebSockets: what `HttpRunner` and `NodeClusterHttp.layer` are without identities. It keeps the
 * promises of `SecureSocketRunner.layer`, which is the way to take where nothing speaks for HTTP: it is one connection to each runner, without requests.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { ClusterStorage, RunnerPeers, SecureHttpRunner } from "@agentweave/cluster"
 * import { PeerMatcher, TrustDomain } from "@agentweave/spiffe"
 * import { NodeConnector } from "@agentweave/transport-node"
 * import { RunnerAddress, ShardingConfig } from "@effect/cluster"
 * import { Layer, Option } from "effect"
 *
 * const Runner = SecureHttpRunner.layer({
 *   transport: "websocket",
 *   authorize: PeerMatcher.memberOf(TrustDomain.make("cluster.example.org"))
 * }).pipe(
 *   Layer.provide(RunnerPeers.layer(({ host }) => `spiffe://cluster.example.org/runner/${host}`)),
 *   Layer.provide(ClusterStorage.layer({ file: "cluster.db" })),
 *   Layer.provide(ShardingConfig.layer({ runnerAddress: Option.some(RunnerAddress.make("runner-1", 8443)) })),
 *   Layer.provide(NodeConnector.layer)
 * )
 * ```
 */
export const layer = (
  options: Options
): Layer.Layer<
  Sharding | Runners.Runners,
  ServeError | IdentityError | RunnerIdentityError | InvalidConfigError,
  Needs | AuditLog
> =>
  Layer.unwrapEffect(
    Effect.gen(function* () {
      const { authorize, path, transport, ...settings } = yield* decode(options)
      const { host, port } = yield* checkOwn(authorize)
      return HttpLayerRouter.serve(Layer.provide(runner.server, serverProtocol[transport]({ path })), {
        disableLogger: true,
        disableListenLog: true
      }).pipe(
        Layer.provide(NodeSecureServer.layer({ ...options.server, authorize, host, port })),
        Layer.provide(layerClientProtocol(options)),
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
 * import { ClusterStorage, RunnerPeers, SecureHttpRunner } from "@agentweave/cluster"
 * import { ShardingConfig } from "@effect/cluster"
 * import { Layer } from "effect"
 *
 * const Cluster = SecureHttpRunner.layerClientOnly({ transport: "websocket" }).pipe(
 *   Layer.provide(RunnerPeers.layer(({ host }) => `spiffe://cluster.example.org/runner/${host}`)),
 *   Layer.provide(ClusterStorage.layer({ file: "cluster.db" })),
 *   Layer.provide(ShardingConfig.layerDefaults)
 * )
 * ```
 */
export const layerClientOnly = (
  options: ClientOptions
): Layer.Layer<Sharding | Runners.Runners, InvalidConfigError, Needs> =>
  Layer.unwrapEffect(
    Effect.map(decodeClient(options), (settings) =>
      runner.clientOnly.pipe(Layer.provide(layerClientProtocol(options)), Layer.provide(runner.serialization(settings)))
    )
  )
