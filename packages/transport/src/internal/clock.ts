import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { clockOf, withFiber } from "./fiber.js"

/** The clock of the fiber that runs now, for a step that may not be put off: between two steps a fiber can be interrupted. */
export const currentClock = (): Clock.Clock => clockOf(Option.getOrThrow(Fiber.getCurrentFiber()))

/**
 * Milliseconds that never run backwards, from an arbitrary origin, exact to the microsecond. The nanoseconds of Effect's
 * live clock come from the monotonic timer and ignore changes of the wall clock, and `TestClock` moves them. Rounding to
 * microseconds undoes the loss of `TestClock`, which multiplies its milliseconds in floating point.
 */
export const millis = (clock: Clock.Clock): number => Math.round(Number(clock.unsafeCurrentTimeNanos()) / 1_000) / 1_000

/** A step that needs to know the time. */
export const withClock = <A>(f: (clock: Clock.Clock) => A): Effect.Effect<A> =>
  withFiber((fiber) => Effect.succeed(f(clockOf(fiber))))
