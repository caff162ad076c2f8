import { assert, describe, it } from "@effect/vitest"
import { Chunk, Clock, Effect, TestClock } from "effect"
import { quicken } from "../../workload-api/test/support/quickTestClock.js"
import * as Sweeper from "../src/internal/sweeper.js"

/** Something timed that notes when it was told. */
const timer = (deadline: number) => {
  const told: Array<number> = []
  const timed = {
    deadline,
    told,
    onDeadline: (now: number) => {
      told.push(now)
      timed.deadline = Number.POSITIVE_INFINITY
    }
  }
  return timed
}

const sleeping = Effect.map(TestClock.sleeps(), Chunk.size)

describe("a sweeper", () => {
  it.scoped("tells each at its deadline, whatever the order, and near and far", () =>
    Effect.gen(function* () {
      yield* quicken
      const sweeper = yield* Sweeper.make
      const timers = [3_600_000, 50, 12_345].map(timer)
      for (const timed of timers) sweeper.add(timed)
      yield* TestClock.setTime(49)
      assert.deepStrictEqual(
        timers.map(({ told }) => told),
        [[], [], []]
      )
      yield* TestClock.setTime(50)
      yield* TestClock.setTime(12_345)
      yield* TestClock.setTime(3_599_999)
      assert.deepStrictEqual(
        timers.map(({ told }) => told),
        [[], [50], [12_345]]
      )
      yield* TestClock.setTime(3_600_000)
      assert.deepStrictEqual(
        timers.map(({ told }) => told),
        [[3_600_000], [50], [12_345]]
      )
    })
  )

  it.scoped("follows a deadline that moves: one that is earlier after a touch, one that is later by itself", () =>
    Effect.gen(function* () {
      const sweeper = yield* Sweeper.make
      const [early, late] = [timer(5_000), timer(1_000)]
      sweeper.add(early)
      sweeper.add(late)
      early.deadline = 10
      sweeper.touch(10)
      late.deadline = 2_000
      yield* TestClock.setTime(10)
      yield* TestClock.setTime(1_999)
      assert.deepStrictEqual([early.told, late.told], [[10], []])
      yield* TestClock.setTime(2_000)
      assert.deepStrictEqual(late.told, [2_000])
    })
  )

  it.scoped("tells nothing to who was removed", () =>
    Effect.gen(function* () {
      const sweeper = yield* Sweeper.make
      const timed = timer(1_000)
      sweeper.add(timed)
      sweeper.remove(timed)
      yield* TestClock.setTime(1_000)
      assert.deepStrictEqual(timed.told, [])
    })
  )

  it.scoped("tells who is late already at once", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(5_000)
      const sweeper = yield* Sweeper.make
      const timed = timer(1_000)
      sweeper.add(timed)
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(timed.told, [5_000])
    })
  )

  it.scoped("has one fiber asleep for all of them, the same for those that come and go, and none for nobody", () =>
    Effect.gen(function* () {
      const sweeper = yield* Sweeper.make
      assert.strictEqual(yield* sleeping, 0)
      const first = timer(60_000)
      sweeper.add(first)
      yield* Effect.yieldNow()
      const asleep = Array.from(yield* TestClock.sleeps())
      assert.strictEqual(asleep.length, 1)
      for (let i = 0; i < 100; i++) {
        const now = yield* Clock.currentTimeMillis
        const timed = timer(now + 30_000)
        sweeper.add(timed)
        sweeper.remove(timed)
      }
      yield* Effect.yieldNow()
      assert.deepStrictEqual(Array.from(yield* TestClock.sleeps()), asleep)
      // Its sleep was given up when there was nobody left, though the test's clock goes on listing it: there is another.
      sweeper.remove(first)
      sweeper.add(first)
      yield* Effect.yieldNow()
      assert.strictEqual(yield* sleeping, 2)
    })
  )
})
