/**
 * Connections to many named peers, kept and bounded together.
 *
 * @since 0.1.0
 */
import { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import type { PeerMatcher } from "@agentweave/spiffe/PeerMatcher"
import type * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import type { HttpClient } from "@effect/platform/HttpClient"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { type AuditError, optionalRecorder } from "./AuditLog.js"
import { Connector, type ExchangeError } from "./Connector.js"
import type { InvalidConfigError } from "./InvalidConfigError.js"
import { FunctionOf, decoder as optionsDecoder } from "./internal/config.js"
import { parseBase } from "./internal/http/url.js"
import { addressOf, noAddress, PeerKeys } from "./internal/peer.js"
import type { Lease, PeerPool } from "./internal/pool/lease.js"
import * as leases from "./internal/pool/lease.js"
import * as maintenance from "./internal/pool/maintenance.js"
import * as internal from "./internal/pool/pool.js"
import * as telemetry from "./internal/pool/telemetry.js"
import { Policy } from "./internal/retry/policy.js"
import { PeerDirectory } from "./PeerDirectory.js"
import * as PoolConfig from "./PoolConfig.js"
import type { SecureChannel } from "./SecureChannel.js"
import * as TransportConfig from "./TransportConfig.js"
import { type ConnectionPoolError, PoolClosedError, PoolExhaustedError, type TransportError } from "./TransportError.js"

/**
 * Errors of taking a connection from the pool.
 *
 * @since 0.1.0
 * @category models
 */
export type AcquireError = ConnectionPoolError | TransportError | AuditError

/**
 * The share of one peer in the pool at one moment.
 *
 * @since 0.1.0
 * @category models
 */
export interface PeerStats {
  readonly inUse: number
  readonly idle: number
  /** Leased, and no connection was made for them yet. */
  readonly opening: number
  /** Fibers waiting for a connection to this peer. */
  readonly waiting: number
}

/**
 * The pool at one moment.
 *
 * @since 0.1.0
 * @category models
 */
export interface Stats {
  /** Connections that count against the limits: idle, in use and being opened. */
  readonly totalConnections: number
  /** Leases given out so far; a request through `client` is one. */
  readonly totalAcquisitions: number
  /** Connections established so far. */
  readonly totalCreations: number
  /** Connections that were established and have ended, for whatever reason. */
  readonly totalCleanups: number
  /** Of `totalConnections`, how many belong to which peer. */
  readonly poolSizes: Readonly<Record<string, number>>
  /** The same connections and the fibers that wait for one, by peer. */
  readonly peers: Readonly<Record<string, PeerStats>>
  /** Peers with a connection, or somebody waiting for one. */
  readonly targetCount: number
  readonly inUse: number
  readonly idle: number
  readonly opening: number
  /** Fibers waiting for a connection. */
  readonly waiting: number
}

/**
 * A lease that was held for longer than `leakThreshold`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Leak {
  readonly peer: SpiffeId.SpiffeId
  readonly heldFor: Duration.Duration
  /** Name of the span that took it, if it was taken in one. */
  readonly span: string | undefined
  /** The call stack that took it. */
  readonly stack: string | undefined
}

/**
 * Options of the pool, each with its default.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends PoolConfig.Options {
  /**
   * How the channels of the pool behave; `connections` has no meaning here. With `retry` the requests of its channels and
   * clients are retried, a leased channel's within its lease.
   */
  readonly transport?: TransportConfig.Options | undefined
  /**
   * Run on every idle connection each `healthCheckInterval`, on a channel over that connection alone, which counts as
   * in use meanwhile. A connection whose probe fails, or takes longer than the interval, is closed. Connections the peer
   * has closed are found without a probe.
   */
  readonly healthCheck?: ((channel: SecureChannel) => Effect.Effect<unknown, unknown>) | undefined
  /** Told of every leak, besides the warning in the log and the audit event. */
  readonly onLeak?: ((leak: Leak) => Effect.Effect<void>) | undefined
}

/**
 * A peer of a pool: its SPIFFE ID, or a matcher that says which peers are accepted. The address of a matcher is that of the
 * first ID it names that has one, or else of the first peer of the `PeerDirectory` that it accepts. A matcher has connections
 * of its own, apart from those of the IDs it accepts; it is kept for the life of the pool.
 *
 * @since 0.1.0
 * @category models
 */
export type Peer = string | PeerMatcher

