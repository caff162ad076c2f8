/** Audit events for tests: each complete, each with the fields a test cares about. */
import type { AuditEvent } from "@agentweave/transport"

type EventOf<Tag extends AuditEvent.AuditEvent["_tag"]> = Extract<AuditEvent.AuditEvent, { readonly _tag: Tag }>

export const api = "spiffe://example.org/api"
export const billing = "spiffe://example.org/billing"

const common = { time: 0, side: "Client", connectionId: "c1", address: "10.0.0.7:8443" } as const

export const established = (fields: Partial<EventOf<"ConnectionEstablished">> = {}): AuditEvent.AuditEvent => ({
  _tag: "ConnectionEstablished",
  ...common,
  peerId: api,
  peerSerialNumber: "5F2A",
  peerFingerprint: "14c2",
  ownId: "spiffe://example.org/web",
  ownSerialNumber: "61C0",
  ownFingerprint: "4b5e",
  bundleGeneration: "1e6e",
  tlsVersion: "TLSv1.3",
  cipher: "TLS_AES_256_GCM_SHA384",
  durationMillis: 5,
  ...fields
})

export const closed = (fields: Partial<EventOf<"ConnectionClosed">> = {}): AuditEvent.AuditEvent => ({
  _tag: "ConnectionClosed",
  ...common,
  peerId: api,
  reason: "Idle",
  requests: 1,
  bytesRead: 1,
  bytesWritten: 1,
  durationMillis: 1,
  ...fields
})

export const refused = (fields: Partial<EventOf<"ConnectionRefused">> = {}): AuditEvent.AuditEvent => ({
  _tag: "ConnectionRefused",
  ...common,
  expectedId: api,
  actualId: null,
  error: "PeerVerificationError",
  reason: "NoBundle",
  description: "expected a bundle for partner.example, got none",
  durationMillis: 4,
  ...fields
})

const request = {
  ...common,
  requestId: "r1",
  peerId: api,
  method: "GET",
  path: "/invoices/42",
  attempt: 1
} as const

export const started = (fields: Partial<EventOf<"RequestStarted">> = {}): AuditEvent.AuditEvent => ({
  _tag: "RequestStarted",
  ...request,
  ...fields
})

export const ended = (fields: Partial<EventOf<"RequestEnded">> = {}): AuditEvent.AuditEvent => ({
  _tag: "RequestEnded",
  ...request,
  status: 200,
  durationMillis: 12,
  ...fields
})
