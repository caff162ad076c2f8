import { InvalidConfigError, PoolConfig } from "@agentweave/transport"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Either, Schema } from "effect"

const refusal = (options: unknown): string =>
  Either.match(PoolConfig.make(options as PoolConfig.Options), {
    onLeft: (error) => {
      assert.instanceOf(error, InvalidConfigError.InvalidConfigError)
      return error.message
    },
    onRight: () => "accepted"
  })

describe("PoolConfig", () => {
  it("has the documented defaults", () => {
    const { acquireTimeout, cleanupInterval, healthCheckInterval, idleTimeout, ...rest } = PoolConfig.defaults
    assert.deepStrictEqual(
      [idleTimeout, healthCheckInterval, cleanupInterval, acquireTimeout].map((_) => Duration.toSeconds(_)),
      [60, 30, 10, 0]
    )
    assert.deepStrictEqual(
      { ...rest },
      {
        maxConnectionsPerTarget: 10,
        maxTotalConnections: 100,
        maxWaiting: 1_000
      }
    )
  })

  it("refuses what breaks a rule, with the field and the rule", () => {
    const integer = "expected an integer of at least 1 and at most 65535"
    const rows: ReadonlyArray<readonly [object, string]> = [
      [{ maxConnectionsPerTarget: 0 }, `PoolConfig.maxConnectionsPerTarget: ${integer}, got 0`],
      [{ maxConnectionsPerTarget: 1.5 }, `PoolConfig.maxConnectionsPerTarget: ${integer}, got 1.5`],
      [{ maxTotalConnections: -1 }, `PoolConfig.maxTotalConnections: ${integer}, got -1`],
      [
        { maxConnectionsPerTarget: 5, maxTotalConnections: 4 },
        "PoolConfig.maxTotalConnections: expected at least maxConnectionsPerTarget 5, got 4"
      ],
      [{ idleTimeout: 0 }, "PoolConfig.idleTimeout: expected a positive, finite duration, got 0"],
      [
        { idleTimeout: Number.POSITIVE_INFINITY },
        "PoolConfig.idleTimeout: expected a positive, finite duration, got Infinity"
      ],
      [
        { healthCheckInterval: "never" },
        'PoolConfig.healthCheckInterval: expected a duration such as "30 seconds", got "never"'
      ],
      [{ cleanupInterval: 0 }, "PoolConfig.cleanupInterval: expected a positive, finite duration, got 0"],
      [
        { acquireTimeout: Number.POSITIVE_INFINITY },
        "PoolConfig.acquireTimeout: expected a finite duration, got Infinity"
      ],
      [{ maxWaiting: 0 }, "PoolConfig.maxWaiting: expected an integer of at least 1, got 0"],
      [{ maxLifetime: 0 }, "PoolConfig.maxLifetime: expected a positive, finite duration, got 0"],
      [{ leakThreshold: 0 }, "PoolConfig.leakThreshold: expected a positive, finite duration, got 0"]
    ]
    for (const [options, message] of rows) assert.strictEqual(refusal(options), message)
    assert.strictEqual(refusal({ acquireTimeout: 0, maxConnectionsPerTarget: 4, maxTotalConnections: 4 }), "accepted")
  })

  it.effect("is read from Config by the same rules", () =>
    Effect.gen(function* () {
      const read = (entries: Record<string, string>) =>
        Effect.withConfigProvider(PoolConfig.config, ConfigProvider.fromMap(new Map(Object.entries(entries))))
      const config = yield* read({ maxConnectionsPerTarget: "3", acquireTimeout: "2 seconds", maxLifetime: "1 hour" })
      assert.deepInclude(config, { maxConnectionsPerTarget: 3, maxTotalConnections: 100 })
      assert.strictEqual(Duration.toSeconds(config.acquireTimeout), 2)
      assert.deepStrictEqual(config.maxLifetime, Duration.hours(1))
      assert.include(String(yield* Effect.flip(read({ maxTotalConnections: "0" }))), "maxTotalConnections")
    })
  )

  it("has a JSON form that reads back equal", () => {
    const config = Either.getOrThrow(PoolConfig.make({ idleTimeout: "5 seconds", leakThreshold: "1 minute" }))
    const json = JSON.parse(JSON.stringify(Schema.encodeSync(PoolConfig.PoolConfig)(config)))
    assert.deepStrictEqual(Schema.decodeSync(PoolConfig.PoolConfig)(json), config)
  })
})
