import {
  CircuitBreaker,
  CircuitBreakerConfig,
  CircuitBreakerRegistry,
  CircuitOpenError,
  CircuitState
} from "@agentweave/transport"
import { expect } from "@effect/vitest"
import { Duration, Effect, Exit, Schema, TestClock } from "effect"
import { rows } from "./items.js"
import { gives, refuses } from "./world.js"

const make = (options: CircuitBreakerConfig.Options = {}) => CircuitBreaker.make({ target: "service", ...options })

const fail = (breaker: CircuitBreaker.CircuitBreaker, times: number) =>
  Effect.repeatN(Effect.exit(breaker.protect(Effect.fail("down"))), times - 1)

/** A breaker that has opened; and one whose open time is over. */
const opened = (options?: CircuitBreakerConfig.Options) => Effect.tap(make(options), (breaker) => fail(breaker, 5))

const halfOpen = Effect.tap(opened(), () => TestClock.adjust("30 seconds"))

const rejected = Effect.flatMap(opened(), (breaker) => Effect.flip(breaker.protect(Effect.succeed("let through"))))

const stateOf = <E>(made: Effect.Effect<CircuitBreaker.CircuitBreaker, E>) =>
  Effect.flatMap(made, (breaker) => breaker.state)

rows("CircuitBreaker", {
  import: Effect.sync(() => expect(CircuitBreaker.make).toBeTypeOf("function")),
  name: Effect.map(make(), ({ target }) => expect(target).toBe("service")),
  config: Effect.map(make({ failureThreshold: 7 }), ({ config }) => expect(config.failureThreshold).toBe(7)),
  "state: CLOSED": gives(stateOf(make()), "Closed"),
  "state: OPEN": gives(stateOf(opened()), "Open"),
  "state: HALF_OPEN": gives(stateOf(halfOpen), "HalfOpen"),
  "CLOSED: requests pass through": Effect.flatMap(make(), (breaker) => gives(breaker.protect(Effect.succeed(1)), 1)),
  "OPEN: requests fail fast": Effect.gen(function* () {
    let calls = 0
    const breaker = yield* opened()
    yield* Effect.exit(breaker.protect(Effect.sync(() => calls++)))
    expect(calls).toBe(0)
  }),
  "HALF_OPEN: after the timeout": Effect.flatMap(opened(), (breaker) =>
    Effect.gen(function* () {
      yield* TestClock.adjust("29 seconds")
      expect(yield* breaker.state).toBe("Open")
      yield* TestClock.adjust("1 second")
      expect(yield* breaker.state).toBe("HalfOpen")
    })
  ),
  "HALF_OPEN: test requests": Effect.flatMap(halfOpen, (breaker) =>
    Effect.gen(function* () {
      yield* gives(breaker.protect(Effect.succeed("recovered")), "recovered")
      yield* fail(breaker, 1)
      expect(yield* breaker.state).toBe("Open")
    })
  ),
  metrics: Effect.gen(function* () {
    const breaker = yield* make()
    yield* breaker.protect(Effect.void)
    yield* fail(breaker, 2)
    expect(yield* breaker.metrics).toMatchObject({
      totalCalls: 3,
      totalSuccesses: 1,
      totalFailures: 2,
      failureCount: 2
    })
  }),
  "metrics: a copy": Effect.gen(function* () {
    const breaker = yield* make()
    const before = yield* breaker.metrics
    yield* fail(breaker, 1)
    expect(before.totalFailures).toBe(0)
  }),
  "call: runs the function": Effect.gen(function* () {
    let calls = 0
    yield* Effect.flatMap(make(), (breaker) => breaker.protect(Effect.sync(() => calls++)))
    expect(calls).toBe(1)
  }),
  "call: arguments": Effect.flatMap(make(), (breaker) => {
    const add = (a: number, b: number) => Effect.succeed(a + b)
    return gives(breaker.protect(add(1, 2)), 3)
  }),
  "call: returns the result": Effect.flatMap(make(), (breaker) => gives(breaker.protect(Effect.succeed("x")), "x")),
  "call: CircuitOpenError": Effect.map(rejected, (error) => expect(error._tag).toBe("CircuitOpenError")),
  "call: raises what the function raises": Effect.flatMap(make(), (breaker) =>
    gives(Effect.exit(breaker.protect(Effect.fail("as it is"))), Exit.fail("as it is"))
  ),
  reset: Effect.gen(function* () {
    const breaker = yield* opened()
    yield* breaker.reset
    expect(yield* breaker.state).toBe("Closed")
  }),
  example: Effect.gen(function* () {
    const breaker = yield* make({ failureThreshold: 5, successThreshold: 2, timeout: "30 seconds" })
    yield* fail(breaker, 5)
    const call = breaker
      .protect(Effect.succeed("served"))
      .pipe(Effect.catchTag("CircuitOpenError", () => Effect.succeed("fallback")))
    yield* gives(call, "fallback")
    yield* TestClock.adjust("30 seconds")
    yield* gives(call, "served")
  })
})

