/** Fibers that run beside a layer, and end with its scope wherever the layer is built. */
import * as Effect from "effect/Effect"
import type { RuntimeFiber } from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import type * as Scope from "effect/Scope"

/**
 * `Effect.forkScoped` for an effect that goes on until it is interrupted. A fiber inherits from the one that forks it whether
 * it can be: a layer that is built in an uninterruptible region, such as the `acquire` of `Effect.acquireRelease`, would
 * fork what the end of its scope waits for without end.
 */
export const forkScoped = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<RuntimeFiber<A, E>, never, R | Scope.Scope> => Effect.forkScoped(Effect.interruptible(effect))

/** The runtime that callbacks start fibers with. */
export type RunFork = (effect: Effect.Effect<void>) => RuntimeFiber<void>

/** Starts fibers that are interrupted when the scope ends, and can be, wherever this is made. */
export const makeRunFork: Effect.Effect<RunFork, never, Scope.Scope> = Effect.map(
  FiberSet.makeRuntime<never, void, never>(),
  (runFork) => (effect) => runFork(Effect.interruptible(effect))
)
