import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, TestClock } from "effect"
import * as Deadlines from "../../src/internal/connection/deadlines.js"
import { HandshakePlaces, type Leave, longestHold, maxHandshakes } from "../../src/internal/connection/places.js"

const arrange = Effect.map(Deadlines.make, (deadlines) => {
  const places = new HandshakePlaces(deadlines)
  const entered: Array<string> = []
  const leaves = new Map<string, Array<Leave>>()
  const keep = (key: string) => (leave: Leave) => {
    entered.push(key)
    leaves.set(key, [...(leaves.get(key) ?? []), leave])
  }
  /** A handshake that takes a place, or waits for one. */
  const begin = (key: string) =>
    Effect.suspend(() => {
      const leave = places.tryEnter(key)
      if (leave === undefined) return Effect.fork(places.enter(key, keep(key)))
      keep(key)(leave)
      return Effect.fork(Effect.void)
    })
  const leave = (key: string) => {
    const [first, ...rest] = leaves.get(key) ?? []
    leaves.set(key, rest)
    first?.()
  }
  return { begin, entered, leave, places }
})

const times = (n: number) => Array.from({ length: n }, (_, i) => i)

describe("places for handshakes", () => {
  it.scoped("are so many at a time; a silent handshake gives its place up after a quarter of a second", () =>
    Effect.gen(function* () {
      const { begin, entered } = yield* arrange
      yield* Effect.forEach(times(maxHandshakes + 1), () => begin("a"))
      yield* TestClock.adjust(longestHold - 1)
      assert.strictEqual(entered.length, maxHandshakes)
      yield* TestClock.adjust(1)
      assert.strictEqual(entered.length, maxHandshakes + 1)
    })
  )

  it.scoped(
    "go first to the target with the fewest handshakes under way: 150 silent peers do not delay a healthy one",
    () =>
      Effect.gen(function* () {
        const { begin, entered } = yield* arrange
        const silent = times(150).map((i) => `silent-${i}`)
        for (const _ of times(4)) yield* Effect.forEach(silent, begin)
        // Each silent peer has its first handshake under way after some 1.2 seconds.
        yield* TestClock.adjust(longestHold * 5)
        yield* begin("healthy")
        const before = entered.length
        yield* TestClock.adjust(longestHold)
        assert.strictEqual(entered[before], "healthy")
      })
  )

  it.scoped("go to the one that has waited longest among targets that have equally many", () =>
    Effect.gen(function* () {
      const { begin, entered, leave } = yield* arrange
      yield* Effect.forEach(times(maxHandshakes), () => begin("busy"))
      for (const key of ["c", "a", "b", "a"]) yield* begin(key)
      yield* Effect.yieldNow()
      for (const _ of times(4)) leave("busy")
      assert.deepStrictEqual(entered.slice(maxHandshakes), ["c", "a", "b", "a"])
    })
  )

  it.scoped("are given back once, whatever ends first, and nothing is kept of a target that has none", () =>
    Effect.gen(function* () {
      const { begin, entered, leave, places } = yield* arrange
      yield* begin("a")
      yield* TestClock.adjust(longestHold)
      leave("a")
      yield* Effect.forEach(times(maxHandshakes), () => begin("b"))
      assert.isUndefined(places.tryEnter("c"))
      const waiting = yield* begin("c")
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(waiting)
      for (const _ of times(maxHandshakes)) leave("b")
      assert.strictEqual(entered.length, maxHandshakes + 1)
      assert.strictEqual((Reflect.get(places, "targets") as ReadonlyMap<string, unknown>).size, 0)
    })
  )
})
