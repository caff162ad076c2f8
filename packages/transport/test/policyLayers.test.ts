import { RetryBudget, RetryConfig, RetryPolicy, TransportError } from "@agentweave/transport"
import { describe, expect, it } from "@effect/vitest"
import { Config, ConfigProvider, Context, Duration, Effect, Schedule } from "effect"

class Reads extends Context.Tag("test/Reads")<Reads, RetryPolicy.RetryPolicy<RetryPolicy.Limit>>() {}
class Budget extends Context.Tag("test/Budget")<Budget, RetryBudget.RetryBudget>() {}

const lost = new TransportError.ConnectionError({
  reason: "Lost",
  outcome: "Unknown",
  address: "10.0.0.1:443",
  description: "gone"
})

const from = (entries: Record<string, string>) =>
  Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(entries))))

describe("a retry policy as a layer", () => {
  it.effect("is a service of its own tag, and all who use it share its counts", () =>
    Effect.gen(function* () {
      const reads = yield* Reads
      yield* Effect.exit(reads.retry(Effect.fail(lost)))
      yield* Effect.exit(RetryPolicy.withRetry(Effect.fail(lost), yield* Reads))
      expect(yield* reads.stats).toMatchObject({ retries: 4, exhausted: 2 })
    }).pipe(Effect.provide(RetryPolicy.layer(Reads, { maxRetries: 2, baseDelay: 0, totalTimeout: "10 seconds" })))
  )

  it.effect("can be a Schedule of the caller's", () =>
    Effect.gen(function* () {
      yield* Effect.exit((yield* Reads).retry(Effect.fail(lost)))
      expect(yield* (yield* Reads).stats).toMatchObject({ retries: 5 })
    }).pipe(Effect.provide(RetryPolicy.layer(Reads, Schedule.recurs(5))))
  )

  it.effect("refuses options that break a rule", () =>
    Effect.gen(function* () {
      const layer = RetryPolicy.layer(Reads, { baseDelay: "2 minutes", maxDelay: "1 minute" })
      expect(yield* Effect.flip(Effect.provide(Reads, layer))).toMatchObject({
        _tag: "InvalidConfigError",
        field: "maxDelay"
      })
    })
  )

  it.effect("layerConfig takes a whole RetryConfig, or single fields, from Config", () =>
    Effect.gen(function* () {
      const whole = RetryPolicy.layerConfig(Reads, Config.nested(RetryConfig.config, "READS"))
      const { config } = yield* Reads.pipe(
        Effect.provide(whole),
        from({ "READS.maxRetries": "7", "READS.totalTimeout": "9 seconds" })
      )
      expect(config).toMatchObject({ maxRetries: 7, totalTimeout: Duration.seconds(9) })
      const fields = RetryPolicy.layerConfig(Reads, { maxRetries: Config.integer("READ_RETRIES") })
      const read = yield* Reads.pipe(Effect.provide(fields), from({ READ_RETRIES: "4" }))
      expect(read.config.maxRetries).toBe(4)
      const refused = yield* Effect.flip(Reads.pipe(Effect.provide(fields), from({ READ_RETRIES: "-4" })))
      expect(refused).toMatchObject({ _tag: "InvalidConfigError", field: "maxRetries" })
    })
  )
})

describe("a retry budget as a layer", () => {
  it.effect("is one budget for all policies that take it", () =>
    Effect.gen(function* () {
      const budget = yield* Budget
      const policies = yield* Effect.all([
        RetryPolicy.make({ baseDelay: 0, budget }),
        RetryPolicy.make({ baseDelay: 0, budget: yield* Budget })
      ])
      const errors = yield* Effect.forEach(policies, (policy) => Effect.flip(policy.retry(Effect.fail(lost))))
      expect(errors.map(({ _tag }) => _tag)).toEqual(["RetryBudgetExhaustedError", "RetryBudgetExhaustedError"])
      const stats = yield* Effect.forEach(policies, (policy) => policy.stats)
      expect(stats.map(({ retries }) => retries)).toEqual([2, 0])
    }).pipe(Effect.provide(RetryBudget.layer(Budget, { ratio: 0, minRetriesPerSecond: 0.2 })))
  )

  it.effect("layerConfig reads its options from Config", () =>
    Effect.gen(function* () {
      const layer = RetryBudget.layerConfig(Budget, {
        minRetriesPerSecond: Config.number("RETRIES"),
        ttl: Config.succeed("1 minute")
      })
      expect(yield* Effect.flatMap(Budget, (_) => _.balance).pipe(Effect.provide(layer), from({ RETRIES: "2" }))).toBe(
        120
      )
    })
  )
})
