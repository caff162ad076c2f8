/**
 * What the transport leaves on record. Every event is a plain value with a stable JSON form.
 *
 * @since 0.1.0
 */
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
 * Why a connection ended.
 *
 * - `Idle`: not used for the idle timeout. `Evicted`: closed idle to make room for another peer.
 * - `Age`: reached its maximum age. `Expiry`: a certificate on it expired. `Rotation`: our own identity was replaced.
 * - `Distrust`: the peer's chain no longer verifies. `Unhealthy`: failed a health check. `Invalidated`: on request.
 * - `PeerClosed`: the peer closed it. `Error`: it broke. `Aborted`: a request on it was interrupted or timed out.
 * - `Shutdown`: its owner's scope closed.
 *
 * @since 0.1.0
 * @category models
 */
export const CloseReason = Schema.Literal(
  "Idle",
  "Evicted",
  "Age",
  "Expiry",
  "Rotation",
  "Distrust",
  "Unhealthy",
  "Invalidated",
  "PeerClosed",
  "Error",
  "Aborted",
  "Shutdown"
)

/**
 * @since 0.1.0
 * @category models
 */
export type CloseReason = typeof CloseReason.Type

/**
 * An established connection ended.
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
 * Every event there is.
 *
 * @since 0.1.0
 * @category models
 */
export const AuditEvent = Schema.Union(ConnectionAttempted, ConnectionEstablished, ConnectionRefused, ConnectionClosed)

/**
 * @since 0.1.0
 * @category models
 */
export type AuditEvent = typeof AuditEvent.Type
