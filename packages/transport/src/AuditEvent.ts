/**
 * Events that the transport leaves on record. Every event is a plain value with a stable JSON form: the one line that the
 * documentation of each shows, as `JSON.stringify` makes it. Names of fields and literals stay as they are; fields and
 * literals may be added. Times are milliseconds since the epoch, durations milliseconds. In the audit file it is the
 * `event` of its record.
 *
 * @since 0.1.0
 */
import { IdentityProblemKind } from "@agentweave/spiffe/IdentityProblem"
import { PeerVerificationReason } from "@agentweave/spiffe/PeerVerificationError"
import * as Schema from "effect/Schema"

const common = {
  /** Milliseconds since the epoch, from Effect's Clock. */
  time: Schema.Number,
  /** Which end of the connection this process is. */
  side: Schema.Literal("Client", "Server"),
  /** Unique within the process; also on every request that ran on the connection. */
  connectionId: Schema.String,
  /** `host:port` of the other end. */
  address: Schema.String
}

/**
 * A connection is about to be opened (client) or was accepted by the listener (server); no byte was exchanged.
 *
 * ```json
 * {"_tag":"ConnectionAttempted","time":1767225600000,"side":"Client","connectionId":"c1","address":"10.0.0.7:8443","expectedId":"spiffe://example.org/api"}
 * ```
 *
 * @since 0.1.0
 * @category models
 */
export const ConnectionAttempted = Schema.TaggedStruct("ConnectionAttempted", {
  ...common,
  /** The peer expected, as the matcher describes it. */
  expectedId: Schema.String
})

/**
 * The TLS handshake succeeded and the peer passed the gate.
 *
 * ```json
 * {"_tag":"ConnectionEstablished","time":1767225600005,"side":"Client","connectionId":"c1","address":"10.0.0.7:8443","peerId":"spiffe://example.org/api","peerSerialNumber":"5f2a","peerFingerprint":"14c2529eb4498c5d1ffd6915d05bf58a91bdda796af59f41d480d11c099d0479","ownId":"spiffe://example.org/web","ownSerialNumber":"61c0","ownFingerprint":"4b5e57f6eb2f42b9039b3d1e13929295f231749c510cbe341cd68036d9af97e2","bundleGeneration":"1e6ed65d77d6364eeaed5a745ba5c4985ae2b700dd85d7cf7f027bdf294a33fc","tlsVersion":"TLSv1.3","cipher":"TLS_AES_256_GCM_SHA384","durationMillis":5}
 * ```
 *
 * @since 0.1.0
 * @category models
 */
export const ConnectionEstablished = Schema.TaggedStruct("ConnectionEstablished", {
  ...common,
  peerId: Schema.String,
  peerSerialNumber: Schema.String,
  peerFingerprint: Schema.String,
  ownId: Schema.String,
  ownSerialNumber: Schema.String,
  ownFingerprint: Schema.String,
  bundleGeneration: Schema.String,
  tlsVersion: Schema.String,
  cipher: Schema.String,
  durationMillis: Schema.Number
})

/**
 * The connection was refused, by us or by the peer, or never came to be.
 *
 * ```json
 * {"_tag":"ConnectionRefused","time":1767225600004,"side":"Client","connectionId":"c2","address":"10.0.0.8:8443","expectedId":"spiffe://example.org/api","actualId":"spiffe://example.org/other","error":"PeerVerificationError","reason":"UnexpectedPeer","description":"expected spiffe://example.org/api, the peer is spiffe://example.org/other","durationMillis":4}
 * ```
 *
 * @since 0.1.0
 * @category models
 */
export const ConnectionRefused = Schema.TaggedStruct("ConnectionRefused", {
  ...common,
  expectedId: Schema.String,
  actualId: Schema.NullOr(Schema.String),
  /** The tag of the typed error. */
  error: Schema.String,
  /** The reason literal of the typed error, e.g. one of `PeerVerificationReason`. */
  reason: Schema.Union(PeerVerificationReason, Schema.String),
  description: Schema.String,
  durationMillis: Schema.Number
})

/**
 * Connections that a server refused and that are not on record one by one, because they can be many: as many as came for one
 * reason since the last such event.
 *
 * - Those refused without an attempt, summed every ten seconds: `reason` is the limit that was reached (`maxConnections`,
 *   `maxHandshakesPerAddress` and the like), or the tag and reason of our own error where there is no identity to present.
 * - In the audit file, attempts of peers that did not prove their identity, those beyond `maxStrangers` a minute, summed every
 *   minute: `reason` is the tag and reason of the error, `Unknown` of attempts whose outcome was not waited for. These have
 *   `addresses`.
 *
 * ```json
 * {"_tag":"ConnectionsRefused","time":1767225610000,"side":"Server","reason":"maxHandshakes","since":1767225600000,"description":"expected at most 256 (maxHandshakes)","count":812}
 * ```
 *
 * @since 0.1.0
 * @category models
 */
