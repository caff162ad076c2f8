import type { CloseReason } from "../../AuditEvent.js"
import { List, Node } from "./linkedList.js"

/** The bound that stands in the way: connections to one target, connections in all, or fibers waiting. */
export type Limit = "Target" | "Total" | "Waiting"

export interface Limits {
  readonly maxPerTarget: number
  readonly maxTotal: number
  readonly maxWaiting: number
}

/**
 * The right to one connection of a target. `Opening`: leased, no connection was made on it yet; `Busy`: leased;
 * `Idle`: free; `Gone`: no longer counted. `link` is what the slot's connection is to the code around this machine.
 */
export class Slot<L> {
  readonly target: Target<L>
  status: "Opening" | "Busy" | "Idle" | "Gone" = "Opening"
  link: L | undefined = undefined
  /** When the connection was last used. */
  idleSince = 0
  /** The same as a number that no two slots share: the order in which idle ones are reused and evicted. */
  lastUse = 0
  /** Set while leased: end the connection with the lease. */
  retired: CloseReason | undefined = undefined
  constructor(target: Target<L>) {
    this.target = target
  }
}

/** The state of one target while it has a slot, a waiter or a connection on the wire. */
export class Target<L> {
  readonly key: string
  readonly slots = new Set<Slot<L>>()
  /** Longest idle first; the last one is reused first. */
  readonly idle: Array<Slot<L>> = []
  readonly tickets = new List<Ticket<L>>()
  /** Connections being opened, established, or not yet off the wire. */
  wire = 0
  constructor(key: string) {
    this.key = key
  }
}

/** Somebody who waits for a slot. */
export interface Waiter<L> {
  readonly grant: (slot: Slot<L>) => void
  /** He has left the queue without a slot; `undefined` when there is no pool any more. */
  readonly refuse: (limit: Limit | undefined) => void
}

/** A place in the queue. */
export class Ticket<L> {
  readonly target: Target<L>
  readonly waiter: Waiter<L>
  readonly deadline: number
  readonly number: number
  readonly inTarget: Node<Ticket<L>> = new Node(this)
  readonly inPool: Node<Ticket<L>> = new Node(this)
  constructor(target: Target<L>, waiter: Waiter<L>, deadline: number, number: number) {
    this.target = target
    this.waiter = waiter
    this.deadline = deadline
    this.number = number
  }
}

/** Somebody who holds a slot and waits for the wire: a connection that was given up must be off it first. */
export interface Dialer<L> {
  readonly target: Target<L>
  readonly proceed: () => void
}

/**
 * The pool's bookkeeping: who holds which slot, who waits, what is on the wire. No clock, no effects, no connections:
 * a deterministic machine that is told what happened.
 *
 * Between two calls no waiter is left who could be served. So whoever finds an idle slot or room may take it: he
 * overtakes nobody.
 */
export class PoolState<L> {
  readonly limits: Limits
  /** Called when an idle connection has to end: its slot is gone already. */
  readonly close: (slot: Slot<L>, reason: CloseReason) => void
  readonly targets = new Map<string, Target<L>>()
  /** Slots of all targets: this is what `maxTotal` bounds. */
  total = 0
  /** Connections of all targets on the wire; differs from slots with one for as long as closing takes. */
  wire = 0
  /** Idle slots of all targets. */
  idle = 0
  /** Of all targets, first come first. */
  readonly tickets = new List<Ticket<L>>()
  /** Targets with waiters whom only the total limit holds back. */
  private readonly starved = new Set<Target<L>>()
  private readonly dialers = new Set<Dialer<L>>()
  private issued = 0
  private uses = 0

  constructor(limits: Limits, close: (slot: Slot<L>, reason: CloseReason) => void) {
    this.limits = limits
    this.close = close
  }

  target(key: string): Target<L> {
    const known = this.targets.get(key)
    if (known !== undefined) return known
    const target = new Target<L>(key)
    this.targets.set(key, target)
    return target
  }

  /** Leases the target's most recently used idle slot. */
  take(target: Target<L>): Slot<L> | undefined {
    const slot = target.idle.pop()
    if (slot === undefined) return undefined
    this.idle--
    slot.status = "Busy"
    return slot
  }

  /** Leases an idle slot. */
  lease(slot: Slot<L>): void {
    const { idle } = slot.target
    idle.splice(idle.indexOf(slot), 1)
    this.idle--
    slot.status = "Busy"
  }

  /** Leases a new slot. At the total limit the longest idle connection is closed for it. */
  open(target: Target<L>): Slot<L> | Limit {
    if (target.slots.size >= this.limits.maxPerTarget) return this.refused(target, "Target")
    if (this.total >= this.limits.maxTotal) {
      const victim = this.longestIdle()
      if (victim === undefined) return this.refused(target, "Total")
      this.retire(victim, "Evicted")
    }
    const slot = new Slot(target)
    target.slots.add(slot)
    this.total++
    this.reconsider(target)
    return slot
  }

