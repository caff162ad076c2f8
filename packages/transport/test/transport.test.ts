import { IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority, TestConnector } from "@agentweave/testkit"
import {
  type AuditEvent,
  AuditLog,
  CircuitBreakerRegistry,
  type CircuitOpenError,
  ConnectionPool,
  PeerDirectory,
  type RetryBudget,
  Transport
} from "@agentweave/transport"
import { HttpServerResponse } from "@effect/platform"
import { describe, expect, expectTypeOf, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Ref, TestClock } from "effect"

const api = "spiffe://example.org/api"

/** A program over the composition; the peer answers `statuses`, one a request, and then 200. */
const composed = <A, E>(
  options: Transport.Options,
  statuses: ReadonlyArray<number>,
  use: (peer: {
    readonly answered: Effect.Effect<number>
    readonly events: ReadonlyArray<AuditEvent.AuditEvent>
  }) => Effect.Effect<
    A,
    E,
    Transport.Transport | ConnectionPool.ConnectionPool | CircuitBreakerRegistry.CircuitBreakerRegistry
  >
) =>
  Effect.gen(function* () {
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const connector = yield* TestConnector.make()
    const answered = yield* Ref.make(0)
    const events: Array<AuditEvent.AuditEvent> = []
    yield* connector.setHandler(() =>
      Effect.map(
        Ref.getAndUpdate(answered, (n) => n + 1),
        (n) => HttpServerResponse.text("answer", { status: statuses[n] ?? 200 })
      )
    )
    const layer = Transport.layer(options).pipe(
      Layer.provide(connector.layer),
      Layer.provide(PeerDirectory.layerStatic({ [api]: "https://api.test" })),
      Layer.provide(IdentityProvider.layerStatic(yield* authority.context({ path: "/web" }))),
      Layer.provide(AuditLog.layerMemory(events))
    )
    return yield* Effect.provide(use({ answered: Ref.get(answered), events }), layer)
  })

const get = Effect.gen(function* () {
  const transport = yield* Transport.Transport
  const client = yield* transport.client(api)
  const response = yield* client.get("/")
  yield* response.text
  return response.status
})

describe("transport.client", () => {
  it.scoped("retries through the breaker, a connection leased for each attempt and given back", () =>
    composed({ retry: { jitter: false, baseDelay: "1 second" } }, [503, 503], ({ answered }) =>
      Effect.gen(function* () {
        const fiber = yield* Effect.fork(get)
        yield* TestClock.adjust("1 second")
        yield* TestClock.adjust("2 seconds")
        expect(yield* Fiber.join(fiber)).toBe(200)
        expect(yield* answered).toBe(3)
        const { stats } = yield* ConnectionPool.ConnectionPool
        expect(yield* stats).toMatchObject({ totalAcquisitions: 3, totalConnections: 1, inUse: 0, idle: 1 })
        const breakers = yield* CircuitBreakerRegistry.CircuitBreakerRegistry
        expect((yield* breakers.metrics).get(api)).toMatchObject({ totalFailures: 2, totalSuccesses: 1 })
      })
    )
  )

  it.scoped("stops at an open breaker: no retry, no connection", () =>
    composed(
      { breaker: { failureThreshold: 1 }, retry: { maxRetries: 5, jitter: false, baseDelay: "1 second" } },
      [500],
      ({ answered }) =>
        Effect.gen(function* () {
          expect(yield* get).toBe(500)
          const error = yield* Effect.flip(get)
          expect(error).toMatchObject({ _tag: "CircuitOpenError", target: api })
          expect(yield* answered).toBe(1)
        })
    )
  )

  it.scoped("an open breaker is tried again after its timeout, and its transitions are on record", () =>
    composed({ breaker: { failureThreshold: 1, successThreshold: 1, timeout: "30 seconds" } }, [500], ({ events }) =>
      Effect.gen(function* () {
        yield* get
        yield* TestClock.adjust("30 seconds")
        expect(yield* get).toBe(200)
        const transitions = events.flatMap((event) =>
          event._tag === "CircuitStateChanged" ? [`${event.target} ${event.from} ${event.to}`] : []
        )
        expect(transitions).toEqual([`${api} Closed Open`, `${api} Open HalfOpen`, `${api} HalfOpen Closed`])
      })
    )
  )

  it.scoped("two clients of a peer share their breaker and are one client while it is held", () =>
    composed({ breaker: { failureThreshold: 1 } }, [500], () =>
      Effect.gen(function* () {
        const transport = yield* Transport.Transport
        const first = yield* transport.client(api)
        expect(yield* transport.client(api)).toBe(first)
      })
    )
  )

  it.scoped("the pool's own refusal is not retried, and costs no retry budget", () =>
    composed(
      {
        pool: { maxConnectionsPerTarget: 1 },
        retry: { jitter: false, baseDelay: "1 millis", statuses: [] },
        retryBudget: { ratio: 0, minRetriesPerSecond: 0 }
      },
      [],
      () =>
        Effect.gen(function* () {
          const pool = yield* ConnectionPool.ConnectionPool
          const refused = yield* Effect.flip(pool.withChannel(api, () => get))
          expect(refused).toMatchObject({ _tag: "PoolExhaustedError", limit: "Target" })
        })
    )
  )

  it.scoped("a peer that is no SPIFFE ID is a typed error when the client is made", () =>
    composed({}, [], () =>
      Effect.gen(function* () {
        const transport = yield* Transport.Transport
        expect(yield* Effect.flip(transport.client("https://example.org/api"))).toMatchObject({
          _tag: "InvalidSpiffeIdError",
          rule: "Scheme"
        })
      })
    )
  )

  it.effect("what is configured wrongly fails the layer, with its field", () =>
    Effect.gen(function* () {
      const failing = composed({ retry: { maxRetries: -1 } }, [], () => Effect.void)
      expect(yield* Effect.flip(Effect.scoped(failing))).toMatchObject({
        _tag: "InvalidConfigError",
        config: "RetryConfig",
        field: "maxRetries"
      })
    })
  )
})

it("the errors of the composition are in the type, and can be caught one by one", () => {
  type Client = Effect.Effect.Success<ReturnType<Transport.Transport["Type"]["client"]>>
  type Failure = Effect.Effect.Error<ReturnType<Client["get"]>>
  expectTypeOf<Extract<Failure, CircuitOpenError.CircuitOpenError>>().not.toBeNever()
  expectTypeOf<Extract<Failure, RetryBudget.RetryBudgetExhaustedError>>().not.toBeNever()
  const caught = (client: Client) => client.get("/").pipe(Effect.catchTag("PoolExhaustedError", () => Effect.void))
  type Left = Effect.Effect.Error<ReturnType<typeof caught>>
  expectTypeOf<Extract<Left, { readonly _tag: "PoolExhaustedError" }>>().toBeNever()
  expectTypeOf<Extract<Left, { readonly _tag: "PeerVerificationError" }>>().not.toBeNever()
})
