import type { Deadlines, Timed } from "./deadlines.js"
import type { Moment } from "./lifetime.js"

/** How many looks that find no progress make the limit. Looks, and not time: a process that stood still has not looked. */
export const looks = 4

/** A connection of which bytes may wait to be sent. */
export interface Sending {
  /** Asks its transport how far it is with sending. */
  readonly lookAtSending: () => void
}

/** Looks at every connection of a server, again and again, as long as there are any. */
export class SendWatch implements Timed {
  readonly date = Number.POSITIVE_INFINITY
  deadline = Number.POSITIVE_INFINITY
  private readonly deadlines: Deadlines
  private readonly live: Iterable<Sending> & { readonly size: number }
  private readonly interval: number

  constructor(deadlines: Deadlines, live: SendWatch["live"], limitMillis: number) {
    this.deadlines = deadlines
    this.live = live
    this.interval = limitMillis / looks
  }

  /** There is a connection. */
  begin(): void {
    if (this.deadline !== Number.POSITIVE_INFINITY || this.interval === Number.POSITIVE_INFINITY) return
    this.deadline = this.deadlines.now() + this.interval
    this.deadlines.add(this)
  }

  /** One connection fewer: after the last there is nothing to look at. */
  ended(): void {
    if (this.live.size > 0) return
    this.deadline = Number.POSITIVE_INFINITY
    this.deadlines.remove(this)
  }

  onDeadline({ mono }: Moment): void {
    this.deadline = mono + this.interval
    // One that is cut off may be the last.
    for (const connection of Array.from(this.live)) connection.lookAtSending()
  }
}

/** How far one connection is with sending, as it was when it was last looked at. */
export class SendProgress {
  private sent: number | undefined = undefined
  private unchanged = 0

  /** `sent` changes when the peer takes bytes; `undefined` where none wait. Whether the limit is reached. */
  isStalled(sent: number | undefined): boolean {
    this.unchanged = sent !== undefined && sent === this.sent ? this.unchanged + 1 : 0
    this.sent = sent
    return this.unchanged >= looks
  }
}
