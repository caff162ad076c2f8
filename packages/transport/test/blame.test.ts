import { IdentityProvider, SpiffeId } from "@agentweave/spiffe"
import { DevAuthority, TestConnector } from "@agentweave/testkit"
import {
  AuditLog,
  CircuitBreaker,
  CircuitBreakerConfig,
  PeerDirectory,
  RetryBudget,
  RetryPolicy,
  SecureChannel,
  Transport,
  TransportError
} from "@agentweave/transport"
import { HttpClient, HttpClientError, HttpClientRequest, HttpServerResponse } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Cause, Duration, Effect, Fiber, Layer, Runtime, TestClock } from "effect"
import { UnknownException } from "effect/Cause"

const api = "spiffe://example.org/api"
const impostor = SpiffeId.make("spiffe://example.org/impostor")

/** A network, and the layers that a channel or a pool on it needs. */
const network = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const connector = yield* TestConnector.make()
  const services = Layer.mergeAll(
    connector.layer.pipe(Layer.provide(AuditLog.layerMemory([]))),
    PeerDirectory.layerStatic({ [api]: "https://api.test" })
  ).pipe(Layer.provideMerge(IdentityProvider.layerStatic(yield* authority.context({ path: "/web" }))))
  return { ...connector, services }
})

const wrongPeer = Effect.flatMap(
  Effect.tap(network, ({ setOnConnect }) => setOnConnect(TestConnector.impostor(impostor))),
  ({ attempts, services }) =>
    Effect.map(
      Layer.build(Layer.provide(SecureChannel.layerHttpClient({ peer: api, baseUrl: "https://api.test" }), services)),
      (context) => ({ attempts, client: Effect.provide(HttpClient.HttpClient, context) })
    )
)

describe("an identity error inside another error", () => {
  const policy = RetryPolicy.make({ maxRetries: 3, baseDelay: 0, isRetryable: () => true })

  it.scoped("of the one HttpClient of a program is not retried by withRetry and does not count at a breaker", () =>
    Effect.gen(function* () {
      const { attempts, client } = yield* wrongPeer
      const breaker = yield* CircuitBreaker.make({ target: api, failureThreshold: 1 })
      const guarded = (yield* client).pipe(CircuitBreaker.withBreaker(breaker), RetryPolicy.withRetry(yield* policy))
      const error = yield* Effect.flip(guarded.get("/"))
      expect(error).toMatchObject({ _tag: "RequestError", cause: { _tag: "PeerVerificationError" } })
      expect(yield* attempts).toBe(1)
      expect(yield* breaker.metrics).toMatchObject({ state: "Closed", totalFailures: 0, totalExcluded: 1 })
    })
  )

  it.scoped("of the one HttpClient of a program is not retried by HttpClient.retryTransient", () =>
    Effect.gen(function* () {
      const { attempts, client } = yield* wrongPeer
      yield* Effect.flip((yield* client).pipe(HttpClient.retryTransient({ times: 3 })).get("/"))
      expect(yield* attempts).toBe(1)
    })
  )

  it.scoped("a refused connection is still retried by HttpClient.retryTransient, as reason Transport", () =>
    Effect.gen(function* () {
      const { attempts, services, setOnConnect } = yield* network
      yield* setOnConnect(TestConnector.unreachable())
      const context = yield* Layer.build(
        Layer.provide(SecureChannel.layerHttpClient({ peer: api, baseUrl: "https://api.test" }), services)
      )
      const client = yield* Effect.provide(HttpClient.HttpClient, context)
      const error = yield* Effect.flip(client.pipe(HttpClient.retryTransient({ times: 3 })).get("/"))
      expect(error).toMatchObject({ _tag: "RequestError", reason: "Transport", cause: { _tag: "ConnectionError" } })
      expect(yield* attempts).toBe(4)
    })
  )

  it.scoped("is found whatever wraps it: a domain error, a promise, a Cause, a used-up budget", () =>
    Effect.gen(function* () {
      const { client } = yield* wrongPeer
      const refused = yield* Effect.flip((yield* client).get("/"))
      const wrappers: ReadonlyArray<unknown> = [
        { _tag: "BillingFailed", cause: refused },
        new Error("billing failed", { cause: refused }),
        new UnknownException(Runtime.makeFiberFailure(Cause.fail(refused))),
        { cause: Cause.parallel(Cause.interrupt(Fiber.id(yield* Effect.fork(Effect.void))), Cause.fail(refused)) },
        new RetryBudget.RetryBudgetExhaustedError({ target: api, attempts: 2, lastError: refused })
      ]
      for (const wrapper of wrappers) {
        let runs = 0
        const failing = Effect.suspend(() => {
          runs++
          return Effect.fail(wrapper)
        })
        yield* Effect.exit(RetryPolicy.retry(failing, yield* policy))
        expect(runs).toBe(1)
        expect(CircuitBreakerConfig.isExcludedByDefault(wrapper)).toBe(true)
      }
    })
  )

  it("an error that is its own cause is judged like any other", () => {
    const endless: { cause: unknown } = { cause: undefined }
    endless.cause = endless
    expect(CircuitBreakerConfig.isExcludedByDefault(endless)).toBe(false)
  })
})

