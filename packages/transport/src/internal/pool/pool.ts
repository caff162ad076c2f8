import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"
import type { CloseReason } from "../../AuditEvent.js"
import { ConnectionError, TimeoutError } from "../../TransportError.js"
import { millis } from "../clock.js"
import { withFiber } from "../fiber.js"
import type { Claim, Granted } from "../http/exchange.js"
import type { Base } from "../http/target.js"
import {
  type Claimant,
  type Loan,
  type OpenError,
  type PoolLink,
  type PoolOptions,
  type PoolSlot,
  peerOf
} from "./link.js"
import { type Dialer, type Limit, PoolState, type Target, type Ticket, type Waiter } from "./state.js"
import { type WaitOutcome, waited } from "./telemetry.js"
import { describeUses } from "./uses.js"

/** A handshake as a span, below the request that needed it. The key is a peer's ID, or an origin. */
const handshakeSpan = <A, E>(connect: Effect.Effect<A, E>, key: string, { host, port }: Base): Effect.Effect<A, E> =>
  Effect.withSpan(connect, "transport.handshake", {
    kind: "client",
    captureStackTrace: false,
    attributes: {
      "server.address": host,
      "server.port": port,
      ...(key.startsWith("spiffe://") ? { "spiffe.peer.id": key } : undefined)
    }
  })

/** The effects around {@link PoolState}: clock, connections, fibers that wait. */
export class Pool<E> {
  readonly options: PoolOptions<E>
  readonly state: PoolState<PoolLink>
  readonly openers = new Set<Fiber.RuntimeFiber<PoolLink, unknown>>()
  readonly links = new Set<PoolLink>()
  acquisitions = 0
  creations = 0
  cleanups = 0
  /** Leases not reported as leaks yet; empty when nobody asked. */
  private readonly loans = new Map<PoolSlot, Loan>()
  private isClosed = false
  private watching = false
  private readonly clock: Clock.Clock
  private readonly fork: <A, EA>(effect: Effect.Effect<A, EA>) => void

  constructor(options: PoolOptions<E>, clock: Clock.Clock, scope: Scope.Scope, runtime: Runtime.Runtime<never>) {
    this.options = options
    this.clock = clock
    this.fork = (effect) => Runtime.runFork(runtime, Effect.interruptible(effect), { scope })
    this.state = new PoolState<PoolLink>(options.limits, (slot, reason) => slot.link?.connection.unsafeRetire(reason))
  }

  /** Monotonic milliseconds. */
  now(): number {
    return millis(this.clock)
  }

  /** Leases a connection that is idle now. */
  take(key: string): PoolLink | undefined {
    const target = this.state.targets.get(key)
    if (target === undefined || this.isClosed) return undefined
    for (let slot = this.state.take(target); slot !== undefined; slot = this.state.take(target)) {
      const { link } = slot
      if (link !== undefined && this.isUsable(link)) return link
      this.settle(slot)
    }
    return undefined
  }

  isUsable(link: PoolLink): boolean {
    return link.connection.isUsable() && !this.isOld(link)
  }

  private isOld(link: PoolLink): boolean {
    return this.options.maxLifetime !== Number.POSITIVE_INFINITY && this.now() - link.bornAt >= this.options.maxLifetime
  }

  /** What the connections to a target are in use by, for one who waited for them in vain. */
  uses(key: string): string {
    return describeUses(this.state.targets.get(key)?.slots ?? [])
  }

  /** Notes a lease. `stack` is where it was taken. */
  lend<L extends PoolLink | undefined>(link: L, stack?: string | undefined): L {
    if (link === undefined) return link
    this.acquisitions++
    if (this.options.leakThreshold !== Number.POSITIVE_INFINITY) {
      const span = Option.getOrUndefined(Fiber.getCurrentFiber())?.currentSpan
      this.loans.set(link.slot, { peer: peerOf(link.slot), since: this.now(), stack, span })
    }
    return link
  }