/**
 * The pool. A connection is leased to one user at a time; a peer is named by its SPIFFE ID, or by a matcher.
 *
 * Limits: a lease needs an idle connection of the peer, or room for a new one under `maxConnectionsPerTarget` and
 * `maxTotalConnections`. At the total limit the connection of another peer that has been idle longest is closed to make
 * room. If that is not possible either, `PoolExhaustedError` at once, or a wait for at most `acquireTimeout`: first come
 * first served, over all peers.
 *
 * @since 0.1.0
 * @category tags
 * @example
 * ```ts
 * import { ConnectionPool } from "@agentweave/transport"
 * import { Effect } from "effect"
 *
 * const invoice = Effect.gen(function* () {
 *   const pool = yield* ConnectionPool.ConnectionPool
 *   const billing = pool.client("spiffe://example.org/billing")
 *   const response = yield* billing.get("/invoices/42")
 *   return yield* response.json
 * })
 * ```
 */
export class ConnectionPool extends Context.Tag("@agentweave/transport/ConnectionPool")<
  ConnectionPool,
  {
    /**
     * Leases a connection until the scope closes. The channel runs its requests on this one connection, one after the
     * other. If the connection ends meanwhile, the next request opens another in its place. A lease that ends during a
     * response goes back to the pool when the response's body has been read, has failed or was dropped.
     */
    readonly acquire: (peer: Peer) => Effect.Effect<SecureChannel, AcquireError, Scope.Scope>
    /** Leases a connection for the time of one effect, without a `Scope`: {@link acquire} at a fraction of its cost. */
    readonly withChannel: <A, E, R>(
      peer: Peer,
      use: (channel: SecureChannel) => Effect.Effect<A, E, R>
    ) => Effect.Effect<A, E | AcquireError, R>
    /**
     * A client that leases a connection for each request and gives it back when the response's body has been read, has
     * failed, was aborted or dropped. Making one takes no connection. Relative URLs are resolved by the
     * `PeerDirectory`; absolute ones must be of the origin it names.
     */
    readonly client: (peer: Peer) => HttpClient.With<ExchangeError | ConnectionPoolError>
    readonly stats: Effect.Effect<Stats>
    /** Closes all connections there are now: idle ones at once, leased ones with their lease. The pool stays open. */
    readonly closeAll: Effect.Effect<void>
    /** Closes all connections to a peer there are now: idle ones at once, leased ones with their lease. */
    readonly invalidate: (peer: Peer) => Effect.Effect<void>
    /** Closes the connection of a leased channel when its lease ends: after an error that makes it suspect. */
    readonly invalidateChannel: (channel: SecureChannel) => Effect.Effect<void>
  }
>() {}

const millis = (duration: Duration.Duration | undefined): number =>
  duration === undefined ? Number.POSITIVE_INFINITY : Duration.toMillis(duration)

const decodeCallbacks = optionsDecoder(
  "ConnectionPool",
  Schema.Struct({
    healthCheck: Schema.optional(FunctionOf<NonNullable<Options["healthCheck"]>>()),
    onLeak: Schema.optional(FunctionOf<NonNullable<Options["onLeak"]>>())
  })
)

