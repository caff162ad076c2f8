import { IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority, TestConnector } from "@agentweave/testkit"
import {
  AuditLog,
  CircuitBreaker,
  CircuitBreakerRegistry,
  ConnectionPool,
  type Connector,
  IdentityMonitor,
  InvalidConfigError,
  PeerDirectory,
  RetryBudget,
  RetryConfig,
  RetryPolicy,
  SecureChannel,
  Transport,
  TransportConfig
} from "@agentweave/transport"
import { HttpServerResponse } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Fiber, Layer, Schedule, type Scope, TestClock } from "effect"

const api = "spiffe://example.org/api"

const services = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const connector = yield* TestConnector.make()
  const layer = Layer.mergeAll(
    connector.layer,
    PeerDirectory.layerStatic({ [api]: "https://api.test" }),
    AuditLog.layerMemory([])
  ).pipe(
    Layer.provideMerge(AuditLog.layerMemory([])),
    Layer.provideMerge(IdentityProvider.layerStatic(yield* authority.context({ path: "/web" })))
  )
  return { ...connector, layer }
})

type Needs = Connector.Connector | IdentityProvider.IdentityProvider | PeerDirectory.PeerDirectory | AuditLog.AuditLog

type Maker = (options: object) => Effect.Effect<unknown, unknown, Needs | Scope.Scope>

/** Everything of this package that takes options, made from options that may be anything. */
const makers = {
  RetryPolicy: (options: object) => RetryPolicy.make(options),
  RetryBudget: (options: object) => RetryBudget.make(options),
  CircuitBreaker: (options: object) => CircuitBreaker.make({ target: api, ...options }),
  CircuitBreakerRegistry: (options: object) => Layer.build(CircuitBreakerRegistry.layer(options)),
  ConnectionPool: (options: object) => Layer.build(ConnectionPool.layer(options)),
  Transport: (options: object) => Layer.build(Transport.layer(options)),
  SecureChannel: (options: object) => SecureChannel.make({ peer: api, ...options }),
  IdentityMonitor: (options: object) => IdentityMonitor.make(options)
} satisfies Record<string, Maker>

const notNegative = (got: string) => `expected a duration that is not negative, got ${got}`
const noDuration = (got: string) => `expected a duration such as "30 seconds", got ${got}`

const refusals: ReadonlyArray<readonly [of: keyof typeof makers, options: object, field: string, description: string]> =
  [
    ["RetryPolicy", { baseDelay: -1 }, "baseDelay", notNegative("-1")],
    ["RetryPolicy", { baseDelay: Number.NaN }, "baseDelay", notNegative("NaN")],
    ["RetryPolicy", { baseDelay: "-5 seconds" }, "baseDelay", notNegative('"-5 seconds"')],
    ["RetryPolicy", { baseDelay: [-1, 0] }, "baseDelay", notNegative("[-1, 0]")],
    ["RetryPolicy", { baseDelay: -1n }, "baseDelay", notNegative("-1")],
    ["RetryPolicy", { baseDelay: "soon" }, "baseDelay", noDuration('"soon"')],
    ["RetryPolicy", { baseDelay: null }, "baseDelay", noDuration("null")],
    ["RetryPolicy", { maxretries: 3 }, "maxretries", "expected no field of this name"],
    ["RetryPolicy", { budget: {} }, "budget", "expected a RetryBudget, got object"],
    ["RetryPolicy", { target: "" }, "target", "expected a text, got an empty one"],
    ["RetryBudget", { ttl: "-1 seconds" }, "ttl", notNegative('"-1 seconds"')],
    ["RetryBudget", { ration: 1 }, "ration", "expected no field of this name"],
    ["CircuitBreaker", { timeout: -30 }, "timeout", notNegative("-30")],
    ["CircuitBreaker", { target: 7 }, "target", "expected a text, got 7"],
    ["CircuitBreaker", { threshold: 5 }, "threshold", "expected no field of this name"],
    ["CircuitBreakerRegistry", { cleanupInterval: "-1 minutes" }, "cleanupInterval", notNegative('"-1 minutes"')],
    ["CircuitBreakerRegistry", { failureTreshold: 5 }, "failureTreshold", "expected no field of this name"],
    ["CircuitBreakerRegistry", { forTarget: api }, "forTarget", "expected a function, got string"],
    ["ConnectionPool", { acquireTimeout: -1 }, "acquireTimeout", notNegative("-1")],
    ["ConnectionPool", { maxConnections: 5 }, "maxConnections", "expected no field of this name"],
    ["ConnectionPool", { healthCheck: "/health" }, "healthCheck", "expected a function, got string"],
    ["ConnectionPool", { transport: { timeout: "soon" } }, "timeout", noDuration('"soon"')],
    ["Transport", { pool: { idleTimeout: -1 } }, "idleTimeout", notNegative("-1")],
    ["Transport", { retries: {} }, "retries", "expected no field of this name"],
    ["Transport", { retry: { attemptTimeout: 0 } }, "attemptTimeout", "expected a positive, finite duration, got 0"],
    [
      "Transport",
      { pool: { transport: { retry: { maxRetries: 1 } } } },
      "pool.transport.retry",
      "expected the retries in the field retry alone"
    ],
    ["SecureChannel", { config: { timeout: -1 } }, "timeout", notNegative("-1")],
    ["SecureChannel", { config: { retry: { baseDelay: -1 } } }, "retry.baseDelay", notNegative("-1")],
    ["SecureChannel", { config: { retries: 3 } }, "retries", "expected no field of this name"],
    ["SecureChannel", { baseURL: "https://api.test" }, "baseURL", "expected no field of this name"],
    ["IdentityMonitor", { interval: "soon" }, "interval", noDuration('"soon"')],
    ["IdentityMonitor", { interval: -1 }, "interval", notNegative("-1")]
  ]