  /** Leases held for too long; each is named once. */
  leaks(): ReadonlyArray<Loan> {
    const before = this.now() - this.options.leakThreshold
    const found = Array.from(this.loans).filter(([_, loan]) => loan.since <= before)
    for (const [slot] of found) this.loans.delete(slot)
    return found.map(([_, loan]) => loan)
  }

  /** A lease ends: its connection is handed on, becomes idle, or is given up and its slot handed on. */
  settle(slot: PoolSlot, care = false): void {
    const { link } = slot
    if (this.loans.size > 0) this.loans.delete(slot)
    const reason = slot.retired ?? (link !== undefined && this.isOld(link) ? "Age" : undefined)
    if (link?.connection.isUsable() && reason === undefined && !this.isClosed) {
      this.state.release(slot, care ? undefined : this.now())
      return
    }
    if (link !== undefined && reason !== undefined) link.connection.unsafeRetire(reason)
    this.state.drop(slot)
  }

  /**
   * Leases a connection: an idle one, a new one, or one that is handed over, first come first. `resume` is called once,
   * with what gives the connection to the fiber; the claim is withdrawn if that did not happen or was not used.
   */
  claim<ER>(
    key: string,
    claimant: Claimant<ER>,
    resume: (granted: Granted<PoolLink, E | OpenError | ER>) => void
  ): Claim {
    const claim = new PoolClaim(this, key, claimant, resume)
    if (this.isClosed) claim.refuse(undefined)
    else {
      const slot = this.take(key)?.slot ?? this.state.open(this.state.target(key))
      if (typeof slot !== "string") claim.grant(slot)
      else if (this.options.acquireTimeout <= 0) claim.refuse(slot)
      else this.wait(key, claim)
    }
    return claim
  }

  private wait(
    key: string,
    claim: Waiter<PoolLink> & { ticket: Ticket<PoolLink> | undefined; waitsSince: number | undefined }
  ): void {
    const now = this.now()
    claim.waitsSince = now
    claim.ticket = this.state.wait(key, claim, now + this.options.acquireTimeout)
    if (claim.ticket === undefined) {
      claim.waitsSince = undefined
      claim.refuse("Waiting")
    }
    if (claim.ticket !== undefined && !this.watching) {
      this.watching = true
      this.fork(this.deadlines)
    }
  }

