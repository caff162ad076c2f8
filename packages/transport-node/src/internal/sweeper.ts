import * as Effect from "effect/Effect"
import type { RuntimeFiber } from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import type * as Scope from "effect/Scope"
import { makeRunFork } from "./background.js"

/** Something with at most one deadline at a time. `deadline` is read when the sweeper looks, so it may move freely. */
export interface Timed {
  /** Milliseconds since the epoch; `Infinity` when there is none. */
  readonly deadline: number
  readonly onDeadline: (now: number) => void
}

/**
 * Timeouts for many connections at the price of one: a fiber sleeps until the earliest deadline, on Effect's Clock, and
 * only while there is one. Setting a deadline is an assignment and a comparison.
 */
export interface Sweeper {
  readonly add: (timed: Timed) => void
  readonly remove: (timed: Timed) => void
  /** To be called after a deadline was set that may be earlier than all others. */
  readonly touch: (deadline: number) => void
  readonly now: () => number
}

/**
 * A longer sleep, in milliseconds, is made of several. Short enough to be no longer than the usual deadlines, so that
 * those who come need not have the sleeper replaced by one that wakes earlier.
 */
const longestSleep = 10_000

export const make: Effect.Effect<Sweeper, never, Scope.Scope> = Effect.gen(function* () {
  const clock = yield* Effect.clock
  const runFork = yield* makeRunFork
  const all = new Set<Timed>()
  let wakeAt = Number.POSITIVE_INFINITY
  let sleeper: RuntimeFiber<void> | undefined

  /** There is one sleeper at most: what it was to wake for will be found by the next one too. */
  const stop = (): void => {
    wakeAt = Number.POSITIVE_INFINITY
    sleeper?.unsafeInterruptAsFork(FiberId.none)
    sleeper = undefined
  }

  const touch = (deadline: number): void => {
    if (deadline >= wakeAt) return
    stop()
    const now = clock.unsafeCurrentTimeMillis()
    wakeAt = Math.min(Math.max(now, deadline), now + longestSleep)
    sleeper = runFork(Effect.zipRight(Effect.sleep(wakeAt - now), Effect.sync(sweep)))
  }

  const sweep = (): void => {
    const now = clock.unsafeCurrentTimeMillis()
    wakeAt = Number.POSITIVE_INFINITY
    // It is the one that runs this.
    sleeper = undefined
    for (const timed of all) {
      if (timed.deadline <= now) timed.onDeadline(now)
    }
    let next = Number.POSITIVE_INFINITY
    for (const timed of all) next = Math.min(next, timed.deadline)
    touch(next)
  }

  return {
    add: (timed) => {
      all.add(timed)
      touch(timed.deadline)
    },
    remove: (timed) => {
      all.delete(timed)
      if (all.size === 0) stop()
    },
    touch,
    now: () => clock.unsafeCurrentTimeMillis()
  }
})
