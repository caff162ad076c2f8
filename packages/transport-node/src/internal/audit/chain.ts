/** Chains records by rows, as bytes that wait to be written. AUDIT_FORMAT.md says what a row is. */
import { sign } from "node:crypto"
import type { X509Svid } from "@agentweave/spiffe/X509Svid"
import type { AuditEvent } from "@agentweave/transport/AuditEvent"
import * as Redacted from "effect/Redacted"
import { digestFor } from "../auditVerification/signers.js"
import { EventJson } from "./eventJson.js"
import {
  type Content,
  type Counts,
  type Head,
  hashOf,
  placeOfLine,
  placeOfRow,
  signedText,
  start,
  withSignature
} from "./format.js"

const newline = 10

const smallest = 16 * 1024
/** A larger buffer is not kept for the next batch. */
const largest = 1024 * 1024

/**
 * Records in a row at most: hashed together they take a third of the time, and as objects so few of them do not outlive the
 * young generation (`npm run bench -- record`).
 */
const maxRow = 64

/** How far the clock may be set back before dates that stand still are no longer right, in milliseconds. */
const maxSetBack = 60_000

/** Records ready to be written with one call. */
export interface Batch {
  /** Their lines, each with its newline. */
  readonly bytes: Buffer
  /** Where the chain stands after them. */
  readonly head: Head
  /** Number of the file that begins with its first record, if one does. */
  readonly begins: number | undefined
  /** Whether the file is full with its last record. */
  readonly isLast: boolean
  /** Events that waited. */
  readonly events: number
  /** Its checkpoints. */
  readonly checkpoints: ReadonlyArray<{ readonly seq: number; readonly line: string }>
}

