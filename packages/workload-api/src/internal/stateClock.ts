/** The state of an identity under the clock: what is due by itself is done when it is due. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberHandle from "effect/FiberHandle"
import * as Queue from "effect/Queue"
import * as Ref from "effect/Ref"
import type * as Scope from "effect/Scope"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as State from "./identityState.js"
import { type Reporting, svidFields } from "./reporting.js"

/** Timers of the platform are bound to 31 bits of milliseconds, so a longer sleep is taken in pieces. */
const longestSleep = Duration.toMillis("1 day")

export interface StateClock {
  readonly state: SubscriptionRef.SubscriptionRef<State.IdentityState>
  readonly change: (f: (state: State.IdentityState) => State.IdentityState) => Effect.Effect<State.IdentityState>
  /** To be run after each change that may bring something forward. */
  readonly watch: Effect.Effect<void>
  /** Holds one element when the SVID in use has expired without a successor. */
  readonly stalled: Queue.Queue<void>
}

export const make = Effect.fnUntraced(function* (
  reporting: Reporting
): Effect.fn.Return<StateClock, never, Scope.Scope> {
  const state = yield* SubscriptionRef.make(State.initial)
  const stalled = yield* Queue.dropping<void>(1)
  const timer = yield* FiberHandle.make()
  /** When the timer wakes; nothing while it does not run. */
  const alarm = yield* Ref.make<number | undefined>(undefined)

  const change = (f: (state: State.IdentityState) => State.IdentityState): Effect.Effect<State.IdentityState> =>
    SubscriptionRef.updateAndGet(state, f)

  const advance = Effect.fnUntraced(function* (now: number) {
    const before = yield* SubscriptionRef.get(state)
    const after = yield* change((state) => State.advanced(state, now))
    if (before.expired || !after.expired || after.serving === undefined) return
    yield* reporting.emit({ _tag: "Expired", ...svidFields(after.serving.svid) })
    yield* Queue.offer(stalled, undefined)
  }, Effect.uninterruptible)

  /** Sleeps until the state has to change by itself, and lets it; false when it never has to. */
  const step: Effect.Effect<boolean> = Effect.gen(function* () {
    yield* Ref.set(alarm, undefined)
    const due = State.nextChange(yield* SubscriptionRef.get(state))
    const now = yield* Clock.currentTimeMillis
    if (due === undefined) return false
    const wake = Math.min(due, now + longestSleep)
    yield* Ref.set(alarm, wake)
    yield* now < wake ? Effect.sleep(wake - now) : advance(now)
    return true
  })
  const steps: Effect.Effect<boolean> = Effect.repeat(step, { while: (more) => more })

  /** The state changed: a timer that would wake in time is left alone, and finds out when it does. */
  const watch = Effect.gen(function* () {
    const due = State.nextChange(yield* SubscriptionRef.get(state))
    const wake = yield* Ref.get(alarm)
    if (due !== undefined && (wake === undefined || due < wake)) yield* FiberHandle.run(timer, steps)
  })

  return { state, change, watch, stalled }
})
