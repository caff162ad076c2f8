import type { AuditEvent } from "../../AuditEvent.js"
import type { Deadlines, Timed } from "./deadlines.js"
import type { Record } from "./records.js"

type Summed = Extract<AuditEvent, { readonly _tag: "ConnectionsRefused" }>

/** How often what was summed is put on record, in milliseconds. */
export const period = 10_000

/** Refusals that are alike and may be many: counted, and put on record as one event a period. */
export class Sums implements Timed {
  readonly date = Number.POSITIVE_INFINITY
  deadline = Number.POSITIVE_INFINITY
  private readonly deadlines: Deadlines
  private readonly record: Record
  private readonly sums = new Map<string, { readonly since: number; readonly description: string; count: number }>()

  constructor(deadlines: Deadlines, record: Record) {
    this.deadlines = deadlines
    this.record = record
  }

  add(reason: Summed["reason"], description: string): void {
    const known = this.sums.get(reason)
    if (known !== undefined) {
      known.count++
      return
    }
    this.sums.set(reason, { since: this.deadlines.wall(), description, count: 1 })
    if (this.sums.size > 1) return
    this.deadline = this.deadlines.now() + period
    this.deadlines.add(this)
  }

  onDeadline(): void {
    this.flush()
  }

  /** Puts on record what there is. */
  flush(): void {
    if (this.sums.size === 0) return
    this.deadline = Number.POSITIVE_INFINITY
    this.deadlines.remove(this)
    const time = this.deadlines.wall()
    const sums = Array.from(this.sums)
    this.sums.clear()
    for (const [reason, sum] of sums) {
      this.record({ _tag: "ConnectionsRefused", time, side: "Server", reason, ...sum })
    }
  }
}
