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
import * as Runtime from "effect/Runtime"

export type AnyFiber = RuntimeFiber<unknown, unknown>

/** An effect made by the fiber that runs it, in one step. */
export const withFiber = Effect.withFiberRuntime

/** A service in a context, if there is one; the default of a `Context.Reference` is not looked for. */
export const serviceIn = <I, S, R>(context: Context.Context<R>, tag: Context.Tag<I, S>): S | undefined =>
  context.unsafeMap.get(tag.key) as S | undefined

/** A service of the fiber, if it has been given one. */
export const serviceOf = <I, S>(fiber: AnyFiber, tag: Context.Tag<I, S>): S | undefined =>
  serviceIn(fiber.currentContext, tag)

/** The value that a `FiberRef` has in the fiber. */
export const fiberRefOf = <A>(fiber: AnyFiber, ref: FiberRef.FiberRef<A>): A => fiber.getFiberRef(ref)

/** The clock a fiber runs on: the live one, or a test's. */
export const clockOf = (fiber: AnyFiber): Clock.Clock => Context.get(fiber.currentDefaultServices, Clock.Clock)

/** A runtime with the services and `FiberRef`s of a fiber: an effect run by it can be interrupted, wherever the fiber is. */
export const runtimeOf = (fiber: AnyFiber): Runtime.Runtime<never> =>
  Runtime.make({
    context: fiber.currentContext,
    fiberRefs: fiber.getFiberRefs(),
    runtimeFlags: Runtime.defaultRuntimeFlags
  })
