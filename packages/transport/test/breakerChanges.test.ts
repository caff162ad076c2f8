import { CircuitBreaker } from "@agentweave/transport"
import { assert, describe, it } from "@effect/vitest"
import { Chunk, Duration, Effect, Exit, Fiber, Ref, Stream, TestClock } from "effect"
import { settled } from "../../spiffe/test/support/settled.js"
import { ManualRuntime } from "./manualRuntime.js"

const make = CircuitBreaker.make({ target: "watched", failureThreshold: 1, successThreshold: 1, timeout: "10 seconds" })
const fail = (breaker: CircuitBreaker.CircuitBreaker) => Effect.ignore(breaker.protect(Effect.fail("failed")))

/** What a reader that keeps up has read so far. */
const watch = (breaker: CircuitBreaker.CircuitBreaker) =>
  Effect.gen(function* () {
    const seen = yield* Ref.make<ReadonlyArray<string>>([])
    yield* Effect.fork(Stream.runForEach(breaker.changes, (state) => Ref.update(seen, (_) => [..._, state])))
    yield* settled
    return Effect.zipRight(settled, Ref.get(seen))
  })

describe("changes", () => {
  it.effect("tells the present state, then each transition when it takes place", () =>
    Effect.gen(function* () {
      const breaker = yield* make
      const seen = yield* watch(breaker)
      assert.deepStrictEqual(yield* seen, ["Closed"])
      yield* fail(breaker)
      assert.deepStrictEqual(yield* seen, ["Closed", "Open"])
      yield* TestClock.adjust("10 seconds")
      // Nobody has called or looked: the reader itself waits for the end of the open time.
      assert.deepStrictEqual(yield* seen, ["Closed", "Open", "HalfOpen"])
      yield* fail(breaker)
      yield* TestClock.adjust("10 seconds")
      yield* breaker.protect(Effect.void)
      assert.deepStrictEqual(yield* seen, ["Closed", "Open", "HalfOpen", "Open", "HalfOpen", "Closed"])
    })
  )

  it.effect("tells a reader that comes late the state as it is by then", () =>
    Effect.gen(function* () {
      const breaker = yield* make
      yield* fail(breaker)
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* Effect.flatten(watch(breaker)), ["HalfOpen"])
    })
  )

  it.effect("tells what is done by hand, and does not wait for the end of an isolation", () =>
    Effect.gen(function* () {
      const breaker = yield* make
      const seen = yield* watch(breaker)
      yield* breaker.isolate
      yield* TestClock.adjust("1 day")
      assert.deepStrictEqual(yield* seen, ["Closed", "Open"])
      yield* breaker.reset
      yield* breaker.reset
      assert.deepStrictEqual(yield* seen, ["Closed", "Open", "Closed"])
    })
  )

  it.effect("keeps no more than the latest 16 for a reader that falls behind, the present state among them", () =>
    Effect.gen(function* () {
      const breaker = yield* make
      const slow = yield* breaker.changes.pipe(
        Stream.rechunk(1),
        Stream.tap(() => Effect.sleep("1 hour")),
        Stream.take(17),
        Stream.runCollect,
        Effect.fork
      )
      yield* settled
      for (let i = 0; i < 100; i++) {
        yield* fail(breaker)
        yield* breaker.reset
      }
      yield* fail(breaker)
      yield* Effect.repeatN(TestClock.adjust("1 hour"), 17)
      const seen = Chunk.toReadonlyArray(yield* Fiber.join(slow))
      // The state when it began to read and 16 states, the last of which is the end of the open time meanwhile.
      assert.strictEqual(seen.length, 17)
      assert.deepStrictEqual(seen.slice(-3), ["Closed", "Open", "HalfOpen"])
    })
  )

  it.effect("waits for an open time that is longer than a timer can be", () =>
    Effect.gen(function* () {
      const test = yield* TestClock.testClock()
      // As JavaScript's timers: what is longer than 2^31 - 1 milliseconds never ends.
      const sleep = (duration: Duration.Duration) =>
        Duration.toMillis(duration) < 2 ** 31 ? test.sleep(duration) : Effect.never
      yield* Effect.gen(function* () {
        const breaker = yield* CircuitBreaker.make({ target: "watched", failureThreshold: 1, timeout: "60 days" })
        const seen = yield* watch(breaker)
        yield* fail(breaker)
        yield* TestClock.adjust("59 days")
        assert.deepStrictEqual(yield* seen, ["Closed", "Open"])
        yield* TestClock.adjust("1 day")
        assert.deepStrictEqual(yield* seen, ["Closed", "Open", "HalfOpen"])
      }).pipe(Effect.withClock(Object.assign(Object.create(test), { sleep })))
    })
  )

  it("misses no transition, at whichever of its steps the reader is", () => {
    // The reader yields after every tenth operation; operations before its own move these points to each of them.
    const read = (
      breaker: CircuitBreaker.CircuitBreaker,
      seen: Array<string>,
      operations: number
    ): Effect.Effect<unknown> =>
      operations === 0
        ? Stream.runForEach(breaker.changes, (state) => Effect.sync(() => seen.push(state)))
        : Effect.suspend(() => read(breaker, seen, operations - 1))
    for (let operations = 0; operations < 12; operations++) {
      for (let step = 0; step < 40; step++) {
        const runtime = new ManualRuntime(10)
        const now = <A, E>(effect: Effect.Effect<A, E>) => {
          const fiber = runtime.fork(effect)
          runtime.flush()
          return fiber.unsafePoll() ?? assert.fail("it waits")
        }
        const breaker = Exit.getOrElse(now(make), () => assert.fail("it was refused"))
        now(fail(breaker))
        const seen: Array<string> = []
        runtime.fork(Effect.zipRight(Effect.yieldNow(), read(breaker, seen, operations)))
        runtime.flush(step)
        Effect.runSync(breaker.reset)
        runtime.flush()
        assert.strictEqual(seen.at(-1), "Closed", `reset at step ${step} after ${operations} operations`)
      }
    }
  })

  it.effect("a reader that leaves is forgotten", () =>
    Effect.gen(function* () {
      const breaker = yield* make
      yield* Stream.runCollect(Stream.take(breaker.changes, 1))
      const reader = yield* Effect.fork(Stream.runDrain(breaker.changes))
      yield* settled
      yield* Fiber.interrupt(reader)
      const { machine } = breaker as unknown as { readonly machine: { readonly listeners: ReadonlySet<unknown> } }
      assert.strictEqual(machine.listeners.size, 0)
    })
  )
})
