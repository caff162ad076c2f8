import { type Clock, Effect } from "effect"

/**
 * Lets the test clock go through many instants quickly, in a test whose fibers wait for nothing but one another and the
 * clock. For each sleeper it wakes, effect 3.22's `TestClock` asks every fiber for its status until they are at rest, with
 * timers of the platform in between; here it waits for one turn of the event loop, and they are.
 */
export const quicken: Effect.Effect<void> = Effect.map(Effect.clock, (clock: Clock.Clock) => {
  const turn = Effect.async<void>((resume) => {
    const handle = setImmediate(() => resume(Effect.void))
    return Effect.sync(() => clearImmediate(handle))
  })
  for (const name of ["yieldTimer", "awaitSuspended"]) {
    if (!Reflect.has(clock, name)) throw new Error(`expected effect's TestClock with a private ${name}`)
  }
  Reflect.set(clock, "yieldTimer", turn)
  Reflect.set(clock, "awaitSuspended", () => turn)
})
