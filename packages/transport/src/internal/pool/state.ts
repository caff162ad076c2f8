import type { CloseReason } from "../../AuditEvent.js"
import { Queue } from "../queue.js"

/** The bound that stands in the way: connections to one target, connections in all, or fibers waiting. */
export type PoolLimit = "Target" | "Total" | "Waiting"

export interface PoolLimits {
  readonly maxPerTarget: number
  readonly maxTotal: number
  readonly maxWaiting: number
}

/**
 * The right to one connection of a target. `Opening`: leased, no connection was made on it yet; `Busy`: leased;
 * `Idle`: free; `Gone`: no longer counted. `C` is what the code around this machine knows of a slot's connection.
 */
export class Slot<C> {
  readonly target: PoolTarget<C>
  status: "Opening" | "Busy" | "Idle" | "Gone" = "Opening"
  pooled: C | undefined = undefined
  /** When the connection was last used. */
  idleSince = 0
  /** The same as a number that no two slots share: the order in which idle ones are reused and evicted. */
  lastUse = 0
  /** Set while leased: end the connection with the lease. */
  retired: CloseReason | undefined = undefined
  constructor(target: PoolTarget<C>) {
    this.target = target
  }
}

/** The state of one target while it has a slot, a waiter or a socket. */
export class PoolTarget<C> {
  readonly key: string
  readonly slots = new Set<Slot<C>>()
  /** Longest idle first; the last one is reused first. */
  readonly idle: Array<Slot<C>> = []
  readonly waiters = new Queue<Waiter<C>>()
  /** Connections being opened, established, or not yet off the wire. */
  sockets = 0
  constructor(key: string) {
    this.key = key
  }
}

/** A fiber that waits for a slot of one target, and its place in the queue. */
export abstract class Waiter<C> {
  /** The target it waits for a slot of. */
  readonly key: string
  /** When it gives up, in milliseconds of the pool's clock. */
  deadline = Number.POSITIVE_INFINITY
  /** Its number in the queue over all targets. */
  order = 0
  /** Its place in the queue of its target. */
  place = 0
  constructor(key: string) {
    this.key = key
  }
  abstract grant(slot: Slot<C>): void
  /** It has left the queue without a slot; `undefined` when there is no pool any more. */
  abstract refuse(limit: PoolLimit | undefined): void
}

/** A slot whose connection waits for a socket: a connection that was given up must be off the wire first. */
export interface SocketWaiter<C> {
  readonly target: PoolTarget<C>
  readonly proceed: () => void
}

/**
 * The pool's bookkeeping: which slots are leased, which fibers wait, how many sockets there are. No clock, no effects, no
 * connections: a deterministic machine that is told what happened.
 *
 * Between two calls no waiter is left that could be served. So a caller that finds an idle slot or room may take it: it
 * overtakes no waiter.
 */
export class PoolState<C> {
  readonly limits: PoolLimits
  /** Called when an idle connection has to end: its slot is gone already. */
  readonly close: (slot: Slot<C>, reason: CloseReason) => void
  readonly targets = new Map<string, PoolTarget<C>>()
  /** Slots of all targets: this is what `maxTotal` bounds. */
  total = 0
  /** Connections of all targets on the wire; differs from slots with one for as long as closing takes. */
  sockets = 0
  /** Idle slots of all targets. */
  idle = 0
  /** Of all targets. */
  readonly waiters = new Queue<Waiter<C>>()
  /** Targets with waiters that only the total limit holds back. */
  private readonly heldByTotal = new Set<PoolTarget<C>>()
  private readonly socketWaiters = new Set<SocketWaiter<C>>()
  private uses = 0

  constructor(limits: PoolLimits, close: (slot: Slot<C>, reason: CloseReason) => void) {
    this.limits = limits
    this.close = close
  }

  target(key: string): PoolTarget<C> {
    const known = this.targets.get(key)
    if (known !== undefined) return known
    const target = new PoolTarget<C>(key)
    this.targets.set(key, target)
    return target
  }

  /** Leases the target's most recently used idle slot. */
  leaseIdle(target: PoolTarget<C>): Slot<C> | undefined {
    const slot = target.idle.pop()
    if (slot === undefined) return undefined
    this.idle--
    slot.status = "Busy"
    return slot
  }

  /** Leases this idle slot. */
  lease(slot: Slot<C>): void {
    const { idle } = slot.target
    idle.splice(idle.indexOf(slot), 1)
    this.idle--
    slot.status = "Busy"
  }