/** The place of a record, which is taken off before the record is chained anew. */
const place = /^\{"seq":\d+,(?:"prev":"[0-9a-f]{64}","time":\d+,)?/

const isOfFile = (rest: string): boolean => /^"(?:header|checkpoint|end)":/.test(rest)

const toBase64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64")

export class Chain {
  private readonly now: () => number
  private readonly json = new EventJson()
  /** The last events, which are in no row yet. */
  private fresh: Array<AuditEvent> = []
  private bytes: Buffer = Buffer.allocUnsafe(smallest)
  private length = 0
  private spare: Buffer | undefined
  private seq = start.seq
  private hash = start.hash
  /** Date of the last row, milliseconds since the epoch. */
  private date = Number.NEGATIVE_INFINITY
  private begins: number | undefined
  private events = 0
  private checkpoints: Array<{ readonly seq: number; readonly line: string }> = []
  /** Records since the last checkpoint, and the date of the first of them. */
  private unsignedCount = 0
  private unsignedSince = 0
  /** Whether the clock was set back further than dates can stand still. */
  isSetBack = false

  constructor(now: () => number) {
    this.now = now
  }

  /** Where the chain stands. */
  get head(): Head {
    this.closeRow()
    return { seq: this.seq, hash: this.hash }
  }

  /** Records that no checkpoint covers, those in no row included. */
  get unsigned(): number {
    return this.unsignedCount + this.fresh.length
  }

  /** Date of the first record that no checkpoint covers. */
  get since(): number {
    this.closeRow()
    return this.unsignedSince
  }

  /** Bytes that wait to be written. */
  get size(): number {
    this.closeRow()
    return this.length
  }

  get isEmpty(): boolean {
    return this.length === 0 && this.fresh.length === 0
  }

  add(event: AuditEvent): void {
    this.events++
    this.fresh.push(event)
    if (this.fresh.length >= maxRow) this.closeRow()
  }

  /** Begins a file: dates may go back here, and its header is a row of its own. */
  beginFile(number: number, content: Content): void {
    this.closeRow()
    this.date = Number.NEGATIVE_INFINITY
    this.isSetBack = false
    this.begins = number
    this.addContent(content)
  }

  /** Adds a record of the log's own, as a row of its own. */
  addContent(content: Content): void {
    this.closeRow()
    this.row([JSON.stringify(content).slice(1)])
  }

  /** Signs everything up to here. */
  addCheckpoint(svid: X509Svid, dropped: Counts): void {
    this.closeRow()
    const key = Redacted.value(svid.privateKey)
    const certificates = svid.certificates.map((der) => `"${toBase64(der)}"`).join(",")
    const before = `${this.nextPlace()}"checkpoint":{"dropped":${JSON.stringify(dropped)},"ownId":${JSON.stringify(svid.spiffeId)},"certificates":[${certificates}]`
    const line = withSignature(
      before,
      sign(digestFor(key.asymmetricKeyType), signedText(before), key).toString("base64")
    )
    this.seq++
    this.append(`${line}\n`)
    this.checkpoints.push({ seq: this.seq, line })
    this.unsignedCount = 0
  }

  /** Takes all records that wait, to be written. */
  take(isLast: boolean): Batch {
    this.closeRow()
    const { begins, checkpoints, events, hash, seq } = this
    const bytes = this.bytes.subarray(0, this.length)
    this.bytes = this.spare ?? Buffer.allocUnsafe(smallest)
    this.spare = undefined
    this.length = 0
    this.events = 0
    this.begins = undefined
    this.checkpoints = []
    return { bytes, head: { seq, hash }, begins, isLast, events, checkpoints }
  }

  /** A batch is written: its buffer may be used again. */
  giveBack({ bytes }: Batch): void {
    const whole = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.buffer.byteLength - bytes.byteOffset)
    if (bytes.byteOffset === 0 && whole.length >= smallest && whole.length <= largest) this.spare = whole
  }

  /**
   * Makes the records that wait follow another one, in another file, of which `header` is the first record. What belongs to
   * the file they were to be written to, its header, end and checkpoints, is left out.
   */
  follow(head: Head, batches: ReadonlyArray<Batch>, number: number, header: Content): void {
    this.closeRow()
    const lines = [...batches.map(({ bytes }) => bytes), this.bytes.subarray(0, this.length)]
      .flatMap((bytes) => bytes.toString().split("\n"))
      .filter((line) => line !== "")
    this.events += batches.reduce((sum, { events }) => sum + events, 0)
    this.length = 0
    this.checkpoints = []
    this.seq = head.seq
    this.hash = head.hash
    this.unsignedCount = 0
    this.beginFile(number, header)
    const rests = lines.map((line) => line.replace(place, "")).filter((rest) => !isOfFile(rest))
    for (let at = 0; at < rests.length; at += maxRow) this.row(rests.slice(at, at + maxRow))
  }

  /** Goes on with the chain of another log. */
  goOn(head: Head): void {
    this.seq = head.seq
    this.hash = head.hash
  }

  private closeRow(): void {
    const { fresh } = this
    if (fresh.length === 0) return
    this.fresh = []
    this.row(fresh.map((event) => `"event":${this.json.of(event)}}`))
  }

  /** How the next row begins; its date does not go back. */
  private nextPlace(): string {
    const now = this.now()
    if (now < this.date - maxSetBack) this.isSetBack = true
    this.date = Math.max(this.date, now)
    return placeOfRow(this.seq + 1, this.hash, this.date)
  }

  private row(rests: ReadonlyArray<string>): void {
    let text = this.nextPlace()
    let { seq } = this
    let isFirst = true
    for (const rest of rests) {
      seq++
      text += isFirst ? `${rest}\n` : `${placeOfLine(seq)}${rest}\n`
      isFirst = false
    }
    if (this.unsignedCount === 0) this.unsignedSince = this.date
    this.unsignedCount += rests.length
    this.seq = seq
    this.append(text)
  }

  /** Puts a whole row behind the others, and chains it. */
  private append(text: string): void {
    // No character of a string takes more than three bytes in UTF-8.
    this.reserve(this.length + text.length * 3)
    const from = this.length
    this.length += this.bytes.write(text, from)
    this.hash = hashOf(
      this.bytes.subarray(from, this.bytes[this.length - 1] === newline ? this.length - 1 : this.length)
    )
  }

  private reserve(size: number): void {
    if (size <= this.bytes.length) return
    const larger = Buffer.allocUnsafeSlow(Math.max(size, this.bytes.length * 2))
    this.bytes.copy(larger, 0, 0, this.length)
    this.bytes = larger
  }
}
