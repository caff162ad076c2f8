import { RetryBudget, RetryPolicy } from "@agentweave/transport"
import { HttpClient, type HttpClientRequest, HttpClientResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Schema, TestClock } from "effect"

class Busy extends Schema.TaggedError<Busy>()("Busy", {}) {
  readonly isRetryable = true
}

const busy = Effect.fail(new Busy())

/** Requests that succeed: they only bring what they bring. */
const succeed = (policy: RetryPolicy.RetryPolicy<"Budget">, times: number) =>
  Effect.repeatN(policy.retry(Effect.void), times - 1)

describe("RetryBudget", () => {
  it.effect("five requests pay for one retry", () =>
    Effect.gen(function* () {
      const budget = yield* RetryBudget.make({ minRetriesPerSecond: 0 })
      const policy = yield* RetryPolicy.make({ budget, baseDelay: 0 })
      yield* succeed(policy, 4)
      assert.strictEqual(yield* budget.balance, 0)
      yield* succeed(policy, 1)
      assert.strictEqual(yield* budget.balance, 1)
      yield* Effect.flip(policy.retry(busy))
      assert.deepInclude(yield* policy.stats, { retries: 1, overBudget: 1, exhausted: 0 })
      assert.strictEqual(yield* budget.balance, 0)
    })
  )

  it.effect("some retries a second are always allowed: 10, over the ten seconds a retry counts", () =>
    Effect.gen(function* () {
      const budget = yield* RetryBudget.make({ ratio: 0 })
      assert.strictEqual(yield* budget.balance, 100)
      const policy = yield* RetryPolicy.make({ budget, baseDelay: 0, maxRetries: 1_000 })
      yield* Effect.flip(policy.retry(busy))
      assert.strictEqual((yield* policy.stats).retries, 100)
      yield* TestClock.adjust("9 seconds")
      yield* Effect.flip(policy.retry(busy))
      assert.strictEqual((yield* policy.stats).retries, 100)
      yield* TestClock.adjust("1 second")
      yield* Effect.flip(policy.retry(busy))
      assert.strictEqual((yield* policy.stats).retries, 200)
    })
  )

  it.effect("requests are forgotten after ttl, by tenths of it", () =>
    Effect.gen(function* () {
      const budget = yield* RetryBudget.make({ ratio: 1, minRetriesPerSecond: 0, ttl: "1 second" })
      const policy = yield* RetryPolicy.make({ budget })
      yield* succeed(policy, 3)
      yield* TestClock.adjust("500 millis")
      yield* succeed(policy, 2)
      assert.strictEqual(yield* budget.balance, 5)
      yield* TestClock.adjust("499 millis")
      assert.strictEqual(yield* budget.balance, 5)
      yield* TestClock.adjust("1 milli")
      assert.strictEqual(yield* budget.balance, 2)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* budget.balance, 0)
    })
  )

  it.effect("retries are no requests: when all fail, the load grows by the ratio and no more", () =>
    Effect.gen(function* () {
      const budget = yield* RetryBudget.make({ ratio: 0.2, minRetriesPerSecond: 0 })
      const policy = yield* RetryPolicy.make({ budget, baseDelay: 0 })
      yield* Effect.repeatN(Effect.flip(policy.retry(busy)), 999)
      assert.strictEqual((yield* policy.stats).retries, 200)
    })
  )

  it.effect("parts of retries add up to whole ones", () =>
    Effect.gen(function* () {
      // 0.29 * 100 is less than 29 in floating point.
      const budget = yield* RetryBudget.make({ ratio: 0.29, minRetriesPerSecond: 0 })
      yield* Effect.repeatN(budget.deposit, 99)
      assert.strictEqual(yield* budget.balance, 29)
    })
  )

  it.effect("is shared by all policies that have it", () =>
    Effect.gen(function* () {
      const budget = yield* RetryBudget.make({ ratio: 0, minRetriesPerSecond: 0.3 })
      const [reads, writes] = yield* Effect.all([
        RetryPolicy.make({ budget, baseDelay: 0, maxRetries: 2 }),
        RetryPolicy.make({ budget, baseDelay: 0, maxRetries: 2 })
      ])
      yield* Effect.flip(reads.retry(busy))
      yield* Effect.flip(writes.retry(busy))
      assert.deepStrictEqual([(yield* reads.stats).retries, (yield* writes.stats).retries], [2, 1])
      assert.isTrue(RetryBudget.isRetryBudget(budget))
    })
  )

  it.effect("its exhaustion is an error that tells the last one, which can be put back", () =>
    Effect.gen(function* () {
      const budget = yield* RetryBudget.make({ ratio: 0, minRetriesPerSecond: 0.1 })
      const policy = yield* RetryPolicy.make({ budget, baseDelay: 0, target: "spiffe://example.org/billing" })
      const error = yield* Effect.flip(policy.retry(busy))
      assert.instanceOf(error, RetryBudget.RetryBudgetExhaustedError)
      if (error._tag === "RetryBudgetExhaustedError") {
        assert.strictEqual(error.attempts, 2)
        assert.instanceOf(error.lastError, Busy)
        assert.isFalse(error.isRetryable)
        assert.match(
          error.message,
          /^expected retries within the budget for spiffe:\/\/example\.org\/billing, it is used up after attempt 2: /
        )
      }
      const putBack = policy
        .retry(busy)
        .pipe(Effect.catchTag("RetryBudgetExhaustedError", ({ lastError }) => Effect.fail(lastError)))
      assert.strictEqual((yield* Effect.flip(putBack))._tag, "Busy")
    })
  )

  it.effect("an error that is not retried, or not any more, is what it is", () =>
    Effect.gen(function* () {
      const budget = yield* RetryBudget.make({ ratio: 0, minRetriesPerSecond: 0 })
      const policy = yield* RetryPolicy.make({ budget, isRetryable: (error) => error === "retry" })
      assert.strictEqual(yield* Effect.flip(policy.retry(Effect.fail("not"))), "not")
      const last = yield* RetryPolicy.make({ budget, maxRetries: 0 })
      assert.strictEqual((yield* Effect.flip(last.retry(busy)))._tag, "Busy")
    })
  )

  it.effect("a response that would have been retried is returned as it is", () =>
    Effect.gen(function* () {
      const budget = yield* RetryBudget.make({ ratio: 0, minRetriesPerSecond: 0 })
      const policy = yield* RetryPolicy.make({ budget })
      const client = HttpClient.makeWith<never, never, never, never>(
        Effect.map((request: HttpClientRequest.HttpClientRequest) =>
          HttpClientResponse.fromWeb(request, new Response(null, { status: 503 }))
        ),
        Effect.succeed
      )
      assert.strictEqual((yield* RetryPolicy.withRetry(client, policy).get("/")).status, 503)
      assert.strictEqual((yield* policy.stats).overBudget, 1)
    })
  )

  it.effect("refuses what makes no sense", () =>
    Effect.gen(function* () {
      for (const [options, message] of [
        [{ ratio: -1 }, "ratio: expected a number of at least 0 and at most 1000, got -1"],
        [
          { minRetriesPerSecond: -1 },
          "minRetriesPerSecond: expected a number of at least 0 and at most 1000000, got -1"
        ],
        [{ ttl: 0 }, "ttl: expected a positive, finite duration, got 0"]
      ] as const) {
        const made = yield* Effect.either(RetryBudget.make(options))
        assert.strictEqual(Either.getOrThrow(Either.flip(made)).message, `RetryBudget.${message}`)
      }
    })
  )
})
