import { RetryPolicy } from "@agentweave/transport"
import { assert, describe, it } from "@effect/vitest"
import { Effect, TestClock } from "effect"
import { finish, plain, scripted } from "./scriptedClient.js"

describe("withRetry and Retry-After", () => {
  it.effect("Retry-After prolongs the delay, up to maxDelay, and never shortens it", () =>
    Effect.gen(function* () {
      const at = Date.UTC(2026, 0, 31, 12)
      for (const [header, delay] of [
        ["5", 5],
        [" 5 ", 5],
        ["31", 30],
        ["0", 1],
        ["-5", 1],
        ["5.5", 1],
        ["soon", 1],
        ["Sat, 31 Jan 2026 12:00:20 GMT", 20],
        ["Saturday, 31-Jan-26 12:00:20 GMT", 20],
        ["Sat Jan 31 12:00:20 2026", 20],
        ["Sat, 31 Jan 2026 13:00:00 GMT", 30],
        ["Sat, 31 Jan 2026 11:59:00 GMT", 1],
        ["Sunday, 01-Feb-75 00:00:00 GMT", 30],
        ["Sunday, 01-Feb-76 00:00:00 GMT", 30],
        ["Saturday, 01-Feb-77 00:00:00 GMT", 1]
      ] as const) {
        yield* TestClock.setTime(at)
        const { client, times } = scripted({ status: 429, headers: { "Retry-After": header } }, 200)
        yield* finish(RetryPolicy.withRetry(client, yield* plain).get("/"), "1 hour")
        assert.deepStrictEqual(
          times.map((time) => time - at / 1_000),
          [0, delay],
          header
        )
      }
    })
  )

  it.effect("a Retry-After below the delay does not shorten it", () =>
    Effect.gen(function* () {
      const { client, times } = scripted({ status: 503, headers: { "retry-after": "1" } })
      yield* finish(RetryPolicy.withRetry(client, yield* plain).get("/"))
      assert.deepStrictEqual(times, [0, 1, 3, 7])
    })
  )

  it.effect("Retry-After is honoured without a delay of our own, however often", () =>
    Effect.gen(function* () {
      const options = { baseDelay: 0, exponentialBase: 1e15, maxRetries: 40 }
      const { client, times } = scripted({ status: 503, headers: { "retry-after": "1" } })
      yield* finish(RetryPolicy.withRetry(client, yield* RetryPolicy.make(options)).get("/"))
      assert.deepStrictEqual(
        times,
        Array.from({ length: 41 }, (_, i) => i)
      )
    })
  )

  it.effect("a date in Retry-After is compared with the wall clock, and a deadline is kept by the monotonic one", () =>
    Effect.gen(function* () {
      const policy = yield* RetryPolicy.make({ jitter: false, totalTimeout: "10 seconds" })
      for (const [header, attempts] of [
        ["9", 2],
        ["10", 1]
      ] as const) {
        const { client, times } = scripted({ status: 503, headers: { "retry-after": header } }, 200)
        const response = yield* finish(RetryPolicy.withRetry(client, policy).get("/"))
        assert.strictEqual(times.length, attempts)
        assert.strictEqual(response.status, attempts === 1 ? 503 : 200)
      }
    })
  )
})
