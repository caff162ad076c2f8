/** Writes audit files of format 1, as they were: each record names the SHA-256 of the line before it. */
import { hash, sign } from "node:crypto"
import type { X509Svid } from "@agentweave/spiffe"
import type { AuditEvent } from "@agentweave/transport"
import { Redacted } from "effect"

export interface Head {
  readonly seq: number
  readonly hash: string
}

export const start: Head = { seq: -1, hash: "0".repeat(64) }

export type Content =
  | { readonly event: AuditEvent.AuditEvent }
  | { readonly header: { readonly version: 1; readonly time: number; readonly flushWindowMillis: number } }
  | { readonly checkpoint: unknown }

export const append = (head: Head, content: Content) => {
  const seq = head.seq + 1
  const line = JSON.stringify({ seq, prev: head.hash, ...content })
  return { line, head: { seq, hash: hash("sha256", line, "hex") } }
}

export const checkpoint = (head: Head, svid: X509Svid.X509Svid, final: boolean): Content => ({
  checkpoint: {
    final,
    ownId: svid.spiffeId,
    certificates: svid.certificates.map((der) => Buffer.from(der).toString("base64")),
    signature: sign(
      "sha256",
      Buffer.from(`audit checkpoint ${head.seq} ${head.hash} ${final ? "final" : "open"}`),
      Redacted.value(svid.privateKey)
    ).toString("base64")
  }
})
