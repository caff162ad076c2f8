import { assert, describe, it } from "@effect/vitest"
import { Chunk, Effect, Exit, Logger, Scope, TestClock } from "effect"
import * as Deadlines from "../../src/internal/connection/deadlines.js"
import { SteppedClock } from "./steppedClock.js"

const never = Number.POSITIVE_INFINITY

/** Something timed that notes when it was told, on both clocks. */
const timer = (deadline: number, date = never) => {
  const told: Array<number> = []
  const timed = {
    deadline,
    date,
    told,
    onDeadline: ({ mono }: { readonly mono: number }) => {
      told.push(mono)
      timed.deadline = never
      timed.date = never
    }
  }
  return timed
}

const sleeping = Effect.map(TestClock.sleeps(), Chunk.size)

const onSteppedClock = <A, E>(test: (clock: SteppedClock) => Effect.Effect<A, E, Scope.Scope>) =>
  Effect.suspend(() => {
    const clock = new SteppedClock()
    return Effect.withClock(Effect.scoped(test(clock)), clock)
  })

describe("the deadlines of a layer", () => {
  it.scoped("are told in their moment, whatever their order, near and far", () =>
    Effect.gen(function* () {
      const deadlines = yield* Deadlines.make
      const timers = [60_000, 50, 12_345].map((deadline) => timer(deadline))
      for (const timed of timers) deadlines.add(timed)
      yield* TestClock.adjust(49)
      assert.deepStrictEqual(
        timers.map(({ told }) => told),
        [[], [], []]
      )
      yield* TestClock.adjust(1)
      yield* TestClock.adjust(12_295)
      yield* TestClock.adjust(47_654)
      assert.deepStrictEqual(
        timers.map(({ told }) => told),
        [[], [50], [12_345]]
      )
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(
        timers.map(({ told }) => told),
        [[60_000], [50], [12_345]]
      )
    })
  )

  it.scoped("move: an earlier one after a touch, a later one by itself", () =>
    Effect.gen(function* () {
      const deadlines = yield* Deadlines.make
      const [early, late] = [timer(5_000), timer(1_000)]
      deadlines.add(early)
      deadlines.add(late)
      early.deadline = 10
      deadlines.touch(10)
      late.deadline = 2_000
      yield* TestClock.adjust(10)
      yield* TestClock.adjust(1_989)
      assert.deepStrictEqual([early.told, late.told], [[10], []])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(late.told, [2_000])
    })
  )

  it.scoped("are not told to what was removed, and are told at once to what is late already", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust(5_000)
      const deadlines = yield* Deadlines.make
      const [removed, late] = [timer(6_000), timer(1_000)]
      deadlines.add(removed)
      deadlines.remove(removed)
      deadlines.add(late)
      yield* TestClock.adjust(0)
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual([removed.told, late.told], [[], [5_000]])
    })
  )

  it.scoped("share one sleeping fiber, and have none when there is nothing to wait for", () =>
    Effect.gen(function* () {
      const deadlines = yield* Deadlines.make
      assert.strictEqual(yield* sleeping, 0)
      const first = timer(60_000)
      deadlines.add(first)
      yield* Effect.yieldNow()
      const asleep = Array.from(yield* TestClock.sleeps())
      assert.strictEqual(asleep.length, 1)
      for (let i = 0; i < 100; i++) {
        const timed = timer(deadlines.now() + 30_000)
        deadlines.add(timed)
        deadlines.remove(timed)
      }
      yield* Effect.yieldNow()
      assert.deepStrictEqual(Array.from(yield* TestClock.sleeps()), asleep)
    })
  )

  it.scoped("are told to the others when acting on one throws", () =>
    Effect.gen(function* () {
      const deadlines = yield* Deadlines.make
      const [broken, whole, later] = [timer(1_000), timer(1_000), timer(2_000)]
      broken.onDeadline = () => {
        broken.deadline = never
        throw new Error("the audit sink is broken")
      }
      for (const timed of [broken, whole, later]) deadlines.add(timed)
      yield* TestClock.adjust(1_000)
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual([whole.told, later.told], [[1_000], [2_000]])
    }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger)))
  )

  it.effect("run on the monotonic clock: setting the wall clock neither ends nor prolongs them", () =>
    onSteppedClock((clock) =>
      Effect.gen(function* () {
        const deadlines = yield* Deadlines.make
        const timed = timer(2_000)
        deadlines.add(timed)
        yield* clock.pass(500)
        clock.setWall(-3_600_000)
        yield* clock.pass(1_499)
        clock.setWall(7_200_000)
        yield* clock.pass(0)
        assert.deepStrictEqual(timed.told, [])
        yield* clock.pass(1)
        assert.deepStrictEqual(timed.told, [2_000])
      })
    )
  )

  it.effect("see that the wall clock was set past a date within a tenth of the time that was left until it", () =>
    onSteppedClock((clock) =>
      Effect.gen(function* () {
        const deadlines = yield* Deadlines.make
        const [near, far] = [timer(never, deadlines.wall() + 100_000), timer(never, deadlines.wall() + 3_600_000)]
        deadlines.add(far)
        yield* clock.pass(1_000)
        clock.setWall(3_600_000)
        yield* clock.pass(359_000)
        assert.deepStrictEqual(far.told, [360_000])
        near.date = deadlines.wall() + 100_000
        deadlines.add(near)
        yield* clock.pass(15_000)
        clock.setWall(100_000)
        yield* clock.pass(5_000)
        assert.deepStrictEqual(near.told.length, 1)
      })
    )
  )

  it.effect("wait longer for a date when the wall clock is set back, and are told at it to the millisecond", () =>
    onSteppedClock((clock) =>
      Effect.gen(function* () {
        const deadlines = yield* Deadlines.make
        const timed = timer(never, deadlines.wall() + 30_000)
        deadlines.add(timed)
        clock.setWall(-5_000)
        yield* clock.pass(34_999)
        assert.deepStrictEqual(timed.told, [])
        yield* clock.pass(1)
        assert.deepStrictEqual(timed.told, [35_000])
      })
    )
  )

  it.effect("end with their scope, wherever they were made", () =>
    Effect.suspend(() => {
      const clock = new SteppedClock()
      return Effect.gen(function* () {
        const scope = yield* Scope.make()
        const deadlines = yield* Effect.uninterruptible(Scope.extend(Deadlines.make, scope))
        deadlines.add(timer(60_000))
        yield* clock.pass(0)
        assert.strictEqual(clock.sleeping, 1)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(clock.sleeping, 0)
      }).pipe(Effect.withClock(clock))
    })
  )
})
