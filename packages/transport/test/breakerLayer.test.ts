import {
  type AuditEvent,
  AuditLog,
  CircuitBreaker,
  CircuitBreakerConfig,
  CircuitState,
  TransportError,
  TripRule
} from "@agentweave/transport"
import { HttpClient, HttpClientError, HttpClientRequest, HttpClientResponse } from "@effect/platform"
import { assert, describe, expect, it } from "@effect/vitest"
import { Config, ConfigProvider, Context, Effect, Exit, Schema, TestClock } from "effect"

const target = "spiffe://example.org/billing"

class Billing extends Context.Tag("test/Billing")<Billing, CircuitBreaker.CircuitBreaker>() {}

const responding = (status: number) =>
  HttpClientResponse.fromWeb(HttpClientRequest.get("/api"), new Response(null, { status }))

const fail = Effect.flatMap(Billing, (breaker) => Effect.exit(breaker.protect(Effect.fail("down"))))

describe("a breaker as a layer", () => {
  it.effect("is a service of its own tag, and all who use it share its state", () =>
    Effect.gen(function* () {
      yield* fail
      yield* fail
      const error = yield* Effect.flip(
        Effect.flatMap(Billing, (breaker) => CircuitBreaker.withBreaker(Effect.void, breaker))
      )
      assert.strictEqual(error._tag, "CircuitOpenError")
    }).pipe(Effect.provide(CircuitBreaker.layer(Billing, { target, failureThreshold: 2 })))
  )

  it.effect("puts its transitions on record where there is an audit log", () =>
    Effect.gen(function* () {
      const events: Array<AuditEvent.AuditEvent> = []
      yield* Effect.gen(function* () {
        yield* fail
        yield* TestClock.adjust("30 seconds")
        yield* Effect.flatMap(Billing, (breaker) => breaker.reset)
      }).pipe(
        Effect.provide(CircuitBreaker.layer(Billing, { target, failureThreshold: 1 })),
        Effect.provide(AuditLog.layerMemory(events))
      )
      expect(events).toMatchObject([
        { _tag: "CircuitStateChanged", time: 0, target, from: "Closed", to: "Open" },
        { _tag: "CircuitStateChanged", time: 30_000, target, from: "Open", to: "Closed" }
      ])
    })
  )

  it.effect("layerConfig reads its options from Config, and refuses by the same rules", () =>
    Effect.gen(function* () {
      const layer = CircuitBreaker.layerConfig(Billing, {
        target: Config.string("BILLING_ID"),
        failureThreshold: Config.integer("BILLING_FAILURES")
      })
      const config = (failures: string) =>
        Effect.withConfigProvider(
          ConfigProvider.fromMap(
            new Map([
              ["BILLING_ID", target],
              ["BILLING_FAILURES", failures]
            ])
          )
        )
      const made = yield* Billing.pipe(Effect.provide(layer), config("7"))
      assert.strictEqual(made.target, target)
      assert.strictEqual(made.config.failureThreshold, 7)
      const refused = yield* Effect.flip(Billing.pipe(Effect.provide(layer), config("0")))
      assert.deepInclude(refused, { _tag: "InvalidConfigError", field: "failureThreshold" })
    })
  )

  it("the state is a literal of its own module", () => {
    assert.deepStrictEqual([...CircuitState.CircuitState.literals], ["Closed", "Open", "HalfOpen"])
    assert.isTrue(Schema.is(CircuitState.CircuitState)("HalfOpen"))
  })
})

describe("the results that are failures by default", () => {
  const seen: ReadonlyArray<readonly [what: string, effect: Effect.Effect<unknown>]> = [
    ["the response of an HttpClient", Effect.sync(() => responding(503))],
    ["the Response of fetch", Effect.sync(() => new Response(null, { status: 500 }))]
  ]
  for (const [what, effect] of seen) {
    it.effect(`${what} with a status of 500 or above, given to protect or to withBreaker`, () =>
      Effect.gen(function* () {
        const breaker = yield* CircuitBreaker.make({ target, failureThreshold: 20 })
        for (let call = 0; call < 10; call++) yield* breaker.protect(effect)
        for (let call = 0; call < 10; call++) yield* effect.pipe(CircuitBreaker.withBreaker(breaker))
        assert.strictEqual(yield* breaker.state, "Open")
      })
    )
  }

  it.effect("and no other: a 4xx, or a value that only looks like a response", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make({ target, failureThreshold: 1 })
      for (const value of [responding(404), new Response(null, { status: 429 }), { status: 500 }, null, 500, "500"]) {
        yield* breaker.protect(Effect.succeed(value))
      }
      assert.strictEqual(yield* breaker.state, "Closed")
    })
  )

  it.effect("a probe that answers with 503 opens a half-open circuit again", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make({ target, failureThreshold: 1 })
      yield* breaker.protect(Effect.sync(() => responding(503)))
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(yield* breaker.state, "HalfOpen")
      yield* breaker.protect(Effect.sync(() => responding(503)))
      assert.strictEqual(yield* breaker.state, "Open")
    })
  )

  it.effect("a status that the client makes an error counts as the status: a 404 is the caller's", () =>
    Effect.gen(function* () {
      const error = (status: number) =>
        new HttpClientError.ResponseError({
          request: HttpClientRequest.get("/"),
          response: responding(status),
          reason: "StatusCode"
        })
      assert.isTrue(CircuitBreakerConfig.isExcludedByDefault(error(404)))
      assert.isFalse(CircuitBreakerConfig.isExcludedByDefault(error(503)))
    })
  )

  it.effect("withBreaker of a client that fails on bad statuses leaves a 404 out", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make({ target, failureThreshold: 1 })
      const client = HttpClient.makeWith<never, never, never, never>(
        Effect.map((request) => responding(Number(request.url.slice(1)))),
        Effect.succeed
      ).pipe(HttpClient.filterStatusOk, CircuitBreaker.withBreaker(breaker))
      yield* Effect.exit(client.get("/404"))
      assert.deepInclude(yield* breaker.metrics, { state: "Closed", totalExcluded: 1 })
      yield* Effect.exit(client.get("/503"))
      assert.strictEqual(yield* breaker.state, "Open")
    })
  )
})