  /**
   * Opens the connection of a leased slot; on failure the slot stays leased. It is a fiber of its own, so that the end
   * of the pool can abandon it.
   */
  open<ER, EC>(slot: PoolSlot, claimant: Claimant<ER>, closed: () => EC): Effect.Effect<PoolLink, OpenError | ER | EC> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(Effect.fork(this.dial(slot, claimant)), (fiber) =>
        Effect.flatMap(
          Effect.catchAllCause(restore(Fiber.await(fiber)), (cause) =>
            Effect.zipRight(Fiber.interrupt(fiber), Effect.failCause(cause))
          ),
          (exit): Effect.Effect<PoolLink, OpenError | ER | EC> =>
            Exit.isInterrupted(exit) && this.isClosed ? Effect.fail(closed()) : exit
        )
      )
    )
  }

  private dial<ER>(slot: PoolSlot, claimant: Claimant<ER>): Effect.Effect<PoolLink, OpenError | ER> {
    return withFiber<PoolLink, OpenError | ER>((fiber) => {
      if (this.isClosed) return Effect.interrupt
      this.openers.add(fiber)
      return Effect.interruptible(
        Effect.tap(this.options.address(slot.target.key), (base) => claimant.admit(base))
      ).pipe(
        Effect.flatMap((base) =>
          Effect.zipRight(this.enterWire(slot.target), handshakeSpan(this.connect(slot, base), slot.target.key, base))
        ),
        Effect.ensuring(Effect.sync(() => this.openers.delete(fiber)))
      )
    }).pipe(Effect.uninterruptible)
  }

  /** Waits until a connection that was given up is off the wire, where it stands in the way. */
  private enterWire(target: Target<PoolLink>): Effect.Effect<void, OpenError> {
    return Effect.suspend(() => {
      let outcome: Effect.Effect<void, OpenError> | undefined
      let resume: ((outcome: Effect.Effect<void, OpenError>) => void) | undefined
      const finish = (result: Effect.Effect<void, OpenError>): void => {
        outcome = result
        resume?.(result)
      }
      const dialer: Dialer<PoolLink> = { target, proceed: () => finish(Effect.void) }
      if (this.state.dial(dialer)) return Effect.void
      const expire = Effect.sync(() => {
        if (outcome === undefined) finish(Effect.fail(this.wireTimeout(target.key)))
      })
      const wait = Effect.async<void, OpenError>((callback) => {
        if (outcome === undefined) resume = callback
        else callback(outcome)
      })
      return Effect.flatMap(
        Effect.fork(Effect.interruptible(Effect.delay(expire, Duration.millis(this.options.wireTimeout)))),
        (timer) =>
          Effect.catchAllCause(Effect.interruptible(wait), (cause) => {
            if (outcome === Effect.void) this.state.hangUp(target)
            else this.state.undial(dialer)
            return Effect.failCause(cause)
          }).pipe(Effect.ensuring(Fiber.interruptFork(timer)))
      )
    })
  }

  private wireTimeout(key: string): OpenError {
    return new TimeoutError({
      phase: "Acquire",
      outcome: "NotSent",
      limit: Duration.millis(this.options.wireTimeout),
      target: key
    })
  }

  /** Opens a connection that is counted on the wire already, and uncounts it when it has ended or never came to be. */
  private connect(slot: PoolSlot, base: Base): Effect.Effect<PoolLink, OpenError> {
    const { key } = slot.target
    return Effect.flatMap(Scope.make(), (scope) => {
      let link: PoolLink | undefined
      let hasEnded = false
      const end = (): void => {
        if (hasEnded) return
        hasEnded = true
        this.state.hangUp(slot.target)
        if (link !== undefined) this.ended(link)
      }
      const attempt = Scope.extend(this.options.connect(key, base, end), scope)
      return Effect.flatMap(Effect.exit(Effect.interruptible(attempt)), (exit): Effect.Effect<PoolLink, OpenError> => {
        if (Exit.isSuccess(exit) && !hasEnded) {
          link = { connection: exit.value, base, slot, scope, bornAt: this.now() }
          slot.link = link
          this.links.add(link)
          this.creations++
          return Effect.succeed(link)
        }
        const failure = Exit.flatMap(exit, ({ address }) => Exit.fail(brokenOnArrival(address)))
        return Effect.zipRight(Effect.ensuring(Scope.close(scope, failure), Effect.sync(end)), failure)
      })
    })
  }

  /** A connection is off the wire. One that is leased keeps its slot until the lease ends. */
  private ended(link: PoolLink): void {
    this.links.delete(link)
    this.cleanups++
    if (link.slot.status === "Idle") this.state.drop(link.slot)
    if (!this.isClosed) this.fork(Scope.close(link.scope, Exit.void))
  }

  /** Runs while somebody waits: sleeps until the next deadline. */
  private readonly deadlines: Effect.Effect<void> = Effect.suspend(() => {
    const now = this.now()
    for (let next = this.state.tickets.head; next !== undefined; next = this.state.tickets.head) {
      const ticket = next.value
      if (ticket.deadline > now) return Effect.delay(this.deadlines, Duration.millis(ticket.deadline - now))
      this.state.leave(ticket)
      ticket.waiter.refuse(this.state.limit(ticket.target))
    }
    this.watching = false
    return Effect.void
  })

  /** Closes what has been idle or alive for too long. */
  clean(): void {
    const now = this.now()
    const idle = Array.from(this.state.targets.values(), (target) => target.idle).flat()
    for (const slot of idle) {
      if (now - slot.idleSince >= this.options.idleTimeout) this.state.retire(slot, "Idle")
      else if (slot.link !== undefined && this.isOld(slot.link)) this.state.retire(slot, "Age")
    }
  }

  /** Every connection there is now, or of one target: idle ones are closed at once, leased ones with their lease. */
  retire(key: string | undefined, reason: CloseReason): void {
    const all = key === undefined ? this.state.targets.values() : [this.state.targets.get(key)]
    for (const target of Array.from(all)) {
      for (const slot of Array.from(target?.slots ?? [])) this.state.retire(slot, reason)
    }
  }

  /** Ends the pool: nobody waits any more, nothing is being opened, all connections are closed. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.isClosed = true
    for (let next = this.state.tickets.head; next !== undefined; next = this.state.tickets.head) {
      this.state.leave(next.value)
      next.value.waiter.refuse(undefined)
    }
    return Effect.zipRight(
      Fiber.interruptAll(Array.from(this.openers)),
      Effect.suspend(() =>
        Effect.forEach(Array.from(this.links), (link) => Scope.close(link.scope, Exit.void), {
          concurrency: "unbounded",
          discard: true
        })
      )
    )
  })
}

/** A claim whose slot is granted in the moment of its fiber's interruption gives it back when it is withdrawn. */
class PoolClaim<E, ER> implements Claim, Granted<PoolLink, E | OpenError | ER>, Waiter<PoolLink> {
  ticket: Ticket<PoolLink> | undefined = undefined
  /** Since when it waits, as long as it does. */
  waitsSince: number | undefined = undefined
  private slot: PoolSlot | undefined = undefined
  /** Why it was refused, if a limit was the reason. */
  private limit: Limit | undefined = undefined
  private readonly pool: Pool<E>
  private readonly key: string
  private readonly claimant: Claimant<ER>
  private readonly resume: (granted: Granted<PoolLink, E | OpenError | ER>) => void

