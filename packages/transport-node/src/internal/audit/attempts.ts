/** Connection attempts at a server: those of strangers are counted and summed once there are many. */
import type { AuditEvent } from "@agentweave/transport/AuditEvent"

type Attempted = Extract<AuditEvent, { readonly _tag: "ConnectionAttempted" }>
type Refused = Extract<AuditEvent, { readonly _tag: "ConnectionRefused" }>
type Summed = Extract<AuditEvent, { readonly _tag: "ConnectionsRefused" }>

const minute = 60_000

/** Attempts whose outcome is waited for; of more than these only the number is kept. */
const maxHeld = 10_000

/** Addresses that are told apart in the sums of a minute. */
const maxAddresses = 10_000

const unknown = "the outcome of these attempts was not waited for: too many others were open"

const sourceOf = (address: string): string => address.slice(0, address.lastIndexOf(":"))

/** Whether a peer that was refused had proven who it is. */
const isProven = ({ error, reason }: Refused): boolean =>
  error === "PeerVerificationError" && reason === "UnexpectedPeer"

/** Attempts that were refused for one reason, counted since the last sums were put on record. */
interface Sum {
  readonly since: number
  readonly description: string
  count: number
  readonly addresses: Set<string>
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
  private readonly sums = new Map<string, Sum>()
  /** When the first of them was begun. */
  private since = 0
  /** Addresses in all of them. */
  private addresses = 0

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
    else this.countOne(event, "Unknown", unknown)
    return []
  }

  private refused(event: Refused): ReadonlyArray<AuditEvent> {
    const attempt = this.release(event.connectionId)
    if (attempt === undefined) return [event]
    if (isProven(event)) return [attempt, event]
    this.countOne(event, `${event.error} ${event.reason}`, event.description)
    return []
  }

  private release(connectionId: string): Attempted | undefined {
    const attempt = this.held.get(connectionId)
    if (attempt !== undefined) this.held.delete(connectionId)
    return attempt
  }

  private countOne({ address, time }: Attempted | Refused, reason: string, description: string): void {
    if (this.sums.size === 0) this.since = time
    const sum = this.sums.get(reason) ?? { since: time, description, count: 0, addresses: new Set() }
    this.sums.set(reason, sum)
    sum.count++
    if (this.addresses >= maxAddresses) return
    const before = sum.addresses.size
    this.addresses += sum.addresses.add(sourceOf(address)).size - before
  }

  /** The sums, once the first of them is a minute old, or at the end. */
  takeSums(now: number, isEnd: boolean): ReadonlyArray<Summed> {
    if (!isEnd && now - this.since < minute && now >= this.since) return []
    const sums = Array.from(this.sums, ([reason, { addresses, ...sum }]) => ({
      _tag: "ConnectionsRefused" as const,
      time: now,
      side: "Server" as const,
      reason,
      ...sum,
      addresses: addresses.size
    }))
    this.sums.clear()
    this.addresses = 0
    return sums
  }

  /** The attempts that are still open, to be put on record at the end. */
  takeAll(): ReadonlyArray<AuditEvent> {
    const open = Array.from(this.held.values())
    this.held.clear()
    return open
  }
}