  /** Looks at every target: next to the handshake that is about to follow that is nothing, on each lease it would not be. */
  private longestIdle(): Slot<L> | undefined {
    if (this.idle === 0) return undefined
    let found: Slot<L> | undefined
    for (const { idle } of this.targets.values()) {
      const [first] = idle
      if (first !== undefined && (found === undefined || first.lastUse < found.lastUse)) found = first
    }
    return found
  }

  private refused(target: Target<L>, limit: Limit): Limit {
    this.forget(target)
    return limit
  }

  /** The limit that holds a target's waiters back. */
  limit(target: Target<L>): Limit {
    return target.slots.size >= this.limits.maxPerTarget ? "Target" : "Total"
  }

  /** Joins the queue; `undefined` when it is full. Only after {@link take} and {@link open} gave nothing. */
  wait(key: string, waiter: Waiter<L>, deadline: number): Ticket<L> | undefined {
    if (this.tickets.size >= this.limits.maxWaiting) return undefined
    const target = this.target(key)
    const ticket = new Ticket(target, waiter, deadline, this.issued++)
    target.tickets.push(ticket.inTarget)
    this.tickets.push(ticket.inPool)
    this.reconsider(target)
    return ticket
  }

  /** Leaves the queue; nothing happens to one who has left it already. */
  leave(ticket: Ticket<L>): void {
    if (ticket.inPool.list === undefined) return
    const { target } = ticket
    target.tickets.remove(ticket.inTarget)
    this.tickets.remove(ticket.inPool)
    this.reconsider(target)
    this.forget(target)
  }

  /**
   * A lease ends and its connection can be used again: the next waiter gets it, or it is idle. It was used until `usedAt`;
   * a lease without it did not count as a use, and the slot has its old place again.
   */
  release(slot: Slot<L>, usedAt?: number): void {
    const { idle } = slot.target
    slot.status = "Idle"
    this.idle++
    if (usedAt !== undefined) {
      slot.idleSince = usedAt
      slot.lastUse = ++this.uses
      idle.push(slot)
    } else {
      const after = idle.findIndex(({ lastUse }) => lastUse > slot.lastUse)
      idle.splice(after < 0 ? idle.length : after, 0, slot)
    }
    this.serve(slot.target)
  }

  /** The slot is gone, whatever its status: its opening failed or its connection ended. */
  drop(slot: Slot<L>): void {
    if (!this.remove(slot)) return
    this.serve(slot.target)
    this.forget(slot.target)
  }

  /** An idle connection is closed, one in use when its lease ends. */
  retire(slot: Slot<L>, reason: CloseReason): void {
    if (slot.status !== "Idle") {
      slot.retired ??= reason
      return
    }
    this.remove(slot)
    this.close(slot, reason)
    this.forget(slot.target)
  }

  private remove(slot: Slot<L>): boolean {
    if (slot.status === "Gone") return false
    if (slot.status === "Idle") this.lease(slot)
    slot.status = "Gone"
    slot.target.slots.delete(slot)
    this.total--
    this.reconsider(slot.target)
    return true
  }

  /** Serves, first come first, whoever can be served now that something of `target` became free. */
  private serve(target: Target<L>): void {
    while (this.tickets.size > 0) {
      const ticket = this.next(target)
      if (ticket === undefined) return
      const slot = this.take(ticket.target) ?? this.open(ticket.target)
      if (typeof slot === "string") return
      this.leave(ticket)
      ticket.waiter.grant(slot)
    }
  }

  private next(target: Target<L>): Ticket<L> | undefined {
    let first = target.idle.length > 0 ? target.tickets.head?.value : undefined
    if (this.starved.size > 0 && (this.total < this.limits.maxTotal || this.idle > 0)) {
      for (const other of this.starved) {
        const ticket = other.tickets.head?.value
        if (ticket !== undefined && (first === undefined || ticket.number < first.number)) first = ticket
      }
    }
    return first
  }

  private reconsider(target: Target<L>): void {
    if (target.tickets.size > 0 && target.slots.size < this.limits.maxPerTarget) this.starved.add(target)
    else if (this.starved.size > 0) this.starved.delete(target)
  }

  /** The holder of a slot is about to open a connection: `true` at once, or `proceed` is called when it may. */
  dial(dialer: Dialer<L>): boolean {
    const { target } = dialer
    if (this.wire >= this.limits.maxTotal || target.wire >= this.limits.maxPerTarget) {
      this.dialers.add(dialer)
      return false
    }
    this.wire++
    target.wire++
    return true
  }

  /** Gives up waiting for the wire. */
  undial(dialer: Dialer<L>): void {
    this.dialers.delete(dialer)
  }

  /** A connection is off the wire, or could not be made. */
  hangUp(target: Target<L>): void {
    this.wire--
    target.wire--
    for (const dialer of this.dialers) {
      if (this.wire >= this.limits.maxTotal) break
      if (dialer.target.wire >= this.limits.maxPerTarget) continue
      this.dialers.delete(dialer)
      this.wire++
      dialer.target.wire++
      dialer.proceed()
    }
    this.forget(target)
  }

  /** A target without slot, waiter and connection is dropped: a peer known but not used costs nothing here. */
  private forget(target: Target<L>): void {
    if (target.slots.size === 0 && target.tickets.size === 0 && target.wire === 0) this.targets.delete(target.key)
  }
}
