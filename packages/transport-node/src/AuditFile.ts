/**
 * The audit file: newline-delimited JSON in which every record names the SHA-256 of the one before, with signed
 * checkpoints. Whoever changes, removes, swaps or inserts a record breaks the chain at that place; whoever writes the chain
 * anew cannot sign it.
 *
 * @since 0.1.0
 */
import { sign, verify as verifySignature, X509Certificate } from "node:crypto"
import type { X509Svid } from "@agentweave/spiffe/X509Svid"
import type { AuditEvent } from "@agentweave/transport/AuditEvent"
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { hashOf, placeOf } from "./internal/auditLine.js"

/**
 * The `prev` of the first record there ever was.
 *
 * @since 0.1.0
 * @category constants
 */
export const origin: string = "0".repeat(64)

/**
 * Where a chain stands: the sequence number and the hash of its last record.
 *
 * @since 0.1.0
 * @category models
 */
export interface Head {
  /** -1 before the first record. */
  readonly seq: number
  /** SHA-256 of the last record's line, lower-case hex. */
  readonly hash: string
}

/**
 * @since 0.1.0
 * @category constants
 */
export const start: Head = { seq: -1, hash: origin }

const Checkpoint = Schema.Struct({
  /** Whether the log was closed in order here. */
  final: Schema.Boolean,
  /** The SPIFFE ID that signed. */
  ownId: Schema.String,
  /** DER of the signer's certificates, base64, the leaf first. */
  certificates: Schema.NonEmptyArray(Schema.String),
  signature: Schema.String
})

const Header = Schema.Struct({
  version: Schema.Literal(1),
  /** Milliseconds since the epoch. */
  time: Schema.Number,
  /** What a crash can lose at most, in milliseconds. */
  flushWindowMillis: Schema.Number,
  /**
   * Records, from this one to that one, that were in the file before, which somebody deleted, replaced or cut short while it
   * was being written.
   */
  lost: Schema.optional(Schema.Struct({ from: Schema.Number, to: Schema.Number }))
})

const Dropped = Schema.Struct({
  /** Events that the sink could not take, since the last record of this kind. */
  requests: Schema.Number,
  others: Schema.Number
})

const Line = Schema.Struct({
  seq: Schema.Number,
  prev: Schema.String,
  event: Schema.optional(Schema.Struct({ time: Schema.Number })),
  header: Schema.optional(Header),
  dropped: Schema.optional(Dropped),
  checkpoint: Schema.optional(Checkpoint)
})

/**
 * What a record holds besides its place in the chain.
 *
 * @since 0.1.0
 * @category models
 */
export type Content =
  | { readonly event: AuditEvent }
  | { readonly header: typeof Header.Type }
  | { readonly dropped: typeof Dropped.Type }
  | { readonly checkpoint: typeof Checkpoint.Type }

const decodeLine = Schema.decodeUnknownEither(Schema.parseJson(Line))

/**
 * Appends one record: its line, without a newline, and where the chain stands then.
 *
 * @since 0.1.0
 * @category constructors
 */
export const append = (head: Head, content: Content): { readonly line: string; readonly head: Head } => {
  const seq = head.seq + 1
  const line = placeOf(seq, head.hash) + JSON.stringify(content).slice(1)
  return { line, head: { seq, hash: hashOf(line) } }
}

const signed = (head: Head, final: boolean): Buffer =>
  Buffer.from(`audit checkpoint ${head.seq} ${head.hash} ${final ? "final" : "open"}`)

const toBase64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64")

const digestFor = (keyType: string | undefined): string | null =>
  keyType === "ed25519" || keyType === "ed448" ? null : "sha256"

/**
 * A checkpoint over everything up to `head`, signed with the workload's own SVID.
 *
 * @since 0.1.0
 * @category constructors
 */
export const checkpoint = (head: Head, svid: X509Svid, final: boolean): Content => {
  const key = Redacted.value(svid.privateKey)
  return {
    checkpoint: {
      final,
      ownId: svid.spiffeId,
      certificates: [toBase64(svid.certificates[0]), ...svid.certificates.slice(1).map(toBase64)],
      signature: sign(digestFor(key.asymmetricKeyType), signed(head, final), key).toString("base64")
    }
  }
}

/**
 * What verification found.
 *
 * - `Intact`: closed in order, every record in its place, the last checkpoint signed over all of them.
 * - `Interrupted`: every record in its place, but the log was not closed: the process is still writing, was killed, or the
 *   end was cut off. Records after `signedUpTo` are chained and not signed.
 * - `Tampered`: `line` (from 1) is the first one that is not as it was written.
 *
 * @since 0.1.0
 * @category models
 */
