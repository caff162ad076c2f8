import type { SpiffeId } from "@agentweave/spiffe/SpiffeId"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"
import type { AnySpan } from "effect/Tracer"
import type { CloseReason } from "../../AuditEvent.js"
import type { ExchangeError } from "../../Connector.js"
import { millis } from "../clock.js"
import type { ConnectionSource, PendingRequest, Permit } from "../http/exchange.js"
import {
  type OpenError,
  type OpenOptions,
  type PooledConnection,
  PooledConnections,
  type PoolSlot,
  peerOf
} from "./pooledConnection.js"
import { type PoolLimit, type PoolLimits, PoolState, Waiter } from "./state.js"
import { describeUses, recordWait, type WaitOutcome } from "./telemetry.js"

/** The parts of a pool; `E` is its answer in place of a connection. Durations in milliseconds. */
export interface PoolOptions<E> extends OpenOptions {
  readonly limits: PoolLimits
  /** How long to wait for a slot; zero fails at once. */
  readonly acquireTimeout: number
  /** How long an idle connection is kept; may be infinite. */
  readonly idleTimeout: number
  /** How long a connection is used; may be infinite. */
  readonly maxLifetime: number
  /** How long a lease may be held before it is taken for a leak; may be infinite. */
  readonly leakThreshold: number
  readonly exhausted: (key: string, limit: PoolLimit) => E
  readonly closed: (key: string) => E
}

/** A lease that is watched for being a leak: since when it is held and where it was taken. */
export interface WatchedLease {
  readonly peer: SpiffeId
  readonly since: number
  readonly stack: string | undefined
  readonly span: AnySpan | undefined
}

/** The effects around {@link PoolState}: clock, connections, fibers that wait. */
export class Pool<E> {
  readonly options: PoolOptions<E>
  readonly state: PoolState<PooledConnection>
  readonly connections: PooledConnections
  /** Leases given out so far. */
  acquisitions = 0
  /** Leases not reported as leaks yet; empty where leaks are not looked for. */
  private readonly watchedLeases = new Map<PoolSlot, WatchedLease>()
  private watchesDeadlines = false
  private readonly clock: Clock.Clock
  private readonly fork: (effect: Effect.Effect<unknown>) => void

  constructor(options: PoolOptions<E>, clock: Clock.Clock, scope: Scope.Scope, runtime: Runtime.Runtime<never>) {
    this.options = options
    this.clock = clock
    this.fork = (effect) => Runtime.runFork(runtime, Effect.interruptible(effect), { scope })
    this.state = new PoolState<PooledConnection>(options.limits, (slot, reason) =>
      slot.pooled?.connection.unsafeRetire(reason)
    )
    this.connections = new PooledConnections(options, this.state, () => this.now(), this.fork)
  }

  /** Monotonic milliseconds. */
  now(): number {
    return millis(this.clock)
  }

  /** Leases a connection that is idle now. `stack` is where the lease is taken. */
  takeIdle(key: string, stack?: string): PooledConnection | undefined {
    const pooled = this.findIdle(key)
    if (pooled !== undefined) this.onLease(pooled, stack, this.lesseeSpan())
    return pooled
  }

  private findIdle(key: string): PooledConnection | undefined {
    const target = this.state.targets.get(key)
    if (target === undefined || this.connections.isClosed) return undefined
    for (let slot = this.state.leaseIdle(target); slot !== undefined; slot = this.state.leaseIdle(target)) {
      const { pooled } = slot
      if (pooled !== undefined && this.isUsable(pooled)) return pooled
      this.release(slot)
    }
    return undefined
  }

  isUsable(pooled: PooledConnection): boolean {
    return pooled.connection.isUsable() && !this.isOld(pooled)
  }

  isOld({ createdAt }: PooledConnection): boolean {
    return this.options.maxLifetime !== Number.POSITIVE_INFINITY && this.now() - createdAt >= this.options.maxLifetime
  }

