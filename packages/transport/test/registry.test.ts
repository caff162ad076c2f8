import { CircuitBreakerConfig, CircuitBreakerRegistry } from "@agentweave/transport"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Layer, TestClock } from "effect"
import { quicken } from "../../spiffe/test/support/quickTestClock.js"

const Registry = CircuitBreakerRegistry.CircuitBreakerRegistry
type Options = CircuitBreakerRegistry.Options

const fail = Effect.fail("failed")

/** A registry, and the targets that are in it. */
const setup = (options: Options = {}) =>
  Effect.gen(function* () {
    const registry = yield* CircuitBreakerRegistry.make({ failureThreshold: 2, ...options })
    const targets = Effect.map(registry.metrics, (metrics) => Array.from(metrics.keys()).sort())
    return { registry, targets }
  })

describe("CircuitBreakerRegistry", () => {
  it.scoped("makes one breaker a target, however many ask at once", () =>
    Effect.gen(function* () {
      let made = 0
      const { registry, targets } = yield* setup({
        forTarget: () => {
          made++
          return undefined
        }
      })
      const breakers = yield* Effect.all(
        Array.from({ length: 1_000 }, (_, i) =>
          Effect.zipRight(Effect.yieldNow(), registry.get(i % 2 === 0 ? "a" : "b"))
        ),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(new Set(breakers).size, 2)
      assert.strictEqual(made, 2)
      assert.deepStrictEqual(yield* targets, ["a", "b"])
      assert.deepStrictEqual(
        breakers.slice(0, 2).map((_) => _.target),
        ["a", "b"]
      )
    })
  )

  it.scoped("configures one target unlike the others", () =>
    Effect.gen(function* () {
      const config = yield* CircuitBreakerConfig.make({ failureThreshold: 7 })
      const { registry } = yield* setup({ forTarget: (target) => (target === "a" ? config : undefined) })
      assert.strictEqual((yield* registry.get("a")).config.failureThreshold, 7)
      assert.strictEqual((yield* registry.get("b")).config.failureThreshold, 2)
    })
  )

  it.scoped("keeps targets apart, tells all metrics, resets all", () =>
    Effect.gen(function* () {
      const { registry } = yield* setup({ failureThreshold: 1 })
      const [a, b] = yield* Effect.all([registry.get("a"), registry.get("b")])
      yield* Effect.ignore(a.protect(fail))
      yield* b.isolate
      assert.strictEqual((yield* registry.metrics).get("a")?.state, "Open")
      assert.strictEqual((yield* registry.metrics).get("b")?.isolated, true)
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual((yield* registry.metrics).get("a")?.state, "HalfOpen")
      yield* registry.resetAll
      assert.deepStrictEqual(
        Array.from(yield* registry.metrics, ([, metrics]) => metrics.state),
        ["Closed", "Closed"]
      )
    })
  )

  it.scoped("lets go of a breaker that was not used for idleTimeout", () =>
    Effect.gen(function* () {
      const { registry, targets } = yield* setup({ idleTimeout: "10 minutes", cleanupInterval: "1 minute" })
      yield* registry.get("a")
      yield* TestClock.adjust("9 minutes")
      assert.deepStrictEqual(yield* targets, ["a"])
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* targets, [])
    })
  )

  it.scoped("use keeps a breaker: calls, rejections, get", () =>
    Effect.gen(function* () {
      const { registry, targets } = yield* setup({ idleTimeout: "2 minutes" })
      const [a, b] = yield* Effect.all([registry.get("a"), registry.get("b"), registry.get("c"), registry.get("d")])
      yield* b.isolate
      for (let minute = 0; minute < 10; minute++) {
        yield* TestClock.adjust("1 minute")
        assert.includeMembers(Array.from(yield* targets), ["a", "b", "c"])
        yield* a.protect(Effect.void)
        yield* Effect.ignore(b.protect(Effect.void))
        yield* registry.get("c")
      }
      assert.deepStrictEqual(yield* targets, ["a", "b", "c"])
      yield* b.reset
      yield* TestClock.adjust("3 minutes")
      assert.deepStrictEqual(yield* targets, [])
    })
  )

  it.scoped("an open breaker is never let go, one that remembers failures only after staleTimeout", () =>
    Effect.gen(function* () {
      yield* quicken
      const { registry, targets } = yield* setup({
        idleTimeout: "10 minutes",
        staleTimeout: "1 hour",
        cleanupInterval: "10 minutes",
        timeout: "2 hours"
      })
      const [open, counting] = yield* Effect.all([registry.get("open"), registry.get("counting")])
      const isolated = yield* registry.get("isolated")
      yield* isolated.isolate
      yield* Effect.ignore(open.protect(fail))
      yield* Effect.ignore(open.protect(fail))
      yield* Effect.ignore(counting.protect(fail))
      // The first sweep, after ten minutes, sees the use: an hour of rest ends an hour later.
      yield* TestClock.adjust("69 minutes")
      assert.deepStrictEqual(yield* targets, ["counting", "isolated", "open"])
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* targets, ["isolated", "open"])
      // Half-open after two hours, and stale at once, for it has not been used for an hour.
      yield* TestClock.adjust("50 minutes")
      assert.deepStrictEqual(yield* targets, ["isolated"])
      yield* TestClock.adjust("1 day")
      assert.deepStrictEqual(yield* targets, ["isolated"])
    })
  )

  it.scoped("a half-open breaker with a probe running is in use", () =>
    Effect.gen(function* () {
      const { registry, targets } = yield* setup({
        failureThreshold: 1,
        staleTimeout: "10 minutes",
        cleanupInterval: "5 minutes"
      })
      const breaker = yield* registry.get("a")
      yield* Effect.ignore(breaker.protect(fail))
      yield* TestClock.adjust("30 seconds")
      const probe = yield* Effect.fork(breaker.protect(Effect.delay(Effect.void, "1 hour")))
      yield* TestClock.adjust("59 minutes")
      assert.deepStrictEqual(yield* targets, ["a"])
      yield* TestClock.adjust("1 minute")
      yield* probe
      yield* TestClock.adjust("16 minutes")
      assert.deepStrictEqual(yield* targets, [])
    })
  )

  it.scoped("there is never a second breaker for a target while somebody holds the first", () =>
    Effect.gen(function* () {
      const { registry, targets } = yield* setup()
      const held = yield* registry.get("a")
      yield* TestClock.adjust("11 minutes")
      assert.deepStrictEqual(yield* targets, [])
      assert.strictEqual(yield* registry.get("a"), held)
      assert.deepStrictEqual(yield* targets, ["a"])
    })
  )

  it.scoped("a breaker that was let go and is used again is back", () =>
    Effect.gen(function* () {
      const { registry, targets } = yield* setup()
      const [called, opened, failed] = yield* Effect.all([
        registry.get("called"),
        registry.get("opened"),
        registry.get("failed")
      ])
      yield* TestClock.adjust("11 minutes")
      assert.deepStrictEqual(yield* targets, [])
      yield* opened.isolate
      // It is held from the moment it opened: nobody else may be holding it.
      const { entries } = registry as unknown as { readonly entries: ReadonlyMap<string, unknown> }
      assert.deepStrictEqual(Array.from(entries.keys()), ["opened"])
      yield* called.protect(Effect.void)
      yield* Effect.ignore(failed.protect(fail))
      yield* registry.resetAll
      assert.deepInclude(yield* failed.metrics, { failureCount: 0, totalFailures: 1 })
      assert.deepStrictEqual(yield* targets, ["called", "failed", "opened"])
      yield* TestClock.adjust("9 minutes")
      assert.deepStrictEqual(yield* targets, ["called", "failed", "opened"])
      yield* TestClock.adjust("3 minutes")
      assert.deepStrictEqual(yield* targets, [])
    })
  )

  it.scoped("does not grow for ever", () =>
    Effect.gen(function* () {
      const { registry } = yield* setup({ idleTimeout: "1 minute", staleTimeout: "2 minutes", timeout: "1 second" })
      for (let round = 0; round < 20; round++) {
        yield* Effect.forEach(
          Array.from({ length: 100 }, (_, i) => `${round}/${i}`),
          (target, i) =>
            Effect.flatMap(registry.get(target), (breaker) =>
              Effect.ignore(breaker.protect(i % 2 === 0 ? Effect.void : fail))
            )
        )
        yield* TestClock.adjust("1 minute")
        assert.isAtMost((yield* registry.metrics).size, 400)
      }
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual((yield* registry.metrics).size, 0)
    })
  )

  it.effect("is a layer, whose refusals are typed", () =>
    Effect.gen(function* () {
      const breaker = yield* Effect.flatMap(Registry, (registry) => registry.get("a")).pipe(
        Effect.provide(CircuitBreakerRegistry.layer({ failureThreshold: 9 }))
      )
      assert.strictEqual(breaker.config.failureThreshold, 9)
      for (const [options, message] of [
        [{ failureThreshold: 0 }, "CircuitBreakerConfig.failureThreshold: expected an integer of at least 1, got 0"],
        [{ idleTimeout: 0 }, "CircuitBreakerRegistry.idleTimeout: expected a positive, finite duration, got 0"],
        [{ staleTimeout: -1 }, "CircuitBreakerRegistry.staleTimeout: expected a duration that is not negative, got -1"],
        [{ cleanupInterval: 0 }, "CircuitBreakerRegistry.cleanupInterval: expected a positive, finite duration, got 0"]
      ] as const) {
        const built = yield* Effect.either(Effect.scoped(Layer.build(CircuitBreakerRegistry.layer(options))))
        assert.strictEqual(Either.getOrThrow(Either.flip(built)).message, message)
      }
    })
  )
})