describe("a trip rule of the caller's", () => {
  const seen: Array<readonly [state: number, outcome: TripRule.CallOutcome, now: number]> = []
  /** Opens when the failures outnumber the successes by three. */
  const balance = TripRule.custom(0, (state, outcome, now) => {
    seen.push([state, outcome, now])
    const next = Math.max(0, state + (outcome.failed ? 1 : -1))
    return [next, next >= 3]
  })
  const run = (breaker: CircuitBreaker.CircuitBreaker, outcomes: string) =>
    Effect.forEach(outcomes, (outcome) =>
      Effect.exit(breaker.protect(outcome === "f" ? Effect.fail("down") : Effect.void))
    )

  it.effect("sees its state, the outcome and the time, and begins anew when the circuit closes", () =>
    Effect.gen(function* () {
      seen.length = 0
      const breaker = yield* CircuitBreaker.make({ target, rule: balance })
      yield* TestClock.adjust("5 seconds")
      yield* run(breaker, "ffsff")
      expect(seen).toEqual([
        [0, { failed: true, duration: 0 }, 5_000],
        [1, { failed: true, duration: 0 }, 5_000],
        [2, { failed: false, duration: 0 }, 5_000],
        [1, { failed: true, duration: 0 }, 5_000],
        [2, { failed: true, duration: 0 }, 5_000]
      ])
      assert.strictEqual(yield* breaker.state, "Open")
      yield* breaker.reset
      yield* run(breaker, "ff")
      assert.strictEqual(yield* breaker.state, "Closed")
      assert.strictEqual(seen[5]?.[0], 0)
    })
  )

  it.effect("is told how long a call took, and does not see what is excluded or interrupted", () =>
    Effect.gen(function* () {
      seen.length = 0
      const breaker = yield* CircuitBreaker.make({ target, rule: balance })
      const slow = yield* Effect.fork(breaker.protect(Effect.sleep("2 seconds")))
      yield* TestClock.adjust("2 seconds")
      yield* slow
      const ended = new TransportError.PoolClosedError({ targetId: target })
      yield* Effect.exit(breaker.protect(Effect.fail(ended)))
      yield* Effect.exit(breaker.protect(Effect.interrupt))
      expect(seen).toEqual([[0, { failed: false, duration: 2_000 }, 2_000]])
    })
  )

  it.effect("can be one of several: the circuit opens as soon as one says so", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make({
        target,
        rule: TripRule.anyOf(TripRule.consecutiveFailures(100), balance)
      })
      yield* run(breaker, "fff")
      assert.strictEqual(yield* breaker.state, "Open")
    })
  )

  it.effect("that throws is a defect of the call, and the breaker goes on", () =>
    Effect.gen(function* () {
      const thrown = new Error("a bad rule")
      const bad = TripRule.custom(0, () => {
        throw thrown
      })
      const breaker = yield* CircuitBreaker.make({ target, rule: bad })
      expect(yield* Effect.exit(breaker.protect(Effect.void))).toEqual(Exit.die(thrown))
      assert.strictEqual(yield* breaker.state, "Closed")
    })
  )

  it.effect("that is no function is refused", () =>
    Effect.gen(function* () {
      const rule = JSON.parse(JSON.stringify({ _tag: "Custom", initial: 0, step: "often" }))
      const error = yield* Effect.flip(CircuitBreaker.make({ target, rule }))
      assert.deepInclude(error, { _tag: "InvalidConfigError", field: "rule.step" })
    })
  )
})