  /** Leases a new slot. At the total limit the longest idle connection is closed for it. */
  leaseNew(target: PoolTarget<C>): Slot<C> | PoolLimit {
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
  private longestIdle(): Slot<C> | undefined {
    if (this.idle === 0) return undefined
    let found: Slot<C> | undefined
    for (const { idle } of this.targets.values()) {
      const [first] = idle
      if (first !== undefined && (found === undefined || first.lastUse < found.lastUse)) found = first
    }
    return found
  }

  private refused(target: PoolTarget<C>, limit: PoolLimit): PoolLimit {
    this.forget(target)
    return limit
  }

  /** The limit that holds a target's waiters back. */
  limit(key: string): PoolLimit {
    return this.target(key).slots.size >= this.limits.maxPerTarget ? "Target" : "Total"
  }

  /** Joins the queue; `false` when it is full. Only after {@link leaseIdle} and {@link leaseNew} gave nothing. */
  wait(waiter: Waiter<C>, deadline: number): boolean {
    if (this.waiters.size >= this.limits.maxWaiting) return false
    const target = this.target(waiter.key)
    waiter.deadline = deadline
    waiter.order = this.waiters.join(waiter)
    waiter.place = target.waiters.join(waiter)
    this.reconsider(target)
    return true
  }

  /** Leaves the queue; nothing happens to a waiter that has left it already. */
  leave(waiter: Waiter<C>): void {
    if (!this.waiters.leave(waiter.order, waiter)) return
    const target = this.target(waiter.key)
    target.waiters.leave(waiter.place, waiter)
    this.reconsider(target)
    this.forget(target)
  }

  /**
   * A lease ends and its connection can be used again: the next waiter gets it, or it is idle. It was used until `usedAt`;
   * a lease without it did not count as a use, and the slot has its old place again.
   */
  release(slot: Slot<C>, usedAt?: number): void {
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
  drop(slot: Slot<C>): void {
    if (!this.remove(slot)) return
    this.serve(slot.target)
    this.forget(slot.target)
  }

  /** An idle connection is closed, one in use when its lease ends. */
  retire(slot: Slot<C>, reason: CloseReason): void {
    if (slot.status !== "Idle") {
      slot.retired ??= reason
      return
    }
    this.remove(slot)
    this.close(slot, reason)
    this.forget(slot.target)
  }

  private remove(slot: Slot<C>): boolean {
    if (slot.status === "Gone") return false
    if (slot.status === "Idle") this.lease(slot)
    slot.status = "Gone"
    slot.target.slots.delete(slot)
    this.total--
    this.reconsider(slot.target)
    return true
  }

  /** Serves, first come first, every waiter that can be served now that something of `target` became free. */
  private serve(target: PoolTarget<C>): void {
    while (this.waiters.size > 0) {
      const waiter = this.next(target)
      if (waiter === undefined) return
      const other = this.target(waiter.key)
      const slot = this.leaseIdle(other) ?? this.leaseNew(other)
      if (typeof slot === "string") return
      this.leave(waiter)
      waiter.grant(slot)
    }
  }

  private next(target: PoolTarget<C>): Waiter<C> | undefined {
    let first = target.idle.length > 0 ? target.waiters.head : undefined
    if (this.heldByTotal.size > 0 && (this.total < this.limits.maxTotal || this.idle > 0)) {
      for (const other of this.heldByTotal) {
        const waiter = other.waiters.head
        if (waiter !== undefined && (first === undefined || waiter.order < first.order)) first = waiter
      }
    }
    return first
  }

  private reconsider(target: PoolTarget<C>): void {
    if (target.waiters.size > 0 && target.slots.size < this.limits.maxPerTarget) this.heldByTotal.add(target)
    else if (this.heldByTotal.size > 0) this.heldByTotal.delete(target)
  }

  /** A leased slot is about to open a connection: `true` at once, or `proceed` is called when it may. */
  reserveSocket(waiter: SocketWaiter<C>): boolean {
    const { target } = waiter
    if (this.sockets >= this.limits.maxTotal || target.sockets >= this.limits.maxPerTarget) {
      this.socketWaiters.add(waiter)
      return false
    }
    this.sockets++
    target.sockets++
    return true
  }

  /** Gives up waiting for a socket. */
  cancelSocket(waiter: SocketWaiter<C>): void {
    this.socketWaiters.delete(waiter)
  }

  /** A connection is off the wire, or could not be made. */
  releaseSocket(target: PoolTarget<C>): void {
    this.sockets--
    target.sockets--
    for (const waiter of this.socketWaiters) {
      if (this.sockets >= this.limits.maxTotal) break
      if (waiter.target.sockets >= this.limits.maxPerTarget) continue
      this.socketWaiters.delete(waiter)
      this.sockets++
      waiter.target.sockets++
      waiter.proceed()
    }
    this.forget(target)
  }

  /** A target without slot, waiter and socket is dropped: a peer known but not used costs nothing here. */
  private forget(target: PoolTarget<C>): void {
    if (target.slots.size === 0 && target.waiters.size === 0 && target.sockets === 0) this.targets.delete(target.key)
  }
}