export const ConnectionsRefused = Schema.TaggedStruct("ConnectionsRefused", {
  /** Milliseconds since the epoch. */
  time: Schema.Number,
  side: Schema.Literal("Server"),
  reason: Schema.String,
  /** When the first of them came, milliseconds since the epoch. */
  since: Schema.Number,
  /** Of the first of them. */
  description: Schema.String,
  count: Schema.Number,
  /** Different addresses without their ports; above 10,000 in all no more are told apart. */
  addresses: Schema.optional(Schema.Number)
})

/**
 * Why a connection ended.
 *
 * - `Idle`: not used for the idle timeout. `Evicted`: closed idle to make room for another peer.
 * - `Age`: reached its maximum age. `Expiry`: a certificate on it expired, or is about to. `Withdrawn`: our
 *   own identity was withdrawn.
 * - `Distrust`: the peer's chain no longer verifies. `Unhealthy`: failed a health check. `Invalidated`: on request.
 * - `PeerClosed`: the peer closed it, or it ended after a message with `Connection: close`. `Error`: it broke. `Aborted`: a request on it was interrupted or timed out.
 * - `Shutdown`: its owner's scope closed.
 * - `SendTimeout`: the client of a server took none of the bytes that were sent to it.
 *
 * @since 0.1.0
 * @category models
 */
export const CloseReason = Schema.Literal(
  "Idle",
  "Evicted",
  "Age",
  "Expiry",
  "Withdrawn",
  "Distrust",
  "Unhealthy",
  "Invalidated",
  "PeerClosed",
  "Error",
  "Aborted",
  "Shutdown",
  "SendTimeout"
)

/**
 * The reasons for which a connection is closed.
 *
 * @since 0.1.0
 * @category models
 */
export type CloseReason = typeof CloseReason.Type

/**
 * An established connection ended.
 *
 * ```json
 * {"_tag":"ConnectionClosed","time":1767225660000,"side":"Client","connectionId":"c1","address":"10.0.0.7:8443","peerId":"spiffe://example.org/api","reason":"Idle","requests":12,"bytesRead":20480,"bytesWritten":4096,"durationMillis":59995}
 * ```
 *
 * @since 0.1.0
 * @category models
 */
export const ConnectionClosed = Schema.TaggedStruct("ConnectionClosed", {
  ...common,
  peerId: Schema.String,
  reason: CloseReason,
  requests: Schema.Number,
  bytesRead: Schema.Number,
  bytesWritten: Schema.Number,
  durationMillis: Schema.Number
})

/**
 * A request was handed to its connection (client), or arrived on one (server). The path is without its query.
 *
 * ```json
 * {"_tag":"RequestStarted","time":1767225600010,"side":"Client","connectionId":"c1","address":"10.0.0.7:8443","requestId":"r1","traceId":"0af7651916cd43dd8448eb211c80319c","peerId":"spiffe://example.org/api","method":"GET","path":"/invoices/42","attempt":1}
 * ```
 *
 * @since 0.1.0
 * @category models
 */
export const RequestStarted = Schema.TaggedStruct("RequestStarted", {
  ...common,
  /** Unique within the process. */
  requestId: Schema.String,
  /**
   * The trace the request belongs to, where there is one. A trace that began with the request at the server is first in
   * `RequestEnded`.
   */
  traceId: Schema.optional(Schema.String),
  peerId: Schema.String,
  method: Schema.String,
  path: Schema.String,
  /** 1 for the first attempt; counts up with a retry policy. */
  attempt: Schema.Number
})

/**
 * A request ended: its response was received (client) or sent (server) whole, or it failed.
 *
 * ```json
 * {"_tag":"RequestEnded","time":1767225600022,"side":"Client","connectionId":"c1","address":"10.0.0.7:8443","requestId":"r1","traceId":"0af7651916cd43dd8448eb211c80319c","peerId":"spiffe://example.org/api","method":"GET","path":"/invoices/42","attempt":1,"status":200,"durationMillis":12}
 * ```
 *
 * @since 0.1.0
 * @category models
 */
export const RequestEnded = Schema.TaggedStruct("RequestEnded", {
  ...common,
  requestId: Schema.String,
  traceId: Schema.optional(Schema.String),
  peerId: Schema.String,
  method: Schema.String,
  path: Schema.String,
  attempt: Schema.Number,
  /** Absent when no response came. */
  status: Schema.optional(Schema.Number),
  /** Tag of the typed error, or `"Interrupted"`; absent when the exchange ran to its end. */
  error: Schema.optional(Schema.String),
  durationMillis: Schema.Number
})

const identity = {
  /** Milliseconds since the epoch, from Effect's Clock. */
  time: Schema.Number
}

