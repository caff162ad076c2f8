import { type AuditEvent, isRequest } from "@agentweave/transport/AuditEvent"
import type { Content, Head } from "../AuditFile.js"
import { toJson } from "./auditJson.js"
import { hashOf, placeOf } from "./auditLine.js"

const newline = 10

const smallest = 16 * 1024
/** A larger buffer is not kept for the next batch. */
const largest = 1024 * 1024

/** So many events of requests wait as objects: chained in a row they take less time, and so few of them die young. */
const row = 64

/** A place in a batch to come back to. */
interface Mark {
  readonly length: number
  readonly count: number
  readonly head: Head
}

/**
 * Records that wait to be written, chained and as bytes. Kept as objects they would outlive the young generation: the garbage
 * collector would copy each of them twice, which costs more than all else that is done with them.
 */
export class AuditBatch {
  /** The last ones, not chained yet. */
  private fresh: Array<AuditEvent> = []
  private bytes = Buffer.allocUnsafe(smallest)
  /** Where each line ends, after its newline. */
  private readonly ends: Array<number> = []
  private length = 0
  private from: Head
  private seq: number
  private hash: string

  /** The chain it goes on with. */
  constructor(from: Head) {
    this.from = from
    this.seq = from.seq
    this.hash = from.hash
  }

  /** Where the chain stands after it. */
  get head(): Head {
    this.chain()
    return { seq: this.seq, hash: this.hash }
  }

  get mark(): Mark {
    const { head } = this
    return { length: this.length, count: this.ends.length, head }
  }

  /** Its lines, each with its newline: a view that is good until the batch changes. */
  get lines(): Uint8Array {
    this.chain()
    return this.bytes.subarray(0, this.length)
  }

  add(event: AuditEvent): void {
    this.fresh.push(event)
    if (this.fresh.length >= row || !isRequest(event)) this.chain()
  }

  private chain(): void {
    const { fresh } = this
    if (fresh.length === 0) return
    this.fresh = []
    for (const event of fresh) this.append(`"event":${toJson(event)}}`)
  }

  addContent(content: Content): void {
    this.chain()
    this.append(JSON.stringify(content).slice(1))
  }

  private append(rest: string): void {
    const line = placeOf(++this.seq, this.hash) + rest
    // No character of a string takes more than three bytes in UTF-8.
    this.reserve(this.length + line.length * 3 + 1)
    this.length += this.bytes.write(line, this.length)
    this.bytes[this.length++] = newline
    this.ends.push(this.length)
    this.hash = hashOf(line)
  }

  private reserve(size: number): void {
    if (size <= this.bytes.length) return
    const larger = Buffer.allocUnsafe(Math.max(size, this.bytes.length * 2))
    this.bytes.copy(larger, 0, 0, this.length)
    this.bytes = larger
  }

  /** Takes back what was added since. */
  backTo({ count, head, length }: Mark): void {
    this.fresh = []
    this.ends.length = count
    this.length = length
    this.seq = head.seq
    this.hash = head.hash
  }

  /** Its records, after another one than they were made after: chained anew if that is so. */
  follow(from: Head): void {
    if (from.hash === this.from.hash && from.seq === this.from.seq) return
    const { bytes, fresh } = this
    const ends = this.ends.splice(0)
    let { seq } = this.from
    this.reset(from)
    this.fresh = fresh
    this.bytes = Buffer.allocUnsafe(bytes.length)
    let begin = 0
    for (const end of ends) {
      const start = this.length
      const place = placeOf(++this.seq, this.hash)
      const rest = begin + placeOf(++seq, this.hash).length
      this.reserve(start + place.length + end - rest)
      this.length += this.bytes.write(place, start, "latin1")
      this.length += bytes.copy(this.bytes, this.length, rest, end)
      this.ends.push(this.length)
      this.hash = hashOf(this.bytes.subarray(start, this.length - 1))
      begin = end
    }
  }

  /** Empty, to be used again. */
  reset(from: Head): this {
    this.fresh = []
    this.ends.length = 0
    this.length = 0
    this.from = from
    this.seq = from.seq
    this.hash = from.hash
    if (this.bytes.length > largest) this.bytes = Buffer.allocUnsafe(smallest)
    return this
  }
}
