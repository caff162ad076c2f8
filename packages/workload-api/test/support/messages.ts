import type { X509Context } from "@agentweave/spiffe"
import { WorkloadMessage } from "@agentweave/workload-api"
import type { Redacted } from "effect"

/** The message a proper agent would send. */
export const messageOf = (context: X509Context.X509Context): WorkloadMessage.X509SvidResponse =>
  WorkloadMessage.toX509SvidResponse(context)

export const encode = (context: X509Context.X509Context): Redacted.Redacted<Uint8Array> =>
  WorkloadMessage.encodeX509SvidResponse(messageOf(context))

/** The message with fields of its first SVID changed. */
export const withFirst = (
  message: WorkloadMessage.X509SvidResponse,
  change: Partial<WorkloadMessage.X509SvidMessage>
): WorkloadMessage.X509SvidResponse => ({
  ...message,
  svids: message.svids.map((svid, index) => (index === 0 ? { ...svid, ...change } : svid))
})

export const concat = (parts: ReadonlyArray<Uint8Array>): Uint8Array => Buffer.concat(parts)
