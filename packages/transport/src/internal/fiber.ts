/**
 * Every use of Effect's own internals in this package, as read in effect 3.22. Plain Effect has the same by services and
 * `FiberRef`s, at one to three further steps of the fiber for each: on the way of a request that is a tenth of it
 * (`npm run bench -- request breaker retry`). The tests in `test/fiber.test.ts` fail when an upgrade changes what is assumed here.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { RuntimeFiber } from "effect/Fiber"
import type * as FiberRef from "effect/FiberRef"
import * as RuntimeFlags from "effect/RuntimeFlags"

export type AnyFiber = RuntimeFiber<unknown, unknown>

/** An effect made by the fiber that runs it, in one step: `Effect.flatMap(Effect.fiberId, …)` and the like take two. */
export const withFiber = Effect.withFiberRuntime

/** A service of the fiber, if it has been given one; the default of a `Context.Reference` is not looked for. */
export const serviceOf = <I, S>(fiber: AnyFiber, tag: Context.Tag<I, S>): S | undefined =>
  fiber.currentContext.unsafeMap.get(tag.key) as S | undefined

/** The value that a `FiberRef` has in the fiber. */
export const fiberRefOf = <A>(fiber: AnyFiber, ref: FiberRef.FiberRef<A>): A => fiber.getFiberRef(ref)

/** Whether an effect that begins now can be interrupted, by the status that {@link withFiber} gives. */
export const isInterruptible = (status: { readonly runtimeFlags: RuntimeFlags.RuntimeFlags }): boolean =>
  RuntimeFlags.interruption(status.runtimeFlags)

/** The clock a fiber runs on: the live one, or a test's. */
export const clockOf = (fiber: AnyFiber): Clock.Clock => Context.get(fiber.currentDefaultServices, Clock.Clock)
