import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type { RuntimeFiber } from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberSet from "effect/FiberSet"
import type * as Scope from "effect/Scope"
import { millis } from "../clock.js"
import type { Moment } from "./lifetime.js"

/** Something with at most one deadline and one date at a time. Both are read when the queue looks, so they move freely. */
export interface Timed {
  /** When its time is over, in monotonic milliseconds; `Infinity` when it has no deadline. */
  readonly deadline: number
  /** The same by the wall clock, in milliseconds since the epoch: a date in a certificate. `Infinity` for none. */
  readonly date: number
  readonly onDeadline: (now: Moment) => void
}

/**
 * Deadlines of many connections at the price of one: a single fiber sleeps until the earliest, on Effect's `Clock`, and
 * only while there is one. To set a deadline is an assignment and a comparison.
 *
 * How long something takes is measured on the monotonic clock, so that setting the wall clock neither ends nor prolongs
 * it. The dates of certificates are compared with the wall clock, which is looked at again and again on the way to them.
 */
export interface Deadlines {
  readonly add: (timed: Timed) => void
  readonly remove: (timed: Timed) => void
  /** To be called after a deadline was set that may be earlier than all others. */
  readonly touch: (deadline: number) => void
  /** The same for a date. */
  readonly touchDate: (date: number) => void
  /** Monotonic milliseconds. */
  readonly now: () => number
  /** Milliseconds since the epoch. */
  readonly wall: () => number
  /** Both. */
  readonly moment: () => Moment
}

/** The shortest sleep, in milliseconds, that is broken off to look at the clocks; it is no longer than the usual deadlines. */
const shortest = 10_000
const longest = 600_000

/**
 * How long to sleep, in whole milliseconds, when nothing is due for `millis`: a tenth of that, so that a wall clock that was set
 * meanwhile is noticed in time. Requests look at the wall clock themselves.
 */
const sleepFor = (millis: number): number =>
  millis <= shortest ? Math.max(0, Math.ceil(millis)) : Math.max(shortest, Math.min(Math.floor(millis / 10), longest))

/** A queue that lives until the scope closes. Its fiber can be interrupted wherever the queue is made. */
export const make: Effect.Effect<Deadlines, never, Scope.Scope> = Effect.gen(function* () {
  const clock = yield* Effect.clock
  const runFork = yield* FiberSet.makeRuntime<never>()
  const all = new Set<Timed>()
  let wakeAt = Number.POSITIVE_INFINITY
  let sleeper: RuntimeFiber<void> | undefined
  let isSweeping = false

  const now = (): number => millis(clock)
  const wall = (): number => clock.unsafeCurrentTimeMillis()
  const moment = (): Moment => ({ mono: now(), wall: wall() })

  /** There is one sleeper at most: the next one finds what this one was to wake for. */
  const stop = (): void => {
    wakeAt = Number.POSITIVE_INFINITY
    sleeper?.unsafeInterruptAsFork(FiberId.none)
    sleeper = undefined
  }

  const touch = (deadline: number): void => {
    // A sweep looks at all deadlines when it is done.
    if (deadline >= wakeAt || isSweeping) return
    stop()
    const at = now()
    const millis = sleepFor(deadline - at)
    wakeAt = at + millis
    // Never within this call: a test's clock does not wait for nothing.
    const due = millis > 0 ? Effect.sleep(millis) : Effect.yieldNow()
    sleeper = runFork(Effect.interruptible(Effect.zipRight(due, Effect.sync(sweep))))
  }

  const touchDate = (date: number): void => {
    if (date !== Number.POSITIVE_INFINITY) touch(now() + date - wall())
  }

  const sweep = (): void => {
    const at = moment()
    wakeAt = Number.POSITIVE_INFINITY
    // It is the fiber that runs this.
    sleeper = undefined
    isSweeping = true
    for (const timed of all) {
      if (timed.deadline > at.mono && timed.date > at.wall) continue
      // One that throws, as an audit sink may, takes no other's deadline away.
      const told = Either.try(() => timed.onDeadline(at))
      if (Either.isLeft(told)) runFork(Effect.logError("a deadline could not be acted on", told.left))
    }
    isSweeping = false
    if (all.size === 0) return
    let next = Number.MAX_SAFE_INTEGER
    for (const timed of all) next = Math.min(next, timed.deadline, at.mono + timed.date - at.wall)
    // A connection that did not act on its deadline is told again, and not without end in this moment.
    touch(Math.max(next, at.mono + 1))
  }

  return {
    add: (timed) => {
      all.add(timed)
      touch(timed.deadline)
      touchDate(timed.date)
    },
    remove: (timed) => {
      all.delete(timed)
      if (all.size === 0) stop()
    },
    touch,
    touchDate,
    now,
    wall,
    moment
  }
})