describe("options that break a rule are refused with the name of the field", () => {
  for (const [of, options, field, description] of refusals) {
    it.scoped(
      `${of}: ${JSON.stringify(options, (_, value) => (typeof value === "bigint" ? `${value}n` : value))}`,
      () =>
        Effect.gen(function* () {
          const { layer } = yield* services
          const make: Maker = makers[of]
          const error = yield* Effect.flip(Effect.scoped(Effect.provide(make(options), layer)))
          expect(error).toBeInstanceOf(InvalidConfigError.InvalidConfigError)
          expect(error).toMatchObject({ field })
          expect((error as InvalidConfigError.InvalidConfigError).description).toContain(description)
        })
    )
  }
})

describe("options from Config", () => {
  const read = (entries: Record<string, string>) =>
    Effect.withConfigProvider(TransportConfig.config, ConfigProvider.fromMap(new Map(Object.entries(entries))))

  it.effect("a channel's retries are read from the part retry", () =>
    Effect.gen(function* () {
      const config = yield* read({ timeout: "5 seconds", "retry.maxRetries": "7", "retry.statuses": "500, 503" })
      expect(config.retry).toBeInstanceOf(RetryConfig.RetryConfig)
      expect(config.retry).toMatchObject({ maxRetries: 7, statuses: [500, 503], baseDelay: Duration.seconds(1) })
    })
  )

  it.effect("without the part retry a channel has no retries", () =>
    Effect.gen(function* () {
      expect((yield* read({ timeout: "5 seconds" })).retry).toBeUndefined()
    })
  )

  it.effect("a negative duration is refused, and not taken for zero", () =>
    Effect.gen(function* () {
      const provider = ConfigProvider.fromMap(new Map([["baseDelay", "-5 seconds"]]))
      const error = yield* Effect.flip(Effect.withConfigProvider(RetryConfig.config, provider))
      expect(String(error)).toContain("baseDelay")
      expect(String(error)).toContain("not negative")
      expect(String(yield* Effect.flip(read({ "retry.baseDelay": "soon" })))).toContain("expected a duration such as")
    })
  )
})

describe("the retries of a pool's transport", () => {
  const flaky = (use: (pool: ConnectionPool.ConnectionPool["Type"]) => Effect.Effect<number, unknown>) =>
    Effect.gen(function* () {
      const { layer, setHandler } = yield* services
      let answered = 0
      yield* setHandler(() => Effect.sync(() => HttpServerResponse.empty({ status: ++answered < 3 ? 503 : 200 })))
      const pool = ConnectionPool.layer({ transport: { retry: { maxRetries: 2, baseDelay: 0 } } })
      expect(
        yield* Effect.provide(Effect.flatMap(ConnectionPool.ConnectionPool, use), Layer.provide(pool, layer))
      ).toBe(200)
      expect(answered).toBe(3)
    })

  it.scoped("are those of its clients", () =>
    flaky((pool) => Effect.map(pool.client(api).get("/"), ({ status }) => status))
  )

  it.scoped("are those of its leased channels, on the connection that is leased", () =>
    flaky((pool) => pool.withChannel(api, (channel) => Effect.map(channel.get("/"), ({ status }) => status)))
  )
})

describe("a Schedule of the caller's as the retries of a channel", () => {
  const flaky = (retry: TransportConfig.Options["retry"]) =>
    Effect.gen(function* () {
      const { layer, setHandler } = yield* services
      let answered = 0
      yield* setHandler(() => Effect.sync(() => HttpServerResponse.empty({ status: ++answered < 5 ? 503 : 200 })))
      const channel = SecureChannel.make({ peer: api, baseUrl: "https://api.test", config: { retry } })
      const fiber = yield* Effect.fork(
        Effect.provide(Effect.scoped(Effect.flatMap(channel, (made) => made.get("/"))), layer)
      )
      yield* TestClock.adjust("1 minute")
      const { status } = yield* Fiber.join(fiber)
      return { status, answered }
    })

  it.scoped("says when and how often", () =>
    Effect.gen(function* () {
      const spaced = Schedule.intersect(Schedule.spaced("3 seconds"), Schedule.recurs(2))
      expect(yield* flaky(spaced)).toEqual({ status: 503, answered: 3 })
    })
  )

  it.scoped("may be a RetryPolicy, which brings its configuration with it", () =>
    Effect.gen(function* () {
      expect(yield* flaky(yield* RetryPolicy.make({ maxRetries: 4, baseDelay: 0 }))).toEqual({
        status: 200,
        answered: 5
      })
      expect(yield* flaky(yield* RetryPolicy.make({ maxRetries: 4, statuses: [500] }))).toEqual({
        status: 503,
        answered: 1
      })
    })
  )

  it.scoped("is refused when it is a policy with a budget, because a channel has no error for it", () =>
    Effect.gen(function* () {
      const budget = yield* RetryBudget.make()
      expect(yield* Effect.flip(flaky(yield* RetryPolicy.make({ budget })))).toMatchObject({
        _tag: "InvalidConfigError",
        config: "TransportConfig",
        field: "retry"
      })
    })
  )
})