  /** The present uses of the connections to a target, for the error of a request that waited for them in vain. */
  uses(key: string): string {
    return describeUses(this.state.targets.get(key)?.slots ?? [])
  }

  /** The span of the fiber that asks for a lease, where leaks are looked for: it may be given one while another fiber runs. */
  lesseeSpan(): AnySpan | undefined {
    return this.options.leakThreshold === Number.POSITIVE_INFINITY
      ? undefined
      : Option.getOrUndefined(Fiber.getCurrentFiber())?.currentSpan
  }

  /** A connection was leased. */
  onLease({ slot }: PooledConnection, stack: string | undefined, span: AnySpan | undefined): void {
    this.acquisitions++
    if (this.options.leakThreshold === Number.POSITIVE_INFINITY) return
    this.watchedLeases.set(slot, { peer: peerOf(slot), since: this.now(), stack, span })
  }

  /** Leases held for too long; each is named once. */
  leaks(): ReadonlyArray<WatchedLease> {
    const before = this.now() - this.options.leakThreshold
    const found = Array.from(this.watchedLeases).filter(([_, lease]) => lease.since <= before)
    for (const [slot] of found) this.watchedLeases.delete(slot)
    return found.map(([_, lease]) => lease)
  }

  /**
   * A lease ends: its connection is handed on, becomes idle, or is given up and its slot handed on. The lease of a probe
   * does not count as a use.
   */
  release(slot: PoolSlot, isProbe = false): void {
    const { pooled } = slot
    if (this.watchedLeases.size > 0) this.watchedLeases.delete(slot)
    const reason = slot.retired ?? (pooled !== undefined && this.isOld(pooled) ? "Age" : undefined)
    if (pooled?.connection.isUsable() && reason === undefined && !this.connections.isClosed) {
      this.state.release(slot, isProbe ? undefined : this.now())
      return
    }
    if (pooled !== undefined && reason !== undefined) pooled.connection.unsafeRetire(reason)
    this.state.drop(slot)
  }

  /**
   * Leases a connection: an idle one, a new one, or one that is handed over, first come first. `onDecided` is called once,
   * with the permit that gives the connection to the fiber; it is cancelled if that did not happen or was not used.
   */
  acquire<ER>(
    key: string,
    request: PendingRequest<ER>,
    onDecided: (permit: Permit<PooledConnection, E | OpenError | ER>) => void,
    stack?: string
  ): Permit<PooledConnection, E | OpenError | ER> {
    const waiter = new PoolWaiter(this, key, request, onDecided, stack)
    if (this.connections.isClosed) waiter.refuse(undefined)
    else {
      const slot = this.findIdle(key)?.slot ?? this.state.leaseNew(this.state.target(key))
      if (typeof slot !== "string") waiter.grant(slot)
      else if (this.options.acquireTimeout <= 0) waiter.refuse(slot)
      else this.wait(waiter)
    }
    return waiter
  }

  private wait(waiter: Waiter<PooledConnection> & { waitsSince: number | undefined }): void {
    const now = this.now()
    if (!this.state.wait(waiter, now + this.options.acquireTimeout)) {
      waiter.refuse("Waiting")
      return
    }
    waiter.waitsSince = now
    if (this.watchesDeadlines) return
    this.watchesDeadlines = true
    this.fork(this.refuseAtDeadlines)
  }

  /** The requests to one target: each leases a connection for its exchange. */
  sourceOf(key: string, stack?: string): ConnectionSource<PooledConnection, E | ExchangeError> {
    return {
      takeIdle: () => this.takeIdle(key, stack),
      acquire: (request, onDecided) => this.acquire(key, request, onDecided, stack),
      release: ({ slot }) => this.release(slot)
    }
  }

