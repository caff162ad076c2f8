import { hash } from "node:crypto"
import type { AuditEvent } from "@agentweave/transport/AuditEvent"
import type { Head } from "../AuditFile.js"

/** More than what a record has before its event: `{"seq":…,"prev":"…",`. */
const frame = 112

const smallest = 16 * 1024
const largest = 1024 * 1024

/**
 * Events that wait to be written, as bytes. Kept as objects they would outlive the young generation: the garbage collector
 * would copy each of them twice, which costs more than all else that is done with them.
 */
export class AuditBatch {
  private bytes: Buffer
  /** Where each event's part of its line ends: `"event":…}` and the newline. */
  private readonly ends: Array<number> = []
  private length = 0

  /** `size` in bytes is what it is expected to hold; it grows. */
  constructor(size = smallest) {
    this.bytes = Buffer.allocUnsafe(Math.min(Math.max(size, smallest), largest))
  }

  /** Bytes it had room for. */
  get size(): number {
    return this.bytes.length
  }

  get count(): number {
    return this.ends.length
  }

  add(event: AuditEvent): void {
    const json = `"event":${JSON.stringify(event)}}\n`
    // No character of a string takes more than three bytes in UTF-8.
    const most = this.length + json.length * 3
    if (most > this.bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(most, this.bytes.length * 2))
      this.bytes.copy(larger, 0, 0, this.length)
      this.bytes = larger
    }
    this.length += this.bytes.write(json, this.length)
    this.ends.push(this.length)
  }

  /** The events as lines of the file, as `AuditFile.append` writes them, and the chain's head once they are there. */
  compose(from: Head): { readonly bytes: Buffer; readonly head: Head } {
    const out = Buffer.allocUnsafe(this.length + this.ends.length * frame)
    let at = 0
    let begin = 0
    let { hash: prev, seq } = from
    for (const end of this.ends) {
      seq++
      const start = at
      at += out.write(`{"seq":${seq},"prev":"${prev}",`, at, "latin1")
      at += this.bytes.copy(out, at, begin, end)
      begin = end
      prev = hash("sha256", out.subarray(start, at - 1), "hex")
    }
    return { bytes: out.subarray(0, at), head: { seq, hash: prev } }
  }
}
