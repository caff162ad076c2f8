/** Reads audit files from their first line to their last, and says what does not hold. */
import * as Either from "effect/Either"
import type { Anchored } from "../../AuditAnchor.js"
import type { Report } from "../../AuditFile.js"
import {
  type Begins,
  type Checkpoint,
  type Counts,
  decode,
  firstUnreadableLine,
  type Head,
  hashOf,
  origin,
  type PredecessorState,
  type Range,
  type Record,
  start
} from "../audit/format.js"
import { Coverage } from "./coverage.js"
import { type Finding, gravity } from "./findings.js"
import { Kept } from "./kept.js"
import { Losses } from "./losses.js"
import { Signers, type Trust } from "./signers.js"
import { Tampering } from "./tampering.js"

type Incomplete = Extract<Finding, { readonly _tag: "Incomplete" }>

const nothing: Finding = {
  _tag: "Tampered",
  line: 1,
  seq: 0,
  file: undefined,
  problem: "Unreadable",
  description: "expected an audit file, got no whole record"
}

/** Why a file begins that its own process wrote the end of the one before, and so knows what stands there. */
const goesOn: ReadonlySet<Begins> = new Set(["Rotated", "ClockSetBack"])

/** The file that is being read. */
interface Current {
  readonly name: string | undefined
  readonly version: 1 | 2
  /** Number of the file in its log; -1 in format 1, which has none. */
  readonly file: number
  readonly log: string | undefined
}

/** One verification, from the first line of the first file to the last line of the last. */
export class Verification {
  private readonly signers: Signers
  private readonly kept: Kept
  private readonly coverage: Coverage
  private readonly losses = new Losses()
  private readonly findings: Array<Finding> = []
  private current: Current | undefined
  private records = 0
  private lines = 0
  private first: { readonly seq: number; readonly prev: string } | undefined
  /** Last record read. */
  private seq = -1
  /** The lines of the row that is being read. */
  private row: Array<string> = []
  private rowFrom = 0
  private date = Number.NEGATIVE_INFINITY
  /** Date of the first record. */
  private since = 0
  private ended: "Rotated" | "Closed" | undefined
  private torn = false
  /** Whether the last record is a checkpoint: a full file of format 1 ends with one, and does not say that it is full. */
  private isSigned = false
  private flushWindow: number | undefined
  private dropped: Counts = { requests: 0, others: 0 }
  private stopped = false

  constructor(trust: Trust | undefined, anchored: Iterable<Anchored> = []) {
    this.signers = new Signers(trust)
    this.coverage = new Coverage(this.signers)
    this.kept = new Kept(anchored)
  }

  /** The next file, or the next part of one text. */
  add(content: string | Uint8Array, name: string | undefined): void {
    this.lines = 0
    const text = typeof content === "string" ? content : Buffer.from(content).toString("utf8")
    const unreadable = typeof content === "string" ? undefined : firstUnreadableLine(text, content)
    const lines = text.split("\n")
    // A crash within a write leaves a record without a newline; in order, nothing follows the last one.
    const rest = lines.pop() ?? ""
    for (const line of lines) {
      if (this.stopped) return
      this.lines++
      const problem =
        this.lines === unreadable
          ? new Tampering("Unreadable", "expected UTF-8, got other bytes")
          : this.take(line, name)
      if (problem === undefined) continue
      this.stopped = true
      this.findings.push({
        _tag: "Tampered",
        ...(problem.at ?? { line: this.lines, seq: this.seq + 1, file: name }),
        problem: problem.problem,
        description: problem.description
      })
    }
    // Until the next header: a file without a line says nothing of the one before it.
    this.torn ||= rest !== ""
  }

  private take(line: string, name: string | undefined): Tampering | undefined {
    const decoded = decode(line)
    if (Either.isLeft(decoded)) return new Tampering("Unreadable", decoded.left)
    const record = decoded.right
    if (record.header !== undefined) {
      const problem = this.beginFile(record, name)
      if (problem !== undefined) return problem
    } else {
      if (this.current === undefined || this.current.name !== name) {
        return new Tampering(
          "Missing",
          `expected the header of a file, got record ${record.seq}: records before it were removed`
        )
      }
      const problem = this.follows(record)
      if (problem !== undefined) return problem
      if (this.ended !== undefined && record.checkpoint === undefined) {
        return new Tampering("OutOfPlace", `expected nothing behind the end of a file, got record ${record.seq}`)
      }
    }
    this.seq = record.seq
    this.records++
    const log = this.current?.log
    if (log !== undefined && this.kept.differs(log, record.seq, line)) {
      return new Tampering("Changed", `the anchor keeps another record ${record.seq}: the file was written anew`)
    }
    if (record.prev === undefined) this.row.push(line)
    else {
      this.row = [line]
      this.rowFrom = record.seq
    }
    return this.content(record, line)
  }

  private get head(): Head {
    return this.row.length === 0 ? start : { seq: this.seq, hash: hashOf(this.row.join("\n")) }
  }