  /** Runs while a fiber waits: sleeps until the next deadline. */
  private readonly refuseAtDeadlines: Effect.Effect<void> = Effect.suspend(() => {
    const now = this.now()
    for (let waiter = this.state.waiters.head; waiter !== undefined; waiter = this.state.waiters.head) {
      if (waiter.deadline > now) return Effect.delay(this.refuseAtDeadlines, Duration.millis(waiter.deadline - now))
      const limit = this.state.limit(waiter.key)
      this.state.leave(waiter)
      waiter.refuse(limit)
    }
    this.watchesDeadlines = false
    return Effect.void
  })

  /** Every connection there is now, or of one target: idle ones are closed at once, leased ones with their lease. */
  retire(key: string | undefined, reason: CloseReason): void {
    const all = key === undefined ? this.state.targets.values() : [this.state.targets.get(key)]
    for (const target of Array.from(all)) {
      for (const slot of Array.from(target?.slots ?? [])) this.state.retire(slot, reason)
    }
  }

  /** Ends the pool: no fiber waits any more, nothing is being opened, all connections are closed. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.connections.isClosed = true
    for (let waiter = this.state.waiters.head; waiter !== undefined; waiter = this.state.waiters.head) {
      this.state.leave(waiter)
      waiter.refuse(undefined)
    }
    return this.connections.close
  })
}

/**
 * One wait for a connection: its place in the queue, and then the permit. One that is granted in the moment of its fiber's
 * interruption gives its slot back when it is cancelled.
 */
class PoolWaiter<E, ER> extends Waiter<PooledConnection> implements Permit<PooledConnection, E | OpenError | ER> {
  /** Since when it waits, as long as it does. */
  waitsSince: number | undefined = undefined
  private slot: PoolSlot | undefined = undefined
  /** Why it was refused, if a limit was the reason. */
  private limit: PoolLimit | undefined = undefined
  private readonly pool: Pool<E>
  private readonly request: PendingRequest<ER>
  private readonly onDecided: (permit: Permit<PooledConnection, E | OpenError | ER>) => void
  private readonly stack: string | undefined
  private readonly span: AnySpan | undefined

  constructor(
    pool: Pool<E>,
    key: string,
    request: PendingRequest<ER>,
    onDecided: (permit: Permit<PooledConnection, E | OpenError | ER>) => void,
    stack: string | undefined
  ) {
    super(key)
    this.pool = pool
    this.request = request
    this.onDecided = onDecided
    this.stack = stack
    this.span = pool.lesseeSpan()
  }

  grant(slot: PoolSlot): void {
    this.slot = slot
    this.recordWait("Leased")
    this.onDecided(this)
  }

  refuse(limit: PoolLimit | undefined): void {
    this.limit = limit
    this.recordWait("Refused")
    this.onDecided(this)
  }

  private recordWait(outcome: WaitOutcome): void {
    if (this.waitsSince === undefined) return
    recordWait(this.pool.now() - this.waitsSince, outcome)
    this.waitsSince = undefined
  }

  takeIdle(): PooledConnection | undefined {
    const pooled = this.slot?.pooled
    if (pooled === undefined || !this.pool.isUsable(pooled)) return undefined
    this.pool.onLease(pooled, this.stack, this.span)
    return pooled
  }

  open(): Effect.Effect<PooledConnection, E | OpenError | ER> {
    const { key, limit, pool, request, slot } = this
    const { closed, exhausted } = pool.options
    if (slot === undefined) return Effect.fail(limit === undefined ? closed(key) : exhausted(key, limit))
    return Effect.map(
      pool.connections.openFor(slot, request, () => closed(key)),
      (pooled) => {
        pool.onLease(pooled, this.stack, this.span)
        return pooled
      }
    )
  }

  cancel(): void {
    this.recordWait("Withdrawn")
    if (this.slot !== undefined) this.pool.release(this.slot)
    else this.pool.state.leave(this)
  }
}

/** A pool that lives until the scope closes. */
export const make = <E>(options: PoolOptions<E>): Effect.Effect<Pool<E>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    const pool = new Pool(options, yield* Effect.clock, scope, yield* Effect.runtime<never>())
    yield* Scope.addFinalizer(scope, pool.close)
    return pool
  })