/**
 * A new SVID is in use.
 *
 * ```json
 * {"_tag":"SvidRotated","time":1767225600000,"ownId":"spiffe://example.org/web","serialNumber":"61c1","fingerprint":"146d3146edc9c8f1640fdac0e4919b013daf8f409d1900ecc89f65d51b45a9f3","notAfter":1767229200000}
 * ```
 *
 * @since 0.1.0
 * @category models
 */
export const SvidRotated = Schema.TaggedStruct("SvidRotated", {
  ...identity,
  ownId: Schema.String,
  serialNumber: Schema.String,
  fingerprint: Schema.String,
  /** Milliseconds since the epoch. */
  notAfter: Schema.Number
})

/**
 * A trust domain's bundle was added, changed or (with `generation` absent) removed.
 *
 * ```json
 * {"_tag":"BundleRotated","time":1767225600000,"trustDomain":"example.org","generation":"de04a852d56f747934fc3eeb0c50c85ac7a3738984febb0e94b49a8b277d7377","authorities":2}
 * ```
 *
 * @since 0.1.0
 * @category models
 */
export const BundleRotated = Schema.TaggedStruct("BundleRotated", {
  ...identity,
  trustDomain: Schema.String,
  generation: Schema.optional(Schema.String),
  authorities: Schema.Number
})

/**
 * Something is wrong with our own identity.
 *
 * - `Discarded`: what its source delivered, or a part of it, cannot be used: see `IdentityProblemKind` of `@agentweave/spiffe`.
 * - `Withdrawn`: the source took it back.
 * - `Stale`: it is valid, but a successor is overdue.
 * - `Expired`: the SVID is past its notAfter, and no successor came.
 * - `Unavailable`: the source cannot be asked or read; what it delivered last goes on serving until it expires.
 * - `Exposed`: others may have seen the private key.
 *
 * ```json
 * {"_tag":"IdentityProblem","time":1767225600000,"problem":"Withdrawn","reason":"Withdrawn","description":"expected an identity, the source took it back"}
 * ```
 *
 * @since 0.1.0
 * @category models
 */
export const IdentityProblem = Schema.TaggedStruct("IdentityProblem", {
  ...identity,
  problem: Schema.Literal(...IdentityProblemKind.literals, "Stale"),
  /** The source's own literal for it, such as `Malformed`; absent for what the clock alone says. */
  reason: Schema.optional(Schema.String),
  description: Schema.String
})

/**
 * The pool refused a lease.
 *
 * ```json
 * {"_tag":"PoolExhausted","time":1767225600000,"targetId":"spiffe://example.org/api","limit":"Target","maxConnections":10}
 * ```
 *
 * @since 0.1.0
 * @category models
 */
export const PoolExhausted = Schema.TaggedStruct("PoolExhausted", {
  ...identity,
  targetId: Schema.String,
  limit: Schema.Literal("Target", "Total", "Waiting"),
  maxConnections: Schema.Number
})

/**
 * A lease is held longer than the pool's leak threshold.
 *
 * ```json
 * {"_tag":"LeaseLeaked","time":1767225600000,"targetId":"spiffe://example.org/api","heldMillis":60000,"origin":"invoices"}
 * ```
 *
 * @since 0.1.0
 * @category models
 */
export const LeaseLeaked = Schema.TaggedStruct("LeaseLeaked", {
  ...identity,
  targetId: Schema.String,
  heldMillis: Schema.Number,
  /** Where it was taken. */
  origin: Schema.String
})

/**
 * A circuit breaker changed its state.
 *
 * ```json
 * {"_tag":"CircuitStateChanged","time":1767225600000,"target":"spiffe://example.org/api","from":"Closed","to":"Open"}
 * ```
 *
 * @since 0.1.0
 * @category models
 */
export const CircuitStateChanged = Schema.TaggedStruct("CircuitStateChanged", {
  ...identity,
  target: Schema.String,
  from: Schema.String,
  to: Schema.String
})

/**
 * Every event there is.
 *
 * @since 0.1.0
 * @category models
 */
export const AuditEvent = Schema.Union(
  ConnectionAttempted,
  ConnectionEstablished,
  ConnectionRefused,
  ConnectionsRefused,
  ConnectionClosed,
  RequestStarted,
  RequestEnded,
  SvidRotated,
  BundleRotated,
  IdentityProblem,
  PoolExhausted,
  LeaseLeaked,
  CircuitStateChanged
)

/**
 * An event of the audit log.
 *
 * @since 0.1.0
 * @category models
 */
export type AuditEvent = typeof AuditEvent.Type

/**
 * The subject of an event: a sink may treat requests, which are many, otherwise than the rest.
 *
 * @since 0.1.0
 * @category getters
 */
export const isRequest = (event: AuditEvent): boolean =>
  event._tag === "RequestStarted" || event._tag === "RequestEnded"