  /** Whether a record stands where its number and its row say. */
  private follows(record: Record): Tampering | undefined {
    const expected = this.seq + 1
    if (record.seq > expected) {
      const removed = record.seq - expected
      return new Tampering("Missing", `expected record ${expected}, got ${record.seq}: ${removed} removed`)
    }
    if (record.seq < expected) {
      return new Tampering("OutOfPlace", `expected record ${expected}, got ${record.seq} again or out of its place`)
    }
    if (record.prev === undefined) {
      return this.current?.version === 2
        ? undefined
        : new Tampering("Unreadable", `expected record ${record.seq} to name the one before it`)
    }
    return this.linked(record.seq, record.prev)
  }

  private linked(seq: number, prev: string): Tampering | undefined {
    if (prev === this.head.hash) return undefined
    const which = this.rowFrom === this.seq ? `record ${this.seq}` : `one of records ${this.rowFrom} to ${this.seq}`
    return new Tampering(
      "Changed",
      `${which} was changed, or another was put in its place: record ${seq} names another SHA-256`,
      { line: Math.max(1, this.lines - this.row.length), seq: this.rowFrom, file: this.current?.name }
    )
  }

  private incomplete(what: Incomplete["what"], description: string, range?: Range): void {
    this.findings.push({ _tag: "Incomplete", what, description, ...range })
  }

  private beginFile(record: Record, name: string | undefined): Tampering | undefined {
    const { header, prev, seq } = record
    if (header === undefined || prev === undefined)
      return new Tampering("Unreadable", "expected a header with the hash of what came before")
    const before = this.current
    const wasEnded = this.ended !== undefined || (before?.version === 1 && this.isSigned)
    const wasTorn = this.torn
    const next: Current =
      header.version === 2
        ? { name, version: 2, file: header.file, log: header.log }
        : { name, version: 1, file: -1, log: undefined }
    if (before === undefined) this.first = { seq, prev }
    else {
      const problem = this.succeeds(before, next, record, prev)
      if (problem !== undefined) return problem
    }
    if (before !== undefined && (!wasEnded || wasTorn)) {
      const why = header.version === 2 ? header.predecessor?.state : undefined
      this.incomplete(
        "TailOpen",
        `the file before record ${seq} was not closed${wasTorn ? ", its last record is torn" : ""}${why === undefined ? "" : ` (its successor found it ${why})`}: its process ended abruptly, or its end was cut off`
      )
    }
    if (header.version === 2 && header.begins.startsWith("Predecessor") && header.lost === undefined) {
      const what = `record ${seq} says that the file before it was missing, cut or replaced when it began`
      this.incomplete("PredecessorMissing", what)
    }
    // A log that is opened goes on from what it finds, and vouches for none of it.
    if (header.version === 1 || !goesOn.has(header.begins)) this.coverage.settle()
    if (header.lost !== undefined) this.losses.lost.push(header.lost)
    this.current = next
    this.ended = undefined
    this.torn = false
    this.flushWindow = header.flushWindowMillis
    // Dates may go back between two files, where the clock was set back, and not within one.
    this.date = Number.NEGATIVE_INFINITY
    return undefined
  }

  /** Whether a file is the successor of the one read before it. */
  private succeeds(before: Current, next: Current, { header, seq }: Record, prev: string): Tampering | undefined {
    if (next.log !== before.log && before.version === 2) {
      this.incomplete("BeginsAnew", `record ${seq} begins another log: nothing links it to the one before`)
      this.beginsAnew(seq, prev)
      return undefined
    }
    if (seq === 0) {
      this.incomplete("BeginsAnew", "a log begins anew: nothing links it to the one before")
      this.beginsAnew(seq, prev)
      return undefined
    }
    const expected = this.seq + 1
    if (seq < expected)
      return new Tampering(
        "OutOfPlace",
        `expected a file that begins with record ${expected}, got one that begins with ${seq}`
      )
    if (seq === expected) return this.linked(seq, prev)
    const predecessor = header !== undefined && header.version === 2 ? header.predecessor : undefined
    const gap = { from: expected, to: seq - 1 }
    const isOnRecord = header?.lost !== undefined && header.lost.from <= gap.from && header.lost.to >= gap.to
    if (!isOnRecord && predecessor?.file === before.file && predecessor.seq > this.seq) {
      return new Tampering(
        "Missing",
        `expected the file to go on to record ${predecessor.seq}, it ends with ${this.seq}: its end was cut off`,
        {
          line: this.lines,
          seq: expected,
          file: before.name
        }
      )
    }
    this.losses.gaps.push(gap)
    if (!isOnRecord) {
      this.incomplete(
        "PredecessorMissing",
        `records ${gap.from} to ${gap.to} are missing: their file was not given`,
        gap
      )
    }
    this.coverage.settle()
    return undefined
  }

  private beginsAnew(seq: number, prev: string): void {
    this.coverage.settle()
    if (seq !== 0 || prev !== origin) {
      this.incomplete("BeginsInTheMiddle", `the log begins with record ${seq}: the files before it were not given`)
    }
  }

