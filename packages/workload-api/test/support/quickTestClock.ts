import { type Clock, Effect } from "effect"

/**
 * Lets the test clock go through many instants quickly. For each sleeper it wakes, effect 3.22's `TestClock` waits for a
 * timer of the platform, which takes a millisecond or more; here it waits for one turn of the event loop.
 */
export const quicken: Effect.Effect<void> = Effect.map(Effect.clock, (clock: Clock.Clock) => {
  const turn = Effect.async<void>((resume) => {
    const handle = setImmediate(() => resume(Effect.void))
    return Effect.sync(() => clearImmediate(handle))
  })
  if (!Reflect.has(clock, "yieldTimer")) throw new Error("expected effect's TestClock with a private yieldTimer")
  Reflect.set(clock, "yieldTimer", turn)
})
