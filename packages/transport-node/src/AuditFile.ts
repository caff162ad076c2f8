/**
 * The audit file: newline-delimited JSON in which every record names the SHA-256 of the one before, with signed
 * checkpoints. Whoever changes, removes, swaps or inserts a record breaks the chain at that place; whoever writes the chain
 * anew cannot sign it.
 *
 * @since 0.1.0
 */
import { sign } from "node:crypto"
import type { X509Svid } from "@agentweave/spiffe/X509Svid"
import type { AuditEvent } from "@agentweave/transport/AuditEvent"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { digestFor, type Trust } from "./internal/audit/signers.js"
import { Verification } from "./internal/audit/verification.js"
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
 * How far an audit file can be believed, from the best to the gravest:
 *
 * - `Verified`: it begins with the first record of its log, every record is as it was written, it was closed in order, and
 *   each record is signed by the expected workload with an SVID that was valid at the record's time.
 * - `Incomplete`: what is there is as it was written, and something is missing, or may be: it begins in the middle, was not
 *   closed, lacks a file, or could not record everything.
 * - `Unsigned`: some records are chained, and no signature vouches for them: they could have been written by anybody.
 * - `SignerUnknown`: a signature is genuine, and its certificate is not one of the expected workload's under the given
 *   bundles: another bundle is needed, or the file was written anew by another.
 * - `Tampered`: a record is not as it was written.
 *
 * @since 0.1.0
 * @category models
 */
export type Verdict = "Verified" | "Incomplete" | "Unsigned" | "SignerUnknown" | "Tampered"

const gravity: ReadonlyArray<Verdict> = ["Verified", "Incomplete", "Unsigned", "SignerUnknown", "Tampered"]

/**
 * The gravest of some verdicts; `Verified` where there are none.
 *
 * @since 0.1.0
 * @category verification
 */
export const gravest = (verdicts: Iterable<Verdict>): Verdict =>
  gravity[Math.max(0, ...Array.from(verdicts, (verdict) => gravity.indexOf(verdict)))] ?? "Tampered"

/**
 * What is wrong with the first record that is not as it was written.
 *
 * @since 0.1.0
 * @category models
 */
export type TamperedProblem = "Unreadable" | "Changed" | "Missing" | "OutOfPlace" | "BadSignature"

/**
 * One thing that keeps a file from being `Verified`.
 *
 * @since 0.1.0
 * @category models
 */
export type Finding =
  | {
      readonly _tag: "Tampered"
      /** Name of the file as it was given; `undefined` for a bare text. */
      readonly file: string | undefined
      /** From 1. */
      readonly line: number
      /** Number that the record has, or should have. */
      readonly seq: number
      readonly problem: TamperedProblem
      readonly description: string
    }
  | {
      readonly _tag: "SignerUnknown"
      /** Number of the first checkpoint by this signer. */
      readonly seq: number
      readonly description: string
    }
  | { readonly _tag: "Unsigned"; readonly from: number; readonly to: number; readonly description: string }
  | {
      readonly _tag: "Incomplete"
      readonly what: "BeginsInTheMiddle" | "BeginsAnew" | "PredecessorMissing" | "TailOpen" | "Lost" | "Dropped"
      /** Numbers of the missing records, where they are known. */
      readonly from?: number
      readonly to?: number
      readonly description: string
    }

/**
 * A workload that signed checkpoints.
 *
 * @since 0.1.0
 * @category models
 */
export interface Signer {
  readonly ownId: string
  /** DER of the certificates, the leaf first. */
  readonly certificates: readonly [Uint8Array, ...ReadonlyArray<Uint8Array>]
  /** Date of the last checkpoint signed with it, milliseconds since the epoch. */
  readonly time: number
}

/**
 * What verification found.
 *
 * @since 0.1.0
 * @category models
 */
export interface Report {
  /** The gravest of the findings; `Verified` when there is none. */
  readonly verdict: Verdict
  /** Gravest first. */
  readonly findings: ReadonlyArray<Finding>
  /** Records that were read; up to the first bad one of a file that was tampered with. */
  readonly records: number
  /** Number of the first record given. */
  readonly first: number
  /** Where the chain ends. */
  readonly head: Head
  /** Number of the last record under a signature that counts; -1 when there is none. */
  readonly signedUpTo: number
  /** Whether the log was closed in order. */
  readonly isClosed: boolean
  /** Records that were taken away from the log, by its own account. */
  readonly lost: ReadonlyArray<{ readonly from: number; readonly to: number }>
  /** Events that could not be recorded, by the log's own count. */
  readonly dropped: { readonly requests: number; readonly others: number }
  readonly signers: ReadonlyArray<Signer>
}

/**
 * A file to verify.
 *
 * @since 0.1.0
 * @category models
 */
export interface File {
  /** As findings are to name it. */
  readonly name: string
  readonly text: string
}

export type {
  /**
   * Which signers are believed: the workloads that are expected, and every authority that may have issued their
   * certificates. Give the bundles of the past too: a signature is verified as of its own date.
   *
   * @since 0.1.0
   * @category models
   */
  Trust
}

/**
 * Verifies an audit file: its text, that of several joined in order, or several files in order. Without `trust` no signer is
 * known, and the best verdict is `SignerUnknown`. Formats 1 and 2.
 *
 * @since 0.1.0
 * @category verification
 */
export const verify = (files: string | Iterable<File>, trust?: Trust): Report => {
  const verification = new Verification(trust)
  if (typeof files === "string") verification.add(files, undefined)
  else for (const { name, text } of files) verification.add(text, name)
  return verification.finish()
}
