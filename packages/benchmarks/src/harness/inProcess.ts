/** Subjects that need no server: one operation after another. */
import { Effect, Runtime } from "effect"
import type { Subject } from "./Benchmark.js"
import { effectLoop, promiseLoop } from "./loops.js"

/** Operations between two looks at the clock: they take a microsecond, a look takes a tenth of one. */
const batch = 256

export const promises = (make: () => Promise<() => Promise<unknown>>): Subject => ({
  start: async () => {
    const operation = await make()
    return { sample: promiseLoop(1, operation, batch), check: operation, stop: async () => {} }
  }
})

export const effects = (
  make: Effect.Effect<() => Effect.Effect<unknown, unknown>, unknown>,
  inFlight = 1
): Subject => ({
  start: async () => {
    const operation = await Effect.runPromise(make)
    return {
      sample: effectLoop(Runtime.defaultRuntime, inFlight, operation, batch),
      check: () => Effect.runPromise(operation()),
      stop: async () => {}
    }
  }
})
