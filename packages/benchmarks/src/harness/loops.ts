/** Closed loops: so many operations at a time, each followed by the next, until the time is up. */
import { Effect, type Runtime } from "effect"
import * as Run from "effect/Runtime"

export type Sampler = (millis: number) => Promise<number>

/** For promises. `batch` operations run between two looks at the clock. */
export const promiseLoop =
  (inFlight: number, operation: () => Promise<unknown>, batch = 1): Sampler =>
  async (millis) => {
    const end = performance.now() + millis
    let operations = 0
    const one = async () => {
      do {
        for (let i = 0; i < batch; i++) await operation()
        operations += batch
      } while (performance.now() < end)
    }
    await Promise.all(Array.from({ length: inFlight }, one))
    return operations
  }

/** For effects: every loop is a fiber, and every operation is described anew, as a program would. */
export const effectLoop = <R>(
  runtime: Runtime.Runtime<R>,
  inFlight: number,
  operation: () => Effect.Effect<unknown, unknown, R>,
  batch = 1
): Sampler => {
  const runPromise = Run.runPromise(runtime)
  return async (millis) => {
    let end = 0
    let operations = 0
    const one = Effect.suspend(() => {
      let left = batch
      return Effect.whileLoop({
        while: () => left > 0 || performance.now() < end,
        body: operation,
        step: () => {
          left = (left > 0 ? left : batch) - 1
          operations++
        }
      })
    })
    await runPromise(
      Effect.suspend(() => {
        end = performance.now() + millis
        return inFlight === 1
          ? one
          : Effect.forEach(Array.from({ length: inFlight }), () => one, { concurrency: inFlight, discard: true })
      })
    )
    return operations
  }
}

/** One after the other, and the first again after the last. */
export const inTurn = <A>(values: ReadonlyArray<A>): (() => A) => {
  let at = 0
  return () => values[at++ % values.length] as A
}
