/**
 * Every use of Effect's own internals in this package, as read in effect 3.22. Plain Effect has the same by services and
 * `FiberRef`s, at one to three further steps of the fiber for each: on the way of a request that is a tenth of it
 * (`npm run bench -- request breaker retry`). The tests in `test/fiber.test.ts` fail when an upgrade changes what is assumed here.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { RuntimeFiber } from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import type * as FiberRef from "effect/FiberRef"
import { hasProperty } from "effect/Predicate"
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

/** Whether a fiber that waits may have been told something that it has not acted on yet, such as its interruption. */
export const mayHaveNews = (fiber: AnyFiber): boolean =>
  !hasProperty(fiber, "_queue") || !Array.isArray(fiber._queue) || fiber._queue.length > 0

type Register<A, E> = (resume: (result: Effect.Effect<A, E>) => void) => void

/** The step that suspends a fiber until its callback is called. */
interface Suspension<A, E> extends Effect.Effect<A, E> {
  effect_instruction_i0: Register<A, E>
  effect_instruction_i1: FiberId.FiberId
}

const isSuspension = (step: unknown): step is { readonly constructor: new <A, E>(op: "Async") => Suspension<A, E> } =>
  hasProperty(step, "_op") &&
  step._op === "Async" &&
  hasProperty(step, "effect_instruction_i0") &&
  typeof step.effect_instruction_i0 === "function" &&
  hasProperty(step, "effect_instruction_i1") &&
  step.effect_instruction_i1 === FiberId.none

/** Makes the step that `Effect.async` comes to, as far as it is known in this version of Effect. */
const suspend = (): (<A, E>(register: Register<A, E>) => Effect.Effect<A, E>) | undefined => {
  const example: object = Effect.async<never>((_resume) => {})
  const step: unknown = hasProperty(example, "commit") && typeof example.commit === "function" && example.commit()
  if (!isSuspension(step)) return undefined
  const Step = step.constructor
  return <A, E>(register: Register<A, E>) => {
    const step = new Step<A, E>("Async")
    step.effect_instruction_i0 = register
    step.effect_instruction_i1 = FiberId.none
    return step
  }
}

/**
 * `Effect.async` for a `register` that gives no canceller. It is called in the step that suspends the fiber, and not in one
 * before it, with no objects that hold the result between the two: four hundredths of a request.
 */
export const async: <A, E>(register: Register<A, E>) => Effect.Effect<A, E> = suspend() ?? Effect.async
