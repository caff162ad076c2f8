/** The lines of an audit file, read and written; AUDIT_FORMAT.md of this package describes each field. */
import { hash } from "node:crypto"
import type { AuditEvent } from "@agentweave/transport/AuditEvent"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"

/** Where a chain stands: the number of its last record, and the hash of the row that record is in. */
export interface Head {
  /** -1 before the first record. */
  readonly seq: number
  /** SHA-256 of the row, lower-case hex. */
  readonly hash: string
}

/** The `prev` of the first record of a log. */
export const origin = "0".repeat(64)

export const start: Head = { seq: -1, hash: origin }

/** SHA-256 of a row's lines, without its last newline. In format 1 a row is one line. */
export const hashOf = (row: string | Uint8Array): string => hash("sha256", row, "hex")

const Range = Schema.Struct({ from: Schema.Number, to: Schema.Number })

export type Range = typeof Range.Type

const Header1 = Schema.Struct({
  version: Schema.Literal(1),
  time: Schema.Number,
  flushWindowMillis: Schema.Number,
  lost: Schema.optional(Range)
})

/** Why a file begins. */
export const Begins = Schema.Literal(
  "New",
  "Rotated",
  "Restarted",
  "ClockSetBack",
  "PredecessorMissing",
  "PredecessorCut",
  "PredecessorReplaced"
)

export type Begins = typeof Begins.Type

/** How the file before ended, as the log found it. */
export const PredecessorState = Schema.Literal("Rotated", "Closed", "Open", "Torn", "Missing", "Cut", "Replaced")

export type PredecessorState = typeof PredecessorState.Type

const Header2 = Schema.Struct({
  version: Schema.Literal(2),
  log: Schema.String,
  file: Schema.Number,
  begins: Begins,
  predecessor: Schema.optional(
    Schema.Struct({ file: Schema.Number, seq: Schema.Number, hash: Schema.String, state: PredecessorState })
  ),
  flushWindowMillis: Schema.Number,
  lost: Schema.optional(Range)
})

export type Header2 = typeof Header2.Type

const Counts = Schema.Struct({ requests: Schema.Number, others: Schema.Number })

export type Counts = typeof Counts.Type

const signer = {
  ownId: Schema.String,
  certificates: Schema.NonEmptyArray(Schema.String),
  signature: Schema.String
}

const Checkpoint1 = Schema.Struct({ final: Schema.Boolean, ...signer })

const Checkpoint2 = Schema.Struct({ dropped: Counts, ...signer })

export type Checkpoint = typeof Checkpoint1.Type | typeof Checkpoint2.Type

const End = Schema.Struct({ state: Schema.Literal("Rotated", "Closed") })

const Retired = Schema.Struct({ files: Schema.Number, upTo: Schema.Number, hash: Schema.String })

export type Retired = typeof Retired.Type

const Line = Schema.Struct({
  seq: Schema.NonNegativeInt,
  prev: Schema.optional(Schema.String),
  time: Schema.optional(Schema.Number),
  event: Schema.optional(Schema.Struct({ _tag: Schema.String, time: Schema.NullOr(Schema.Number) })),
  header: Schema.optional(Schema.Union(Header1, Header2)),
  dropped: Schema.optional(Counts),
  checkpoint: Schema.optional(Schema.Union(Checkpoint1, Checkpoint2)),
  retired: Schema.optional(Retired),
  end: Schema.optional(End)
})

/** A record as verification reads it; what else an event says is the reader's. */
export type Record = typeof Line.Type

/** A record of the log's own. */
export type Content =
  | { readonly event: AuditEvent }
  | { readonly header: Header2 }
  | { readonly dropped: Counts }
  | { readonly retired: Retired }
  | { readonly end: typeof End.Type }

const decodeLine = Schema.decodeUnknownEither(Schema.parseJson(Line))

const kinds = ["event", "header", "dropped", "checkpoint", "retired", "end"] as const

/** The record of a line, or what is wrong with the line. */
export const decode = (line: string): Either.Either<Record, string> => {
  const decoded = decodeLine(line)
  if (Either.isLeft(decoded)) return Either.left(`expected a record, got ${JSON.stringify(line.slice(0, 80))}`)
  const held = kinds.filter((kind) => decoded.right[kind] !== undefined)
  return held.length === 1
    ? Either.right(decoded.right)
    : Either.left(`expected a record with one of ${kinds.join(", ")}, got ${held.length} of them`)
}

/** How the first line of a row begins, in format 2. */
export const placeOfRow = (seq: number, prev: string, time: number): string =>
  `{"seq":${seq},"prev":"${prev}","time":${time},`

/** How every other line of a row begins. */
export const placeOfLine = (seq: number): string => `{"seq":${seq},`

const signatureAt = ',"signature":"'

/** The bytes that a checkpoint of format 2 is signed over: its own line up to its signature. */
export const signedText = (lineBeforeSignature: string): Buffer =>
  Buffer.from(`agentweave audit checkpoint 2\n${lineBeforeSignature}`)

/** A checkpoint's line, with its signature put in. */
export const withSignature = (lineBeforeSignature: string, signature: string): string =>
  `${lineBeforeSignature}${signatureAt}${signature}"}}`

/** The bytes that a checkpoint's signature is over, by its format. */
export const signedBy = (record: Record, line: string): Buffer => {
  const { checkpoint, prev, seq } = record
  if (checkpoint !== undefined && "final" in checkpoint) {
    return Buffer.from(`audit checkpoint ${seq - 1} ${prev} ${checkpoint.final ? "final" : "open"}`)
  }
  return signedText(line.slice(0, line.lastIndexOf(signatureAt)))
}

/** Number of the first line that is not what its text is in UTF-8; bytes that are none are read as a replacement. */
export const firstUnreadableLine = (text: string, bytes: Uint8Array): number | undefined => {
  const again = Buffer.from(text)
  if (again.equals(bytes)) return undefined
  const at = again.findIndex((byte, n) => byte !== bytes[n])
  return again.subarray(0, at === -1 ? again.length : at).filter((byte) => byte === 10).length + 1
}