const { defaults } = CircuitBreakerConfig

rows("CircuitBreakerConfig", {
  import: Effect.sync(() => expect(CircuitBreakerConfig.make).toBeTypeOf("function")),
  "failure_threshold: default 5": gives(Effect.succeed(defaults.failureThreshold), 5),
  "failure_threshold: opens the circuit": Effect.gen(function* () {
    const breaker = yield* make({ failureThreshold: 2 })
    yield* fail(breaker, 1)
    expect(yield* breaker.state).toBe("Closed")
    yield* fail(breaker, 1)
    expect(yield* breaker.state).toBe("Open")
  }),
  "success_threshold: default 2": gives(Effect.succeed(defaults.successThreshold), 2),
  "success_threshold: closes the circuit": Effect.gen(function* () {
    const breaker = yield* opened({ successThreshold: 3 })
    yield* TestClock.adjust("30 seconds")
    yield* Effect.repeatN(breaker.protect(Effect.void), 1)
    expect(yield* breaker.state).toBe("HalfOpen")
    yield* breaker.protect(Effect.void)
    expect(yield* breaker.state).toBe("Closed")
  }),
  "timeout: default 30 seconds": gives(Effect.succeed(Duration.toSeconds(defaults.timeout)), 30),
  "timeout: before recovery is tried": Effect.gen(function* () {
    const breaker = yield* opened({ timeout: "5 seconds" })
    yield* TestClock.adjust("5 seconds")
    expect(yield* breaker.state).toBe("HalfOpen")
  }),
  "excluded_exceptions: default, none of the function's own": Effect.sync(() =>
    expect([new Error("down"), "down", { _tag: "Down" }].filter(defaults.isExcluded)).toEqual([])
  ),
  "excluded_exceptions: do not count": Effect.gen(function* () {
    const breaker = yield* make({ failureThreshold: 1, isExcluded: (error) => error === "down" })
    yield* fail(breaker, 3)
    expect(yield* breaker.metrics).toMatchObject({ state: "Closed", totalFailures: 0, totalExcluded: 3 })
  }),
  "ValueError: failure_threshold": refuses(
    CircuitBreakerConfig.make({ failureThreshold: 0 }),
    "CircuitBreakerConfig",
    "failureThreshold"
  ),
  "ValueError: success_threshold": refuses(
    CircuitBreakerConfig.make({ successThreshold: 0 }),
    "CircuitBreakerConfig",
    "successThreshold"
  ),
  "ValueError: timeout": refuses(
    CircuitBreakerConfig.make({ timeout: "-1 seconds" }),
    "CircuitBreakerConfig",
    "timeout"
  )
})

const isState = Schema.is(CircuitState.CircuitState)

rows("CircuitState", {
  import: Effect.sync(() => expect(CircuitState.CircuitState.literals).toHaveLength(3)),
  CLOSED: gives(Effect.succeed(isState("Closed")), true),
  OPEN: gives(Effect.succeed(isState("Open")), true),
  HALF_OPEN: gives(Effect.succeed(isState("HalfOpen")), true)
})

rows("CircuitBreakerRegistry", {
  get_breaker: Effect.gen(function* () {
    const registry = yield* CircuitBreakerRegistry.CircuitBreakerRegistry
    const breaker = yield* registry.get("service")
    expect(breaker.target).toBe("service")
    expect(yield* registry.get("service")).toBe(breaker)
    expect(yield* registry.get("another")).not.toBe(breaker)
  }).pipe(Effect.provide(CircuitBreakerRegistry.layer()))
})

rows("CircuitOpenError", {
  import: Effect.sync(() => expect(CircuitOpenError.CircuitOpenError).toBeTypeOf("function")),
  "raised when open": Effect.map(rejected, (error) => expect(error).toBeInstanceOf(CircuitOpenError.CircuitOpenError)),
  target: Effect.map(rejected, (error) => expect(error.target).toBe("service")),
  metrics: Effect.map(rejected, ({ metrics }) => expect(metrics).toMatchObject({ state: "Open", totalFailures: 5 }))
})
