/** The events of strangers that knock at a server, and of peers that prove who they are. */
import type { AuditEvent } from "@agentweave/transport"

const common = (n: number, time: number) => ({
  time,
  side: "Server" as const,
  connectionId: `s${n}`,
  address: `10.0.0.${n % 3}:${1_024 + n}`
})

export const attempted = (n: number, time: number): AuditEvent.AuditEvent => ({
  _tag: "ConnectionAttempted",
  ...common(n, time),
  expectedId: "spiffe://example.org/web"
})

export const turnedAway = (n: number, time: number, reason = "HandshakeReset"): AuditEvent.AuditEvent => ({
  _tag: "ConnectionRefused",
  ...common(n, time),
  expectedId: "spiffe://example.org/web",
  actualId: reason === "UnexpectedPeer" ? "spiffe://example.org/other" : null,
  error: reason === "HandshakeReset" ? "ConnectionError" : "PeerVerificationError",
  reason,
  description: "",
  durationMillis: 1
})

export const established = (n: number, time: number): AuditEvent.AuditEvent => ({
  _tag: "ConnectionEstablished",
  ...common(n, time),
  peerId: "spiffe://example.org/web",
  peerSerialNumber: "1",
  peerFingerprint: "1",
  ownId: "spiffe://example.org/api",
  ownSerialNumber: "2",
  ownFingerprint: "2",
  bundleGeneration: "3",
  tlsVersion: "TLSv1.3",
  cipher: "TLS_AES_256_GCM_SHA384",
  durationMillis: 1
})
