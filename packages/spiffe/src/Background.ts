/**
 * Fibers that run beside a layer, and end with its scope wherever the layer is built. For authors of identity sources and of
 * transports.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type { RuntimeFiber } from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import type * as Scope from "effect/Scope"

/**
 * `Effect.forkScoped` for an effect that goes on until it is interrupted. A fiber inherits from the one that forks it whether
 * it can be: a layer that is built in an uninterruptible region, such as the `acquire` of `Effect.acquireRelease`, would
 * fork what the end of its scope waits for without end.
 *
 * @since 0.1.0
 * @category operations
 */
export const forkScoped = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<RuntimeFiber<A, E>, never, R | Scope.Scope> => Effect.forkScoped(Effect.interruptible(effect))

/**
 * Starts a fiber from a callback.
 *
 * @since 0.1.0
 * @category models
 */
export type RunFork = (effect: Effect.Effect<void>) => RuntimeFiber<void>

/**
 * Makes a function for callbacks that starts fibers. They are interrupted when the scope ends, and can be, wherever this is
 * made.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Background } from "@agentweave/spiffe"
 * import { Effect } from "effect"
 * import { watch } from "node:fs"
 *
 * const watched = (path: string, onChange: Effect.Effect<void>) =>
 *   Effect.gen(function* () {
 *     const runFork = yield* Background.makeRunFork
 *     const open = Effect.sync(() => watch(path, () => runFork(onChange)))
 *     yield* Effect.acquireRelease(open, (watcher) => Effect.sync(() => watcher.close()))
 *   })
 * ```
 */
export const makeRunFork: Effect.Effect<RunFork, never, Scope.Scope> = Effect.map(
  FiberSet.makeRuntime<never, void, never>(),
  (runFork) => (effect) => runFork(Effect.interruptible(effect))
)
