import { CircuitBreaker, RetryPolicy, SecureChannel, TransportError } from "@agentweave/transport"
import { HttpClient } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Scope } from "effect"
import { FakeWire, identity } from "./fakeConnector.js"
import { a, hold, peek, setup, tag as tagOf } from "./fakePool.js"

type Client = HttpClient.HttpClient.With<
  TransportError.TransportError | TransportError.ConnectionPoolError | { readonly _tag: string }
>

const channelIn = (scope: Scope.Scope, options: Partial<SecureChannel.Options> = {}) =>
  SecureChannel.make({ peer: a, baseUrl: "https://a.test", ...options }).pipe(
    Scope.extend(scope),
    Effect.provide(Layer.merge(new FakeWire().layer, identity))
  )

/** Clients whose scope has ended, and how a request through them fails. */
const ended: ReadonlyArray<
  readonly [name: string, client: Effect.Effect<Client, unknown>, tag: string, reason: string | undefined]
> = [
  [
    "a channel of its own",
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const channel = yield* channelIn(scope)
      yield* channel.get("/")
      yield* Scope.close(scope, Exit.void)
      return channel
    }),
    "ScopeClosedError",
    "Channel"
  ],
  [
    "a channel that was leased with acquire",
    Effect.gen(function* () {
      const { pool } = yield* setup()
      const { channel, end } = yield* hold(pool, a)
      yield* end
      return channel
    }),
    "ScopeClosedError",
    "Lease"
  ],
  [
    "a channel that was leased with withChannel",
    Effect.flatMap(setup(), ({ pool }) => pool.withChannel(a, Effect.succeed)),
    "ScopeClosedError",
    "Lease"
  ],
  [
    "a leased channel whose pool has ended",
    Effect.gen(function* () {
      const { close, pool } = yield* setup()
      const { channel } = yield* hold(pool, a)
      yield* close
      return channel
    }),
    "ScopeClosedError",
    "Pool"
  ],
  [
    "a client of a pool that has ended",
    Effect.flatMap(setup(), ({ close, pool }) => Effect.as(close, pool.client(a))),
    "PoolClosedError",
    undefined
  ]
]

describe("a request through a client whose scope has ended", () => {
  for (const [name, make, tag, reason] of ended) {
    it.effect(`${name}: it fails with ${reason ?? ""}${tag}, which is not retryable`, () =>
      Effect.gen(function* () {
        const client = yield* make
        const error = yield* Effect.flip(client.get("/again"))
        assert.deepInclude(error, { _tag: tag, ...(reason === undefined ? undefined : { reason }) })
        assert.strictEqual("isRetryable" in error && error.isRetryable, false)
        assert.strictEqual(TransportError.isTransportError(error), reason !== undefined)
      })
    )

    it.effect(`${name}: no retry policy tries it again, whatever its configuration says`, () =>
      Effect.gen(function* () {
        const policy = yield* RetryPolicy.make({ isRetryable: () => true, baseDelay: 0 })
        const client = RetryPolicy.withRetry(yield* make, policy)
        assert.strictEqual((yield* Effect.flip(client.get("/again")))._tag, tag)
        const { notRetryable, retries } = yield* policy.stats
        assert.deepStrictEqual({ notRetryable, retries }, { notRetryable: 1, retries: 0 })
      })
    )

    it.effect(`${name}: no circuit breaker counts it`, () =>
      Effect.gen(function* () {
        const breaker = yield* CircuitBreaker.make({ target: a, failureThreshold: 1 })
        const client = CircuitBreaker.withBreaker(yield* make, breaker)
        assert.strictEqual((yield* Effect.flip(client.get("/again")))._tag, tag)
        assert.strictEqual((yield* Effect.flip(client.get("/again")))._tag, tag)
        assert.strictEqual(yield* breaker.state, "Closed")
      })
    )
  }

  it.effect("a channel with a retry configuration of its own does not try it again either", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const channel = yield* channelIn(scope, { config: { retry: { maxRetries: 3, isRetryable: () => true } } })
      yield* Scope.close(scope, Exit.void)
      // A retry would sleep on a clock that nobody moves.
      assert.strictEqual(tagOf(yield* peek(yield* Effect.fork(channel.get("/again")))), "ScopeClosedError")
    })
  )

  it.effect("layerHttpClient: the typed error inside an HttpClientError is not retried and not counted either", () =>
    Effect.gen(function* () {
      const layer = SecureChannel.layerHttpClient({ peer: a, baseUrl: "https://a.test" }).pipe(
        Layer.provide(Layer.merge(new FakeWire().layer, identity))
      )
      const policy = yield* RetryPolicy.make({ isRetryable: () => true, baseDelay: 0 })
      const breaker = yield* CircuitBreaker.make({ target: a, failureThreshold: 1 })
      const client = yield* Effect.provide(HttpClient.HttpClient, layer)
      const error = yield* Effect.flip(
        client.pipe(CircuitBreaker.withBreaker(breaker), RetryPolicy.withRetry(policy)).get("/again")
      )
      assert.deepInclude("cause" in error ? error.cause : undefined, { _tag: "ScopeClosedError", reason: "Channel" })
      assert.strictEqual((yield* policy.stats).retries, 0)
      assert.strictEqual(yield* breaker.state, "Closed")
      assert.notStrictEqual("reason" in error ? error.reason : "", "Transport", "HttpClient.retryTransient retries it")
    })
  )
})
