/**
 * The whole composition: for each peer a client through retry, circuit breaker and connection pool.
 *
 * @since 0.1.0
 */
import type { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import type { InvalidSpiffeIdError } from "@agentweave/spiffe/InvalidSpiffeIdError"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as HttpClient from "@effect/platform/HttpClient"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type { CircuitBreaker } from "./CircuitBreaker.js"
import * as CircuitBreakerRegistry from "./CircuitBreakerRegistry.js"
import type { CircuitOpenError } from "./CircuitOpenError.js"
import * as ConnectionPool from "./ConnectionPool.js"
import type { Connector, ExchangeError } from "./Connector.js"
import { InvalidConfigError } from "./InvalidConfigError.js"
import { makeClient } from "./internal/channel.js"
import { decoder } from "./internal/config.js"
import { OriginPeers } from "./internal/directory/originPeers.js"
import { toHttpClientError } from "./internal/http/httpError.js"
import { matcherOf } from "./internal/peer.js"
import { limitAttempt } from "./internal/retry/attemptLimit.js"
import { Policy } from "./internal/retry/policy.js"
import { PeerDirectory } from "./PeerDirectory.js"
import * as RetryBudget from "./RetryBudget.js"
import * as RetryConfig from "./RetryConfig.js"
import type * as RetryPolicy from "./RetryPolicy.js"
import type { ConnectionPoolError } from "./TransportError.js"

/**
 * The errors of a request through the whole composition.
 *
 * @since 0.1.0
 * @category models
 */
export type Failure =
  | ExchangeError
  | ConnectionPoolError
  | CircuitOpenError
  | RetryBudget.RetryBudgetExhaustedError<ExchangeError | ConnectionPoolError | CircuitOpenError>

/**
 * Options of the transport, each with its default.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The pool, one for all peers. */
  readonly pool?: ConnectionPool.Options | undefined
  /** The circuit breakers, one a peer. */
  readonly breaker?: CircuitBreakerRegistry.Options | undefined
  /** The retries: options, or a `Schedule` of the caller's. */
  readonly retry?: RetryConfig.Input | undefined
  /** How many retries a peer's clients may add to its load together: one budget a peer. */
  readonly retryBudget?: RetryBudget.Options | undefined
}

/**
 * Clients for named peers.
 *
 * @since 0.1.0
 * @category tags
 */
export class Transport extends Context.Tag("@agentweave/transport/Transport")<
  Transport,
  {
    /**
     * A client for a peer: `withRetry(withBreaker(pool.client(peer)))`, so that every attempt counts at the breaker and
     * leases its own connection. The limit of one attempt, `retry.attemptTimeout`, is inside the breaker: an attempt that
     * runs out of time is a failure. `retry.totalTimeout` is outside: an attempt that it cuts off is interrupted, and
     * neutral. Relative URLs are resolved by the `PeerDirectory`. Clients of one peer share its breaker and its retry
     * budget; making one opens no connection.
     */
    readonly client: (
      peer: ConnectionPool.Peer
    ) => Effect.Effect<HttpClient.HttpClient.With<Failure>, InvalidSpiffeIdError>
  }
>() {}

/** The parts are read where they are used. */
const decode = decoder(
  "Transport",
  Schema.Struct({
    pool: Schema.optional(Schema.Unknown),
    breaker: Schema.optional(Schema.Unknown),
    retry: Schema.optional(Schema.Unknown),
    retryBudget: Schema.optional(Schema.Unknown)
  })
)

const make = Effect.fnUntraced(function* (options: Options) {
  yield* decode(options)
  const pool = yield* ConnectionPool.ConnectionPool
  const breakers = yield* CircuitBreakerRegistry.CircuitBreakerRegistry
  // Checked once, here, so that a client cannot fail for what is configured.
  yield* RetryBudget.make(options.retryBudget)
  const makeBudget = (target: string) => Effect.orDie(RetryBudget.make({ ...options.retryBudget, target }))
  const { attemptTimeout, ...retry } = yield* RetryConfig.make(options.retry ?? {})
  const outer = new RetryConfig.RetryConfig(retry)
  const clients = new Map<string, WeakRef<HttpClient.HttpClient.With<Failure>>>()
  const forgotten = new FinalizationRegistry<string>((key) => {
    if (clients.get(key)?.deref() === undefined) clients.delete(key)
  })

  /** `withRetry(withBreaker(pool.client(peer)))` in one step. */
  const compose = (
    peer: PeerMatcher.PeerMatcher,
    key: string,
    breaker: CircuitBreaker,
    budget: RetryBudget.RetryBudget
  ) => {
    const policy = new Policy<RetryPolicy.Limit>(outer, undefined, budget)
    const { execute } = pool.client(peer)
    const attempt: (request: HttpClientRequest) => Attempt =
      attemptTimeout === undefined ? execute : (request) => limitAttempt(execute(request), attemptTimeout, request)
    const client = makeClient((request) => policy.retryRequest(breaker.protect(attempt(request)), request))
    clients.set(key, new WeakRef(client))
    forgotten.register(client, key)
    return client
  }

  return Transport.of({
    client: (peer) =>
      Effect.flatMap(matcherOf(peer), (matcher) => {
        const key = PeerMatcher.describe(matcher)
        const known = clients.get(key)?.deref()
        if (known !== undefined) return Effect.succeed(known)
        return Effect.zipWith(
          breakers.get(key),
          makeBudget(key),
          (breaker, budget) =>
            // No fiber comes between the look and the making: there is one client, however many ask at once.
            clients.get(key)?.deref() ?? compose(matcher, key, breaker, budget)
        )
      })
  })
})