describe("the errors of the caller and of this side", () => {
  const request = HttpClientRequest.get("/")
  const timeout = (phase: TransportError.TimeoutPhase) =>
    new TransportError.TimeoutError({ phase, outcome: "NotSent", limit: Duration.seconds(1), target: api })
  const refused = new TransportError.ConnectionError({
    reason: "Refused",
    outcome: "NotSent",
    address: "api.test:443",
    description: "nobody listens"
  })
  const excluded: ReadonlyArray<readonly [what: string, error: unknown]> = [
    ["a header or body that cannot be sent", new HttpClientError.RequestError({ request, reason: "Encode" })],
    [
      "a body stream that failed because of another connection",
      new HttpClientError.RequestError({ request, reason: "Encode", cause: refused })
    ],
    ["a URL that is none", new HttpClientError.RequestError({ request, reason: "InvalidUrl" })],
    ["an event that could not be put on record", new AuditLog.AuditError({ reason: "Full", description: "no room" })],
    ["a wait for a connection of our own limit", timeout("Acquire")],
    [
      "a peer that the directory does not know",
      new TransportError.ConnectionError({
        reason: "NoAddress",
        outcome: "NotSent",
        address: api,
        description: "unknown"
      })
    ]
  ]
  for (const [what, error] of excluded) {
    it.effect(`do not count at a breaker: ${what}`, () =>
      Effect.gen(function* () {
        const breaker = yield* CircuitBreaker.make({ target: api, failureThreshold: 1 })
        yield* Effect.exit(breaker.protect(Effect.fail(error)))
        expect(yield* breaker.state).toBe("Closed")
      })
    )
  }

  it.effect("are not retried by default: a wait for a connection of our own limit, a slow body of our own", () =>
    Effect.gen(function* () {
      const policy = yield* RetryPolicy.make({ baseDelay: 0 })
      for (const phase of ["Acquire", "RequestBody", "Read"] as const) {
        yield* Effect.exit(policy.retry(Effect.fail(timeout(phase))))
      }
      expect(yield* policy.stats).toMatchObject({ retries: 0, notRetryable: 3 })
      yield* Effect.exit(policy.retry(Effect.fail(timeout("Connect"))))
      expect(yield* policy.stats).toMatchObject({ retries: 3 })
    })
  )

  it("a used-up retry budget counts as what its last error is", () => {
    const exhausted = (lastError: unknown) =>
      new RetryBudget.RetryBudgetExhaustedError({ target: api, attempts: 3, lastError })
    expect(CircuitBreakerConfig.isExcludedByDefault(exhausted(refused))).toBe(false)
    expect(CircuitBreakerConfig.isExcludedByDefault(exhausted(timeout("Acquire")))).toBe(true)
  })
})

describe("an attempt that runs out of time", () => {
  const hanging = (retry: NonNullable<Transport.Options["retry"]>) =>
    Effect.gen(function* () {
      const { services, setHandler } = yield* network
      let reached = 0
      yield* setHandler(() =>
        Effect.suspend(() => {
          reached++
          return Effect.as(Effect.never, HttpServerResponse.empty())
        })
      )
      const layer = Transport.layer({ breaker: { failureThreshold: 3 }, retry })
      const context = yield* Layer.build(Layer.provide(layer, services))
      const transport = yield* Effect.provide(Transport.Transport, context)
      const client = yield* transport.client(api)
      const failures: Array<string> = []
      for (let call = 0; call < 12; call++) {
        const fiber = yield* Effect.fork(Effect.flip(client.get("/")))
        yield* TestClock.adjust("1 second")
        const error = yield* Fiber.join(fiber)
        failures.push(error._tag === "TimeoutError" ? `${error._tag} ${error.phase}` : error._tag)
      }
      return { reached, failures }
    })

  it.scoped("is a failure of the peer: a hanging peer opens the circuit of Transport", () =>
    Effect.gen(function* () {
      const { failures, reached } = yield* hanging({ maxRetries: 0, attemptTimeout: "200 millis" })
      expect(reached).toBe(3)
      expect(failures.slice(0, 3)).toEqual(Array.from({ length: 3 }, () => "TimeoutError Attempt"))
      expect(new Set(failures.slice(3))).toEqual(new Set(["CircuitOpenError"]))
    })
  )

  it.scoped("is retried, each attempt with a limit of its own, until the circuit opens", () =>
    Effect.gen(function* () {
      const { failures, reached } = yield* hanging({ maxRetries: 5, baseDelay: 0, attemptTimeout: "200 millis" })
      expect(reached).toBe(3)
      expect(new Set(failures)).toEqual(new Set(["CircuitOpenError"]))
    })
  )

  it.scoped("by the limit on all attempts is interrupted, and neutral", () =>
    Effect.gen(function* () {
      const { failures, reached } = yield* hanging({ maxRetries: 0, totalTimeout: "200 millis" })
      expect(reached).toBe(12)
      expect(new Set(failures)).toEqual(new Set(["TimeoutError Total"]))
    })
  )
})
