/** Connection attempts at a server: those of strangers are counted and summed once there are many. */
import type { AuditEvent } from "@agentweave/transport/AuditEvent"

type Attempted = Extract<AuditEvent, { readonly _tag: "ConnectionAttempted" }>
type Refused = Extract<AuditEvent, { readonly _tag: "ConnectionRefused" }>
type Summed = Extract<AuditEvent, { readonly _tag: "AttemptsSummed" }>

const minute = 60_000

/** Attempts whose outcome is waited for; of more than these only the number is kept. */
const maxHeld = 10_000

/** Addresses that are told apart in one sum. */
const maxAddresses = 10_000

const sourceOf = (address: string): string => address.slice(0, address.lastIndexOf(":"))

/** Whether a peer that was refused had proven who it is. */
const isProven = ({ error, reason }: Refused): boolean =>
  error === "PeerVerificationError" && reason === "UnexpectedPeer"

/** Attempts counted since the last sum was put on record. */
interface Sum {
  readonly since: number
  attempts: number
  readonly addresses: Set<string>
  readonly reasons: Map<string, number>
}

/**
 * Decides what is put on record of the attempts at a server. The first of a minute that come from strangers are, each with
 * its outcome. After them an attempt is held until its outcome is known: of a peer that proves who it is both are put on
 * record; the others are summed.
 */
export class Attempts {
  private readonly limit: number
  private readonly held = new Map<string, Attempted>()
  private minuteBegan = Number.NEGATIVE_INFINITY
  private taken = 0
  private sum: Sum | undefined

  /** How many attempts of strangers are put on record each minute. */
  constructor(limit: number) {
    this.limit = limit
  }

  get size(): number {
    return this.held.size
  }

  /**
   * The events to put on record now that this one came. While space is scarce (`isScarce`) every stranger is summed.
   */
  take(event: AuditEvent, isScarce: boolean): ReadonlyArray<AuditEvent> {
    if (!("side" in event) || event.side !== "Server") return [event]
    switch (event._tag) {
      case "ConnectionAttempted":
        return this.attempted(event, isScarce)
      case "ConnectionEstablished": {
        const attempt = this.release(event.connectionId)
        if (attempt !== undefined) return [attempt, event]
        // It was no stranger's.
        if (this.taken > 0) this.taken--
        return [event]
      }
      case "ConnectionRefused":
        return this.refused(event)
      default:
        return [event]
    }
  }

  private attempted(event: Attempted, isScarce: boolean): ReadonlyArray<AuditEvent> {
    if (event.time - this.minuteBegan >= minute || event.time < this.minuteBegan) {
      this.minuteBegan = event.time
      this.taken = 0
    }
    if (!isScarce && this.taken < this.limit) {
      this.taken++
      return [event]
    }
    if (this.held.size < maxHeld) this.held.set(event.connectionId, event)
    else this.count(event, "Unknown")
    return []
  }

  private refused(event: Refused): ReadonlyArray<AuditEvent> {
    const attempt = this.release(event.connectionId)
    if (attempt === undefined) return [event]
    if (isProven(event)) return [attempt, event]
    this.count(event, `${event.error} ${event.reason}`)
    return []
  }

  private release(connectionId: string): Attempted | undefined {
    const attempt = this.held.get(connectionId)
    if (attempt !== undefined) this.held.delete(connectionId)
    return attempt
  }

  private count({ address, time }: Attempted | Refused, reason: string): void {
    this.sum ??= { since: time, attempts: 0, addresses: new Set(), reasons: new Map() }
    this.sum.attempts++
    if (this.sum.addresses.size < maxAddresses) this.sum.addresses.add(sourceOf(address))
    this.sum.reasons.set(reason, (this.sum.reasons.get(reason) ?? 0) + 1)
  }

  /** The sum, once it is a minute old, or at the end. */
  takeSum(now: number, isEnd: boolean): Summed | undefined {
    const { sum } = this
    if (sum === undefined || (!isEnd && now - sum.since < minute && now >= sum.since)) return undefined
    this.sum = undefined
    return {
      _tag: "AttemptsSummed",
      time: now,
      side: "Server",
      since: sum.since,
      attempts: sum.attempts,
      addresses: sum.addresses.size,
      reasons: Object.fromEntries(sum.reasons)
    }
  }

  /** The attempts that are still open, to be put on record at the end. */
  takeAll(): ReadonlyArray<AuditEvent> {
    const open = Array.from(this.held.values())
    this.held.clear()
    return open
  }
}
