import { RetryConfig, RetryPolicy } from "@agentweave/transport"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Either } from "effect"

describe("RetryConfig", () => {
  const refusals: ReadonlyArray<readonly [options: unknown, message: string]> = [
    [{ maxRetries: -1 }, "maxRetries: expected an integer of at least 0, got -1"],
    [{ baseDelay: "forever" }, 'baseDelay: expected a duration such as "30 seconds", got "forever"'],
    [{ baseDelay: Number.POSITIVE_INFINITY }, "baseDelay: expected a finite duration, got Infinity"],
    [{ baseDelay: "1 minute" }, "maxDelay: expected at least baseDelay 1m, got 30s"],
    [{ maxDelay: "25 days" }, "maxDelay: expected at most 24d 20h 31m 23s 647ms, got 25d"],
    [{ exponentialBase: 0.9 }, "exponentialBase: expected a number of at least 1, got 0.9"],
    [{ jitter: "yes" }, 'jitter: expected true or false, got "yes"'],
    [{ isRetryable: true }, "isRetryable: expected a function, got boolean"],
    [{ statuses: [503, 5] }, "statuses.1: expected an integer of at least 100 and at most 599, got 5"],
    [{ attemptTimeout: 0 }, "attemptTimeout: expected a positive, finite duration, got 0"],
    [
      { attemptTimeout: "2 seconds", totalTimeout: "1 second" },
      "totalTimeout: expected at least attemptTimeout 2s, got 1s"
    ]
  ]
  for (const [options, message] of refusals) {
    it(`refuses ${JSON.stringify(options)}`, () => {
      const refusal = Either.flip(RetryConfig.make(options as RetryConfig.Options))
      assert.strictEqual(Either.getOrThrow(refusal).message, `RetryConfig.${message}`)
    })
  }

  it("has the documented defaults", () => {
    const { baseDelay, exponentialBase, jitter, maxDelay, maxRetries } = RetryConfig.defaults
    assert.deepStrictEqual(
      [maxRetries, Duration.toSeconds(baseDelay), Duration.toSeconds(maxDelay), exponentialBase, jitter],
      [3, 1, 30, 2, true]
    )
    assert.deepStrictEqual(RetryConfig.defaults.statuses, [408, 429, 502, 503, 504])
    assert.deepStrictEqual(Either.getOrThrow(RetryConfig.make({})), RetryConfig.defaults)
  })

  it.effect("can be read from Config", () =>
    Effect.gen(function* () {
      const config = yield* RetryConfig.config
      assert.strictEqual(config.maxRetries, 7)
      assert.strictEqual(config.jitter, false)
      assert.strictEqual(Duration.toMillis(config.baseDelay), 50)
    }).pipe(
      Effect.withConfigProvider(
        ConfigProvider.fromMap(new Map(Object.entries({ maxRetries: "7", jitter: "false", baseDelay: "50 millis" })))
      )
    )
  )

  it.effect("a refused configuration makes no policy", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(RetryPolicy.make({ maxRetries: -1 }))
      assert.strictEqual(error._tag, "InvalidConfigError")
    })
  )
})