  constructor(
    pool: Pool<E>,
    key: string,
    claimant: Claimant<ER>,
    resume: (granted: Granted<PoolLink, E | OpenError | ER>) => void
  ) {
    this.pool = pool
    this.key = key
    this.claimant = claimant
    this.resume = resume
  }

  grant(slot: PoolSlot): void {
    this.slot = slot
    this.waited("Leased")
    this.resume(this)
  }

  refuse(limit: Limit | undefined): void {
    this.limit = limit
    this.waited("Refused")
    this.resume(this)
  }

  private waited(outcome: WaitOutcome): void {
    if (this.waitsSince === undefined) return
    waited(this.pool.now() - this.waitsSince, outcome)
    this.waitsSince = undefined
  }

  take(): PoolLink | undefined {
    const link = this.slot?.link
    return link !== undefined && this.pool.isUsable(link) ? link : undefined
  }

  open(): Effect.Effect<PoolLink, E | OpenError | ER> {
    const { claimant, key, limit, pool, slot } = this
    const { closed, exhausted } = pool.options
    if (slot !== undefined) return pool.open(slot, claimant, () => closed(key))
    return Effect.fail(limit === undefined ? closed(key) : exhausted(key, limit))
  }

  withdraw(): void {
    this.waited("Withdrawn")
    if (this.slot !== undefined) this.pool.settle(this.slot)
    else if (this.ticket !== undefined) this.pool.state.leave(this.ticket)
  }
}

const brokenOnArrival = (address: string): OpenError =>
  new ConnectionError({
    reason: "Closed",
    outcome: "NotSent",
    address,
    description: "expected an open connection, it ended before its first request"
  })

/** A pool that lives until the scope closes. */
export const make = <E>(options: PoolOptions<E>): Effect.Effect<Pool<E>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    const pool = new Pool(options, yield* Effect.clock, scope, yield* Effect.runtime<never>())
    yield* Scope.addFinalizer(scope, pool.close)
    return pool
  })