  private content(record: Record, line: string): Tampering | undefined {
    const time = this.dateOf(record)
    if (this.current?.version === 2 && time < this.date) {
      return new Tampering(
        "OutOfPlace",
        `expected dates that do not go back, record ${record.seq} goes back by ${this.date - time} ms`
      )
    }
    this.date = Math.max(this.date, time)
    if (this.records === 1) this.since = this.date
    if (record.dropped !== undefined) {
      this.dropped = {
        requests: this.dropped.requests + record.dropped.requests,
        others: this.dropped.others + record.dropped.others
      }
    }
    if (record.retired !== undefined) this.losses.retired.push({ ...record.retired, at: record.seq })
    if (record.end !== undefined) this.ended = record.end.state
    this.isSigned = record.checkpoint !== undefined
    if (record.checkpoint !== undefined) return this.checkpoint(record, record.checkpoint, line)
    this.coverage.add(record.seq, this.date)
    return undefined
  }

  /** The date of a record: its row's, or in format 1, which has none, the latest that was seen in its file. */
  private dateOf(record: Record): number {
    if (this.current?.version === 2) return record.prev === undefined ? this.date : (record.time ?? this.date)
    const header = record.header !== undefined && record.header.version === 1 ? record.header.time : undefined
    return Math.max(this.date, header ?? record.event?.time ?? this.date)
  }

  private checkpoint(record: Record, checkpoint: Checkpoint, line: string): Tampering | undefined {
    const isFirst = "final" in checkpoint
    if (isFirst !== (this.current?.version === 1) || record.prev === undefined) {
      return new Tampering("Unreadable", "expected a checkpoint of the file's own format")
    }
    const checked = this.signers.check(record, checkpoint, line)
    if (Either.isLeft(checked)) return new Tampering("BadSignature", checked.left)
    if (isFirst) this.ended = checkpoint.final ? "Closed" : undefined
    this.coverage.sign(checked.right, record.seq, this.date)
    return undefined
  }

  /** Where the last file ends, and how. */
  get end(): {
    readonly log: string | undefined
    readonly file: number
    readonly head: Head
    readonly state: PredecessorState
  } {
    const { current, ended, head, torn } = this
    return { log: current?.log, file: current?.file ?? -1, head, state: torn ? "Torn" : (ended ?? "Open") }
  }

  /** Reports what was found in all that was added. */
  finish(): Report {
    this.coverage.settle()
    const { first } = this
    // Of a file that was tampered with nothing else can be said.
    if (!this.stopped) {
      if (first === undefined) this.findings.push(nothing)
      else {
        this.ends(first)
        this.settled(first.seq)
        this.findings.push(...this.kept.findings(this.current?.name, this.lines + 1))
      }
    }
    const verdict = gravity.find((grave) => this.findings.some(({ _tag }) => _tag === grave)) ?? "Verified"
    return {
      verdict,
      findings: this.findings
        .filter(({ _tag }) => !this.stopped || _tag === "Tampered")
        .toSorted((a, b) => gravity.indexOf(a._tag) - gravity.indexOf(b._tag)),
      records: this.records,
      first: first?.seq ?? 0,
      since: this.since,
      until: Math.max(this.date, this.since),
      head: this.head,
      signedUpTo: this.coverage.signedUpTo,
      isClosed: this.ended === "Closed" && !this.torn,
      lost: this.losses.missing(first?.seq ?? 0),
      dropped: this.dropped,
      signers: this.coverage.signedBy
    }
  }

  /** How all that was given begins and ends. */
  private ends(first: { readonly seq: number; readonly prev: string }): void {
    if (first.seq > 0 || first.prev !== origin) this.beginsInTheMiddle(first)
    if (this.ended === "Closed" && !this.torn) return
    const window = ` (a crash loses at most the last ${this.flushWindow ?? 0} ms)`
    this.incomplete(
      "TailOpen",
      this.ended === "Rotated"
        ? "the last file given was full: its successor was not given"
        : `the log was not closed: its process is still writing, ended abruptly, or the end was cut off${window}${this.torn ? "; the last record is torn" : ""}`
    )
  }

  private beginsInTheMiddle(first: { readonly seq: number; readonly prev: string }): void {
    if (this.losses.isRetired(first, (seq) => this.coverage.covers(seq))) return
    const { seq } = first
    this.incomplete("BeginsInTheMiddle", `the first record given is ${seq}: the files before it were not given`, {
      from: 0,
      to: seq - 1
    })
  }

  private settled(first: number): void {
    this.findings.push(...this.coverage.findings)
    for (const { from, to } of this.losses.missing(first)) {
      this.incomplete(
        "Lost",
        `records ${from} to ${to} are LOST: their file was taken away, cut or replaced while it was in use, or while the log was stopped`,
        { from, to }
      )
    }
    const { others, requests } = this.dropped
    if (requests + others > 0) {
      this.incomplete(
        "Dropped",
        `by the log's own count ${requests} events of requests and ${others} others could not be recorded`
      )
    }
  }
}
