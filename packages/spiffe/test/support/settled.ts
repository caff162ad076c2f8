import { Effect } from "effect"

/**
 * Lets every fiber go on until it waits for something else than another fiber: fibers run in microtasks, and none is left
 * when the event loop takes its next turn.
 */
export const settled: Effect.Effect<void> = Effect.async<void>((resume) => {
  const handle = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(handle))
})
