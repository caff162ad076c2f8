import { CircuitBreaker, CircuitBreakerConfig } from "@agentweave/transport"
import { HttpClient, HttpClientRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Either } from "effect"
import { client, play, target } from "./breakerCalls.js"

describe("CircuitBreaker: its combinators", () => {
  it.effect("protect is dual, and isFailure of a call goes before that of the breaker", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make({ target, failureThreshold: 1 })
      assert.strictEqual(yield* CircuitBreaker.protect(Effect.succeed(1), breaker), 1)
      assert.strictEqual(yield* Effect.succeed(2).pipe(CircuitBreaker.protect(breaker)), 2)
      assert.strictEqual(yield* CircuitBreaker.protect(Effect.succeed(3), breaker, { isFailure: (n) => n > 3 }), 3)
      yield* play(breaker, "=closed")
      yield* Effect.succeed(4).pipe(CircuitBreaker.protect(breaker, { isFailure: (n: number) => n > 3 }))
      yield* play(breaker, "=open")
      assert.isTrue(CircuitBreaker.isCircuitBreaker(breaker))
    })
  )

  it.effect("withBreaker keeps the client's pipeline, and leaves out what it does before the request", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make({ target, failureThreshold: 1 })
      const wrapped = client.pipe(
        HttpClient.mapRequestEffect((request) =>
          request.url === "/token" ? Effect.fail("no token" as const) : Effect.succeed(request)
        ),
        CircuitBreaker.withBreaker(breaker),
        HttpClient.mapRequest(HttpClientRequest.setHeader("x-late", "1")),
        HttpClient.tap((response) => Effect.sync(() => assert.strictEqual(response.request.headers["x-late"], "1")))
      )
      assert.strictEqual(yield* Effect.flip(wrapped.get("/token")), "no token")
      yield* play(breaker, "=closed")
      assert.strictEqual((yield* wrapped.post("/204")).status, 204)
      assert.strictEqual((yield* wrapped.get("/500")).status, 500)
      yield* play(breaker, "=open")
      assert.deepInclude(yield* Effect.flip(wrapped.get("/200")), { _tag: "CircuitOpenError" })
    })
  )
})

describe("CircuitBreakerConfig", () => {
  const refusals: ReadonlyArray<readonly [options: unknown, message: string]> = [
    [{ failureThreshold: 0 }, "failureThreshold: expected an integer of at least 1, got 0"],
    [{ successThreshold: 1.5 }, "successThreshold: expected an integer of at least 1, got 1.5"],
    [{ timeout: 0 }, "timeout: expected a positive, finite duration, got 0"],
    [{ timeout: "soon" }, 'timeout: expected a duration such as "30 seconds", got "soon"'],
    [{ timeoutMultiplier: 0.5 }, "timeoutMultiplier: expected a number of at least 1 and at most 1000, got 0.5"],
    [{ timeout: "2 minutes", maxTimeout: "1 minute" }, "maxTimeout: expected at least timeout 2m, got 1m"],
    [{ halfOpenMaxCalls: 0 }, "halfOpenMaxCalls: expected an integer of at least 1, got 0"],
    [{ isExcluded: "all" }, "isExcluded: expected a function, got string"],
    [{ isFailure: 5 }, "isFailure: expected a function, got number"]
  ]
  for (const [options, message] of refusals) {
    it(`refuses ${JSON.stringify(options)}`, () => {
      const refusal = Either.flip(CircuitBreakerConfig.make(options as CircuitBreakerConfig.Options))
      assert.strictEqual(Either.getOrThrow(refusal).message, `CircuitBreakerConfig.${message}`)
    })
  }

  it("has the documented defaults", () => {
    const { failureThreshold, successThreshold, timeout } = CircuitBreakerConfig.defaults
    assert.deepStrictEqual([failureThreshold, successThreshold, Duration.toSeconds(timeout)], [5, 2, 30])
    assert.deepStrictEqual(Either.getOrThrow(CircuitBreakerConfig.make({})), CircuitBreakerConfig.defaults)
  })

  it.effect("can be read from Config", () =>
    Effect.gen(function* () {
      const config = yield* CircuitBreakerConfig.config
      assert.strictEqual(config.failureThreshold, 3)
      assert.strictEqual(Duration.toSeconds(config.timeout), 5)
      assert.strictEqual(config.successThreshold, 2)
    }).pipe(
      Effect.withConfigProvider(
        ConfigProvider.fromMap(
          new Map([
            ["failureThreshold", "3"],
            ["timeout", "5 seconds"]
          ])
        )
      )
    )
  )

  it.effect("a refused configuration makes no breaker", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(CircuitBreaker.make({ target, failureThreshold: -1 }))
      assert.strictEqual(error._tag, "InvalidConfigError")
    })
  )
})
