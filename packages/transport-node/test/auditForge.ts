/**
 * Audit files of format 2 written anew, by the words of AUDIT_FORMAT.md alone: what an attacker would do, with or without a
 * key.
 */
import { hash, sign } from "node:crypto"
import type { X509Svid } from "@agentweave/spiffe"
import { Redacted } from "effect"

/** A record without its place: what stands behind `seq`, `prev` and `time`. */
export interface Forged {
  /** Begins a row, dated so. */
  readonly time?: number
  /** `"event":{…}` and the like. */
  readonly content: string
}

const first = /^\{"seq":\d+,"prev":"[0-9a-f]{64}","time":(\d+),(.*)\}$/
const other = /^\{"seq":\d+,(.*)\}$/

/** The records of a text. */
export const parse = (text: string): ReadonlyArray<Forged> =>
  text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const [, time, content = ""] = first.exec(line) ?? []
      return time === undefined ? { content: other.exec(line)?.[1] ?? "" } : { time: Number(time), content }
    })

const sha256 = (lines: ReadonlyArray<string>) => hash("sha256", lines.join("\n"), "hex")

const checkpointOf = (svid: X509Svid.X509Svid): string => {
  const certificates = svid.certificates.map((der) => Buffer.from(der).toString("base64"))
  return `"checkpoint":${JSON.stringify({ dropped: { requests: 0, others: 0 }, ownId: svid.spiffeId, certificates })}`
}

const signature = (svid: X509Svid.X509Svid, before: string): string =>
  sign("sha256", Buffer.from(`agentweave audit checkpoint 2\n${before}`), Redacted.value(svid.privateKey)).toString(
    "base64"
  )

/**
 * Chains records anew. Checkpoints are signed by `svid`; without one they are kept as they were, which no longer fits the
 * chain.
 */
export const chain = (
  records: ReadonlyArray<Forged>,
  svid?: X509Svid.X509Svid,
  from: { readonly seq: number; readonly hash: string } = { seq: 0, hash: "0".repeat(64) }
): string => {
  let { hash: prev, seq } = from
  let row: Array<string> = []
  const lines: Array<string> = []
  for (const { content, time } of records) {
    if (time !== undefined && row.length > 0) {
      prev = sha256(row)
      row = []
    }
    const place = time === undefined ? `{"seq":${seq},` : `{"seq":${seq},"prev":"${prev}","time":${time},`
    const isSigned = svid !== undefined && content.startsWith('"checkpoint"')
    const before = isSigned ? `${place}${checkpointOf(svid).slice(0, -1)}` : ""
    const line = isSigned ? `${before},"signature":"${signature(svid, before)}"}}` : `${place}${content}}`
    row.push(line)
    lines.push(line)
    seq++
  }
  return lines.map((line) => `${line}\n`).join("")
}