const make = Effect.fnUntraced(function* ({ healthCheck, onLeak, transport: channels, ...limits }: Options) {
  const config = yield* PoolConfig.make(limits)
  const callbacks = yield* decodeCallbacks({ healthCheck, onLeak })
  const transport = yield* TransportConfig.make(channels ?? {})
  const policy =
    transport.retry === undefined ? undefined : new Policy<"Timeout">(transport.retry, undefined, undefined)
  const identity = yield* IdentityProvider
  const connector = yield* Connector
  const directory = yield* PeerDirectory
  const record = yield* optionalRecorder
  const clock = yield* Effect.clock
  const mySpiffeId = Effect.map(identity.x509Context, ({ svid }) => svid.spiffeId)
  const keys = new PeerKeys()
  const bounds = {
    Target: config.maxConnectionsPerTarget,
    Total: config.maxTotalConnections,
    Waiting: config.maxWaiting
  }

  const pool = yield* internal.make<ConnectionPoolError>({
    limits: { maxPerTarget: bounds.Target, maxTotal: bounds.Total, maxWaiting: bounds.Waiting },
    acquireTimeout: millis(config.acquireTimeout),
    idleTimeout: millis(config.idleTimeout),
    maxLifetime: millis(config.maxLifetime),
    leakThreshold: millis(config.leakThreshold),
    wireTimeout: millis(transport.connectTimeout),
    address: (key) =>
      Effect.flatMap(keys.matcher(key), (matcher) => addressOf(directory, matcher)).pipe(
        Effect.flatMap((url) => Either.mapLeft(parseBase(url), (description) => noAddress(key, description)))
      ),
    connect: (key, { host, port }, onClose) =>
      Effect.flatMap(keys.matcher(key), (matcher) =>
        connector.connect({ matcher, host, port, config: transport, onClose })
      ),
    exhausted: (targetId, limit) => {
      const refusal = { targetId, maxConnections: bounds[limit], limit }
      // The lease is refused whether or not that can be put on record.
      record({ _tag: "PoolExhausted", time: clock.unsafeCurrentTimeMillis(), ...refusal })
      return new PoolExhaustedError(refusal)
    },
    closed: (targetId) => new PoolClosedError({ targetId })
  })

  const channelOf = (lease: Lease) => new leases.LeasedChannel(lease, mySpiffeId, policy)
  const reportLeak = (leak: Leak) =>
    Effect.suspend(() => {
      record(telemetry.leakEvent(leak, clock.unsafeCurrentTimeMillis()))
      return callbacks.onLeak?.(leak) ?? Effect.void
    })
  yield* telemetry.gauges(() => maintenance.statsOf(pool), config.cleanupInterval)
  yield* maintenance.cleanup(pool, config.cleanupInterval, reportLeak)
  const probed = (lease: Lease) => new leases.LeasedChannel(lease, mySpiffeId, undefined)
  yield* maintenance.healthChecks(pool, config.healthCheckInterval, probed, callbacks.healthCheck)

  const peers: PeerPool<ConnectionPoolError> = {
    pool,
    keys,
    channelOf,
    policy,
    captureStack: config.leakThreshold === undefined ? undefined : () => new Error("leased here").stack
  }

  return ConnectionPool.of({
    acquire: (peer) => leases.acquire(peers, peer),
    withChannel: (peer, body) => leases.withChannel(peers, peer, body),
    client: (peer) => leases.client(peers, peer),
    stats: Effect.zipRight(
      telemetry.updateGauges,
      Effect.sync(() => maintenance.statsOf(pool))
    ),
    closeAll: Effect.sync(() => pool.retire(undefined, "Invalidated")),
    invalidate: (peer) => Effect.sync(() => pool.retire(keys.of(peer), "Invalidated")),
    invalidateChannel: (channel) =>
      Effect.sync(() => {
        if (channel instanceof leases.LeasedChannel) pool.state.retire(channel.lease.slot, "Invalidated")
      })
  })
})

/**
 * The pool for the layer's scope. When it ends no connection is leased or opened any more, waiting fibers fail with
 * `PoolClosedError`, and all connections are closed. Where there is an `AuditLog` in the context, refused and leaked leases
 * are put on record. The gauge `TransportMetrics.pool` is brought up to date each `cleanupInterval` and by `stats`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { ConnectionPool, PeerDirectory } from "@agentweave/transport"
 * import { NodeConnector } from "@agentweave/transport-node"
 * import { Layer } from "effect"
 *
 * const PoolLive = ConnectionPool.layer({ maxConnectionsPerTarget: 20, acquireTimeout: "1 second" }).pipe(
 *   Layer.provide(NodeConnector.layer),
 *   Layer.provide(PeerDirectory.layerTemplate("https://{path}.internal:8443"))
 * )
 * ```
 */
export const layer = (
  options: Options = {}
): Layer.Layer<ConnectionPool, InvalidConfigError, Connector | PeerDirectory | IdentityProvider> =>
  Layer.scoped(ConnectionPool, make(options))

/**
 * {@link layer} with options from `Config`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { ConnectionPool } from "@agentweave/transport"
 * import { Config } from "effect"
 *
 * const PoolLive = ConnectionPool.layerConfig({
 *   maxTotalConnections: Config.withDefault(Config.integer("POOL_SIZE"), 50),
 *   acquireTimeout: Config.duration("POOL_WAIT")
 * })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<ConnectionPool, ConfigError | InvalidConfigError, Connector | PeerDirectory | IdentityProvider> =>
  Layer.scoped(ConnectionPool, Effect.flatMap(Config.unwrap(options), make))
