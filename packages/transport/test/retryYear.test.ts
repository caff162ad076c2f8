import { CircuitBreaker, RetryPolicy, TransportError } from "@agentweave/transport"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, TestClock } from "effect"
import { quicken } from "../../spiffe/test/support/quickTestClock.js"

const lost = new TransportError.ConnectionError({
  reason: "Lost",
  outcome: "Unknown",
  address: "10.0.0.1:443",
  description: "the connection was lost"
})

describe("a year under TestClock", () => {
  it.effect("of breaker cycles and retries takes less than a second, and nothing drifts", () =>
    Effect.gen(function* () {
      yield* quicken
      const target = { target: "a", failureThreshold: 1, successThreshold: 1, timeout: "12 hours" } as const
      const breaker = yield* CircuitBreaker.make(target)
      const policy = yield* RetryPolicy.make({ jitter: false, baseDelay: "1 hour", maxDelay: "1 hour" })
      let day = 0
      const works = () => day % 73 === 0
      const call = policy.retry(breaker.protect(Effect.suspend(() => (works() ? Effect.void : Effect.fail(lost)))))
      // Each call is a probe; when it fails, its retry an hour later meets an open breaker.
      const year = Effect.gen(function* () {
        for (; day < 365; day += 2) {
          yield* Effect.fork(call)
          yield* Effect.sleep("2 days")
        }
      })
      const before = process.cpuUsage()
      const fiber = yield* Effect.fork(year)
      yield* TestClock.adjust("366 days")
      yield* Fiber.join(fiber)
      const { system, user } = process.cpuUsage(before)
      assert.isBelow((user + system) / 1_000_000, 1, "seconds")
      const stats = yield* policy.stats
      assert.deepInclude(stats, { retries: 180, notRetryable: 180, recovered: 0, exhausted: 0 })
      assert.strictEqual(Duration.toHours(stats.delayed), 180)
      const metrics = yield* breaker.metrics
      assert.deepInclude(metrics, {
        state: "HalfOpen",
        totalCalls: 183,
        totalFailures: 180,
        totalSuccesses: 3,
        totalRejected: 180,
        totalOpened: 180
      })
      assert.strictEqual(metrics.lastStateChange.epochMillis, 364.5 * 86_400_000)
    })
  )
})