type Attempt = Effect.Effect<HttpClientResponse, ExchangeError | ConnectionPoolError>

/**
 * The composition over services that are there already: a pool and a registry shared with the rest of the program.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { CircuitBreakerRegistry, ConnectionPool, Transport } from "@agentweave/transport"
 * import { Layer } from "effect"
 *
 * // The rest of the program takes connections from the same pool, and sees the same circuits.
 * const TransportLive = Transport.layerServices({ retry: { maxRetries: 3 } }).pipe(
 *   Layer.provideMerge(ConnectionPool.layer()),
 *   Layer.provideMerge(CircuitBreakerRegistry.layer({ failureThreshold: 5 }))
 * )
 * ```
 */
export const layerServices = (
  options: Options = {}
): Layer.Layer<
  Transport,
  InvalidConfigError,
  ConnectionPool.ConnectionPool | CircuitBreakerRegistry.CircuitBreakerRegistry
> => Layer.effect(Transport, make(options))

/**
 * The composition with a pool and a registry of its own, which it provides too: for `stats`, `metrics` and `resetAll`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { PeerDirectory, Transport } from "@agentweave/transport"
 * import { Effect, Layer } from "effect"
 *
 * const TransportLive = Transport.layer({
 *   pool: { maxConnectionsPerTarget: 20, acquireTimeout: "1 second" },
 *   breaker: { failureThreshold: 5, timeout: "30 seconds" },
 *   retry: { maxRetries: 3, baseDelay: "200 millis" }
 * }).pipe(Layer.provide(PeerDirectory.layerTemplate("https://{path}.internal:8443")))
 *
 * const invoice = Effect.gen(function* () {
 *   const transport = yield* Transport.Transport
 *   const billing = yield* transport.client("spiffe://example.org/billing")
 *   const response = yield* billing.get("/invoices/42")
 *   return yield* response.json
 * }).pipe(Effect.catchTag("CircuitOpenError", (error) => Effect.succeed(error.message)))
 *
 * export const program = Effect.provide(invoice, TransportLive)
 * ```
 */
export const layer = (
  options: Options = {}
): Layer.Layer<
  Transport | ConnectionPool.ConnectionPool | CircuitBreakerRegistry.CircuitBreakerRegistry,
  InvalidConfigError,
  Connector | PeerDirectory | IdentityProvider
> =>
  options.pool?.transport?.retry === undefined
    ? layerServices(options).pipe(
        Layer.provideMerge(
          Layer.merge(ConnectionPool.layer(options.pool), CircuitBreakerRegistry.layer(options.breaker))
        )
      )
    : Layer.fail(
        new InvalidConfigError({
          config: "Transport",
          field: "pool.transport.retry",
          description: "expected the retries in the field retry alone, or attempts of attempts would be retried"
        })
      )

/**
 * {@link layer} with options from `Config`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { CircuitBreakerConfig, PoolConfig, RetryConfig, Transport } from "@agentweave/transport"
 * import { Config } from "effect"
 *
 * const TransportLive = Transport.layerConfig({
 *   pool: Config.nested(PoolConfig.config, "POOL"),
 *   breaker: Config.nested(CircuitBreakerConfig.config, "BREAKER"),
 *   retry: Config.nested(RetryConfig.config, "RETRY")
 * })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<
  Transport | ConnectionPool.ConnectionPool | CircuitBreakerRegistry.CircuitBreakerRegistry,
  ConfigError | InvalidConfigError,
  Connector | PeerDirectory | IdentityProvider
> => Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))

/**
 * *The* `HttpClient.HttpClient` of a program, over the `Transport`: a request to an absolute URL goes to the peer that the
 * `PeerDirectory` has at its origin, verified, through that peer's retries, breaker and pool, and nowhere else. A URL of
 * another origin, a plaintext one, and one at which the directory has two peers, are a `RequestError` of reason `InvalidUrl`
 * before a connection is opened. The directory has to name its peers (`PeerDirectory.peers`).
 *
 * An error that is not an `HttpClientError` already becomes a `RequestError` with the typed error as its cause; its reason is
 * `Transport` for a `ConnectionError` or a `TimeoutError`, `InvalidUrl` for a `PeerVerificationError`, and `Encode` when the
 * request is refused on this side.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { PeerDirectory, Transport } from "@agentweave/transport"
 * import { HttpClient } from "@effect/platform"
 * import { Effect, Layer } from "effect"
 *
 * const HttpLive = Transport.layerHttpClient.pipe(
 *   Layer.provide(Transport.layer()),
 *   Layer.provide(PeerDirectory.layerStatic({ "spiffe://example.org/billing": "https://billing.internal:8443" }))
 * )
 *
 * const invoice = Effect.flatMap(HttpClient.HttpClient, (http) => http.get("https://billing.internal:8443/invoices/42"))
 *
 * export const program = Effect.provide(invoice, HttpLive)
 * ```
 */
export const layerHttpClient: Layer.Layer<HttpClient.HttpClient, never, Transport | PeerDirectory> = Layer.effect(
  HttpClient.HttpClient,
  Effect.gen(function* () {
    const transport = yield* Transport
    const peers = new OriginPeers(yield* PeerDirectory)
    return makeClient((request) =>
      Effect.flatMap(peers.of(request), transport.client).pipe(
        Effect.flatMap((client) => client.execute(request)),
        Effect.mapError((error) => toHttpClientError(request, error))
      )
    )
  })
)
