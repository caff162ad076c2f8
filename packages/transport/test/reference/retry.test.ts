import { RetryConfig, RetryPolicy, TransportError } from "@agentweave/transport"
import { expect } from "@effect/vitest"
import { Cause, Clock, Duration, Effect, Exit, Fiber, Random, TestClock } from "effect"
import { rows } from "./items.js"
import { gives, refuses } from "./world.js"

const lost = new TransportError.ConnectionError({
  reason: "Lost",
  outcome: "Unknown",
  address: "service:443",
  description: "gone"
})

/** The seconds at which a call that fails so often is attempted, and how it ends. */
const attempts = (options: RetryConfig.Options, failures: number, error: unknown = lost) =>
  Effect.gen(function* () {
    const policy = yield* RetryPolicy.make(options)
    const times: Array<number> = []
    const call = Effect.flatMap(Clock.currentTimeMillis, (now) => {
      times.push(now / 1_000)
      return times.length <= failures ? Effect.fail(error) : Effect.succeed("served")
    })
    const fiber = yield* Effect.fork(Effect.exit(policy.retry(call)))
    yield* TestClock.adjust("1 day")
    const exit = yield* Fiber.join(fiber)
    return { times, exit, stats: yield* policy.stats }
  })

const timesOf = (options: RetryConfig.Options, failures: number, error?: unknown) =>
  Effect.map(attempts(options, failures, error), ({ times }) => times)

const plain = { jitter: false } as const

rows("RetryPolicy", {
  import: Effect.sync(() => expect(RetryPolicy.make).toBeTypeOf("function")),
  config: Effect.map(RetryPolicy.make({ maxRetries: 7 }), ({ config }) => expect(config.maxRetries).toBe(7)),
  "execute: runs the function": Effect.map(timesOf(plain, 0), (times) => expect(times).toHaveLength(1)),
  "execute: arguments": Effect.flatMap(RetryPolicy.make(), (policy) => {
    const add = (a: number, b: number) => Effect.succeed(a + b)
    return gives(policy.retry(add(1, 2)), 3)
  }),
  "execute: returns the result": Effect.map(attempts(plain, 0), ({ exit }) =>
    expect(exit).toEqual(Exit.succeed("served"))
  ),
  "execute: retries": Effect.map(attempts(plain, 2), ({ exit, times }) => {
    expect(times).toHaveLength(3)
    expect(exit).toEqual(Exit.succeed("served"))
  }),
  "execute: raises the last exception": Effect.map(attempts(plain, 9), ({ exit }) =>
    expect(exit).toEqual(Exit.fail(lost))
  ),
  get_stats: Effect.map(attempts(plain, 2), ({ stats }) => expect(stats).toMatchObject({ retries: 2, recovered: 1 })),
  "exponential backoff": gives(timesOf(plain, 3), [0, 1, 3, 7]),
  jitter: Effect.gen(function* () {
    const seeded = (seed: string) => Effect.withRandom(timesOf({}, 3), Random.make(seed))
    expect(yield* seeded("a")).not.toEqual(yield* seeded("b"))
  }),
  example: Effect.map(
    attempts({ maxRetries: 3, baseDelay: "1 second", exponentialBase: 2, jitter: true }, 3),
    ({ exit }) => expect(exit).toEqual(Exit.succeed("served"))
  )
})

const { defaults } = RetryConfig

const retried = (error: unknown) => Effect.map(timesOf(plain, 1, error), (times) => expect(times).toHaveLength(2))

rows("RetryConfig", {
  import: Effect.sync(() => expect(RetryConfig.make).toBeTypeOf("function")),
  "max_retries: default 3": gives(Effect.succeed(defaults.maxRetries), 3),
  "max_retries: bounds the retries": Effect.map(timesOf({ ...plain, maxRetries: 1 }, 9), (times) =>
    expect(times).toHaveLength(2)
  ),
  "base_delay: default 1 second": gives(Effect.succeed(Duration.toSeconds(defaults.baseDelay)), 1),
  "base_delay: the first delay": gives(timesOf({ ...plain, baseDelay: "5 seconds" }, 1), [0, 5]),
  "max_delay: default 30 seconds": gives(Effect.succeed(Duration.toSeconds(defaults.maxDelay)), 30),
  "max_delay: the longest delay": gives(timesOf({ ...plain, maxDelay: "2 seconds" }, 3), [0, 1, 3, 5]),
  "exponential_base: default 2": gives(Effect.succeed(defaults.exponentialBase), 2),
  "exponential_base: the growth": gives(timesOf({ ...plain, exponentialBase: 3 }, 3), [0, 1, 4, 13]),
  "jitter: default True": gives(Effect.succeed(defaults.jitter), true),
  "jitter: False": gives(timesOf({ jitter: false }, 1), [0, 1]),
  "retryable_exceptions: ConnectionError": Effect.zipRight(
    retried(lost),
    retried(Object.assign(new Error("refused"), { code: "ECONNREFUSED" }))
  ),
  "retryable_exceptions: TimeoutError": retried(
    new TransportError.TimeoutError({
      phase: "Headers",
      outcome: "Unknown",
      limit: Duration.seconds(1),
      target: "service"
    })
  ),
  "retryable_exceptions: asyncio.TimeoutError": retried(new Cause.TimeoutException()),
  "retryable_exceptions: chosen": Effect.gen(function* () {
    const isRetryable = (error: unknown) => error === "busy"
    expect(yield* timesOf({ ...plain, isRetryable }, 1, "busy")).toHaveLength(2)
    expect(yield* timesOf({ ...plain, isRetryable }, 1, lost)).toHaveLength(1)
    expect(yield* timesOf(plain, 1, "busy")).toHaveLength(1)
  }),
  "ValueError: max_retries": refuses(RetryConfig.make({ maxRetries: -1 }), "RetryConfig", "maxRetries"),
  "ValueError: base_delay": refuses(RetryConfig.make({ baseDelay: -1 }), "RetryConfig", "baseDelay"),
  "ValueError: max_delay": refuses(
    RetryConfig.make({ baseDelay: "2 seconds", maxDelay: "1 second" }),
    "RetryConfig",
    "maxDelay"
  ),
  "ValueError: exponential_base": refuses(RetryConfig.make({ exponentialBase: 0.5 }), "RetryConfig", "exponentialBase"),
  "delay: min(base_delay * exponential_base ^ attempt, max_delay)": Effect.gen(function* () {
    const options = {
      ...plain,
      maxRetries: 8,
      baseDelay: "500 millis",
      exponentialBase: 3,
      maxDelay: "20 seconds"
    } as const
    const times = yield* timesOf(options, 8)
    const delays = times.slice(1).map((time, attempt) => time - (times[attempt] ?? 0))
    expect(delays).toEqual(Array.from({ length: 8 }, (_, attempt) => Math.min(0.5 * 3 ** attempt, 20)))
  }),
  "delay: with jitter between 0 and the calculated value": Effect.gen(function* () {
    for (let seed = 0; seed < 40; seed++) {
      const times = yield* Effect.withRandom(timesOf({}, 3), Random.make(`seed ${seed}`))
      const delays = times.slice(1).map((time, attempt) => time - (times[attempt] ?? 0))
      for (const [attempt, delay] of delays.entries()) {
        expect(delay).toBeGreaterThanOrEqual(0)
        expect(delay).toBeLessThanOrEqual(2 ** attempt)
      }
    }
  })
})
