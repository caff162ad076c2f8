/** The audit events of a connection, which both sides leave alike. */
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import type { VerifiedPeer } from "@agentweave/spiffe/PeerVerifier"
import type { X509Svid } from "@agentweave/spiffe/X509Svid"
import * as Cause from "effect/Cause"
import * as Option from "effect/Option"
import type { AuditEvent, CloseReason } from "../../AuditEvent.js"
import type { AuditError } from "../../AuditLog.js"
import type { TransportError } from "../../TransportError.js"
import type { TlsDetails, Wire } from "../../Wire.js"

/** Takes an event, or says why it could not. */
export type Record = (event: AuditEvent) => AuditError | undefined

/** The fields of all events of a connection. */
export interface Common {
  readonly side: "Client" | "Server"
  readonly connectionId: string
  readonly address: string
}

export const attempted = (time: number, common: Common, matcher: PeerMatcher.PeerMatcher): AuditEvent => ({
  _tag: "ConnectionAttempted",
  time,
  ...common,
  expectedId: PeerMatcher.describe(matcher)
})

export const established = (
  time: number,
  common: Common,
  of: {
    readonly peer: VerifiedPeer
    readonly svid: X509Svid
    readonly tls: TlsDetails
    readonly durationMillis: number
  }
): AuditEvent => ({
  _tag: "ConnectionEstablished",
  time,
  ...common,
  peerId: of.peer.spiffeId,
  peerSerialNumber: of.peer.serialNumber,
  peerFingerprint: of.peer.fingerprint,
  ownId: of.svid.spiffeId,
  ownSerialNumber: of.svid.serialNumber,
  ownFingerprint: of.svid.fingerprint,
  bundleGeneration: of.peer.bundleGeneration,
  tlsVersion: of.tls.version,
  cipher: of.tls.cipher,
  durationMillis: of.durationMillis
})

const reasonOf = (error: TransportError | AuditError): string => {
  switch (error._tag) {
    case "TimeoutError":
      return error.phase
    case "InvalidSpiffeIdError":
      return error.rule
    default:
      return error.reason
  }
}

const interrupted = {
  actualId: null,
  error: "Interrupted",
  reason: "Interrupted",
  description: "the attempt was given up before it ended"
}

/** Any error of an attempt. */
export const refused = (
  time: number,
  common: Common,
  of: {
    readonly matcher: PeerMatcher.PeerMatcher
    readonly cause: Cause.Cause<TransportError | AuditError>
    readonly durationMillis: number
  }
): AuditEvent => ({
  _tag: "ConnectionRefused",
  time,
  ...common,
  expectedId: PeerMatcher.describe(of.matcher),
  ...Option.match(Cause.failureOption(of.cause), {
    onNone: () => interrupted,
    onSome: (error) => ({
      actualId: error._tag === "PeerVerificationError" ? error.actualId : null,
      error: error._tag,
      reason: reasonOf(error),
      description: error.message
    })
  }),
  durationMillis: of.durationMillis
})

export const closed = (
  time: number,
  common: Common,
  of: {
    readonly peer: VerifiedPeer
    readonly reason: CloseReason
    readonly requests: number
    readonly wire: Wire
    readonly durationMillis: number
  }
): AuditEvent => ({
  _tag: "ConnectionClosed",
  time,
  ...common,
  peerId: of.peer.spiffeId,
  reason: of.reason,
  requests: of.requests,
  bytesRead: of.wire.bytesRead,
  bytesWritten: of.wire.bytesWritten,
  durationMillis: of.durationMillis
})
