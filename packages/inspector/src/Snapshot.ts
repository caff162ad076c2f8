/**
 * The state of one process at one moment, as `GET api/snapshot` answers it. Field names and literals stay as they are; fields
 * and literals may be added. Times are milliseconds since the epoch, durations milliseconds.
 *
 * @since 0.1.0
 */
import * as AuditEvent from "@agentweave/transport/AuditEvent"
import * as CircuitBreakerMetrics from "@agentweave/transport/CircuitBreakerMetrics"
import * as Schema from "effect/Schema"

const Count = Schema.Number
const Time = Schema.Number
const Millis = Schema.Number

/**
 * Requests by slots of time, the oldest slot first.
 *
 * @since 0.1.0
 * @category models
 */
export const Traffic = Schema.Struct({
  slotMillis: Millis,
  /** The end of the newest slot, which is not over yet. */
  endsAt: Time,
  /** Requests that ended since the process began to record. */
  total: Count,
  /** Of these, the ones that failed or were answered with a status of 500 or above. */
  totalErrors: Count,
  /** Half of the requests in the window took at most this long; `null` when there were none. A step is a fifth at most. */
  p50Millis: Schema.NullOr(Millis),
  p99Millis: Schema.NullOr(Millis),
  requests: Schema.Array(Count),
  errors: Schema.Array(Count),
  p50: Schema.Array(Schema.NullOr(Millis)),
  p99: Schema.Array(Schema.NullOr(Millis))
})

/**
 * The type of the schema {@link Traffic}.
 *
 * @since 0.1.0
 * @category models
 */
export type Traffic = typeof Traffic.Type

/**
 * An open connection.
 *
 * @since 0.1.0
 * @category models
 */
export const Connection = Schema.Struct({
  connectionId: Schema.String,
  side: Schema.Literal("Client", "Server"),
  address: Schema.String,
  establishedAt: Time,
  tlsVersion: Schema.String,
  cipher: Schema.String,
  peerSerialNumber: Schema.String,
  ownSerialNumber: Schema.String,
  /** Requests that ended on it. */
  requests: Count,
  inFlight: Count
})

/**
 * The type of the schema {@link Connection}.
 *
 * @since 0.1.0
 * @category models
 */
export type Connection = typeof Connection.Type

/**
 * The share of one peer in a connection pool.
 *
 * @since 0.1.0
 * @category models
 */
export const PoolShare = Schema.Struct({ inUse: Count, idle: Count, opening: Count, waiting: Count })

/**
 * A peer: one that connections exist or existed to, or that the pool, a breaker or a retry budget knows.
 *
 * @since 0.1.0
 * @category models
 */
export const Peer = Schema.Struct({
  /** Its SPIFFE ID; for a pool or breaker of a matcher, the matcher as a person reads it. */
  id: Schema.String,
  /** When an event of it last came; `null` when none did. */
  lastSeen: Schema.NullOr(Time),
  openConnections: Count,
  /** The newest of its open connections, at most 16. */
  connections: Schema.Array(Connection),
  /** Requests we sent to it. */
  outgoing: Schema.NullOr(Traffic),
  /** Requests we served for it. */
  incoming: Schema.NullOr(Traffic),
  pool: Schema.NullOr(PoolShare),
  breaker: Schema.NullOr(CircuitBreakerMetrics.CircuitBreakerMetrics),
  /** Retries that its budget allows now. */
  retryBudget: Schema.NullOr(Schema.Number)
})

/**
 * The type of the schema {@link Peer}.
 *
 * @since 0.1.0
 * @category models
 */
export type Peer = typeof Peer.Type

/**
 * Our own X.509-SVID, without its private key.
 *
 * @since 0.1.0
 * @category models
 */
export const Svid = Schema.Struct({
  spiffeId: Schema.String,
  serialNumber: Schema.String,
  fingerprint: Schema.String,
  notBefore: Time,
  notAfter: Time
})

/**
 * The type of the schema {@link Svid}.
 *
 * @since 0.1.0
 * @category models
 */
export type Svid = typeof Svid.Type

/**
 * Our own identity: how fresh it is, what it consists of and what became of it.
 *
 * @since 0.1.0
 * @category models
 */
export const Identity = Schema.Struct({
  freshness: Schema.Literal("Fresh", "Stale", "Expired", "None"),
  svid: Schema.NullOr(Svid),
  /** Why there is no SVID. */
  problem: Schema.NullOr(Schema.Struct({ reason: Schema.String, description: Schema.String })),
  /** At most 64. */
  bundles: Schema.Array(
    Schema.Struct({ trustDomain: Schema.String, generation: Schema.String, authorities: Schema.Number })
  ),
  /** The changes of our identity, newest first, at most 32. */
  history: Schema.Array(Schema.Union(AuditEvent.SvidRotated, AuditEvent.BundleRotated, AuditEvent.IdentityProblem))
})

/**
 * The type of the schema {@link Identity}.
 *
 * @since 0.1.0
 * @category models
 */
export type Identity = typeof Identity.Type

/**
 * A connection that was refused, or several that a server refused unseen.
 *
 * @since 0.1.0
 * @category models
 */
export const Refusal = Schema.Struct({
  event: Schema.Union(AuditEvent.ConnectionRefused, AuditEvent.ConnectionsRefused),
  /** A sentence on where to look first; `null` where none is known. */
  hint: Schema.NullOr(Schema.String)
})

/**
 * The type of the schema {@link Refusal}.
 *
 * @since 0.1.0
 * @category models
 */
export type Refusal = typeof Refusal.Type

/**
 * The whole process at one moment.
 *
 * @since 0.1.0
 * @category models
 */
export const Snapshot = Schema.Struct({
  /** The version of this form. It changes only when a field goes or changes its meaning. */
  version: Schema.Literal(1),
  time: Time,
  /** When this process began to record. */
  startedAt: Time,
  /** Whether `POST api/reset` resets breakers. */
  canReset: Schema.Boolean,
  identity: Identity,
  /** Requests we sent, all peers together. */
  outgoing: Traffic,
  /** Requests we served, all peers together. */
  incoming: Traffic,
  /** The pool as a whole; `null` without one. */
  pool: Schema.NullOr(
    Schema.Struct({
      totalConnections: Count,
      totalAcquisitions: Count,
      totalCreations: Count,
      totalCleanups: Count,
      inUse: Count,
      idle: Count,
      opening: Count,
      waiting: Count
    })
  ),
  /** By ID, at most 64: those with an open circuit or seen last come before others where there are more. */
  peers: Schema.Array(Peer),
  /** Peers that are left out of `peers`. */
  morePeers: Count,
  /** Newest first, at most 50. */
  refusals: Schema.Array(Refusal),
  /** Connections refused since the process began to record. */
  totalRefused: Count,
  /** The last events other than of requests, newest first, at most 100. */
  events: Schema.Array(AuditEvent.AuditEvent),
  /** The last requests that ended, newest first, at most 50. */
  requests: Schema.Array(AuditEvent.RequestEnded)
}).annotations({ identifier: "Snapshot" })

/**
 * The type of the schema {@link Snapshot}.
 *
 * @since 0.1.0
 * @category models
 */
export type Snapshot = typeof Snapshot.Type

/**
 * The snapshot as JSON text, and read from it: `Schema.decode(Snapshot.FromJson)`.
 *
 * @since 0.1.0
 * @category schemas
 */
export const FromJson = Schema.parseJson(Snapshot)