export type Verification =
  | {
      readonly _tag: "Intact"
      readonly records: number
      readonly head: Head
      /** Records that were taken away while the log was being written, by its own account. */
      readonly lost: ReadonlyArray<{ readonly from: number; readonly to: number }>
      readonly signers: ReadonlyArray<Signer>
    }
  | {
      readonly _tag: "Interrupted"
      readonly records: number
      readonly head: Head
      /** Sequence number of the last signed record; -1 when none is. */
      readonly signedUpTo: number
      readonly lost: ReadonlyArray<{ readonly from: number; readonly to: number }>
      readonly signers: ReadonlyArray<Signer>
      readonly description: string
    }
  | {
      readonly _tag: "Tampered"
      readonly line: number
      readonly seq: number
      readonly problem: "Unreadable" | "Changed" | "Missing" | "OutOfPlace" | "BadSignature"
      readonly description: string
    }

/**
 * Who signed a checkpoint. That its certificate is one of the workload's is the caller's to verify, with `PeerVerifier`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Signer {
  readonly ownId: string
  /** DER of the certificates, the leaf first. */
  readonly certificates: readonly [Uint8Array, ...ReadonlyArray<Uint8Array>]
  /** Time of the last record signed by it, milliseconds since the epoch. */
  readonly time: number
}

/**
 * Verifies the text of an audit file (or of several, joined in order). A chain that begins in the middle, as a rotated file
 * does, is verified from where it begins.
 *
 * @since 0.1.0
 * @category verification
 */
export const verify = (text: string): Verification => {
  const lines = text.split("\n")
  // What follows the last newline is a record torn by a crash, or nothing.
  const torn = lines.pop() ?? ""
  const signers = new Map<string, Signer>()
  const lost: Array<{ readonly from: number; readonly to: number }> = []
  let head: Head | undefined
  let first: number | undefined
  let signedUpTo = -1
  let final = false
  let flushWindow: number | undefined
  let time = 0
  for (const [index, line] of lines.entries()) {
    const at = { line: index + 1, seq: head === undefined ? 0 : head.seq + 1 }
    const tampered = (problem: Extract<Verification, { _tag: "Tampered" }>["problem"], description: string) => ({
      _tag: "Tampered" as const,
      ...at,
      problem,
      description
    })
    const decoded = decodeLine(line)
    if (Either.isLeft(decoded))
      return tampered("Unreadable", `expected a record, got ${JSON.stringify(line.slice(0, 80))}`)
    const record = decoded.right
    if (head !== undefined) {
      if (record.seq > head.seq + 1) {
        return tampered(
          "Missing",
          `expected record ${head.seq + 1}, got ${record.seq}: ${record.seq - head.seq - 1} removed`
        )
      }
      if (record.seq < head.seq + 1) {
        return tampered("OutOfPlace", `expected record ${head.seq + 1}, got ${record.seq} again or out of its place`)
      }
      if (record.prev !== head.hash) {
        return {
          _tag: "Tampered",
          line: index,
          seq: head.seq,
          problem: "Changed",
          description: `expected record ${head.seq} to have the SHA-256 that record ${record.seq} names, it was changed, or another was put in its place`
        }
      }
    }
    const before: Head = { seq: record.seq - 1, hash: record.prev }
    head = { seq: record.seq, hash: hashOf(line) }
    final = false
    if (record.header !== undefined) flushWindow = record.header.flushWindowMillis
    first ??= record.seq
    // Where they are in the text they are not lost: whoever took them gave them back.
    if (record.header?.lost !== undefined && record.header.lost.from < first) lost.push(record.header.lost)
    time = record.header?.time ?? record.event?.time ?? time
    if (record.checkpoint !== undefined) {
      const problem = badSignature(before, record.checkpoint)
      if (problem !== undefined) return tampered("BadSignature", problem)
      const [leaf, ...rest] = record.checkpoint.certificates
      signers.set(leaf, {
        ownId: record.checkpoint.ownId,
        certificates: [Buffer.from(leaf, "base64"), ...rest.map((text) => Buffer.from(text, "base64"))],
        time
      })
      signedUpTo = before.seq
      final = record.checkpoint.final
    }
  }
  const result = { records: lines.length, head: head ?? start, lost, signers: Array.from(signers.values()) }
  if (final && torn === "") return { _tag: "Intact", ...result }
  const window = flushWindow === undefined ? "" : ` (a crash loses at most the last ${flushWindow} ms)`
  return {
    _tag: "Interrupted",
    ...result,
    signedUpTo,
    description: `the log was not closed: the process is still writing, ended abruptly, or the end was cut off${window}${torn === "" ? "" : "; the last record is torn"}`
  }
}

const badSignature = (over: Head, { certificates, final, signature }: typeof Checkpoint.Type): string | undefined => {
  const valid = Either.try(() => {
    const { publicKey } = new X509Certificate(Buffer.from(certificates[0], "base64"))
    return verifySignature(
      digestFor(publicKey.asymmetricKeyType),
      signed(over, final),
      publicKey,
      Buffer.from(signature, "base64")
    )
  })
  return Either.getOrElse(valid, () => false)
    ? undefined
    : `expected a checkpoint signed over everything up to record ${over.seq}, its signature does not verify`
}
