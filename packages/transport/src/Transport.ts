/**
 * The whole composition: for each peer a client through retry, circuit breaker and connection pool.
 *
 * @since 0.1.0
 */
import type { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import type { InvalidSpiffeIdError } from "@agentweave/spiffe/InvalidSpiffeIdError"
import * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import type { HttpClient } from "@effect/platform/HttpClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { withBreaker } from "./CircuitBreaker.js"
import * as CircuitBreakerRegistry from "./CircuitBreakerRegistry.js"
import type { CircuitOpenError } from "./CircuitOpenError.js"
import * as ConnectionPool from "./ConnectionPool.js"
import type { Connector, RequestFailure } from "./Connector.js"
import { InvalidConfigError } from "./InvalidConfigError.js"
import { decoder } from "./internal/config.js"
import { withAttemptLimit } from "./internal/retryHttp.js"
import { Policy } from "./internal/retryPolicy.js"
import type { PeerDirectory } from "./PeerDirectory.js"
import * as RetryBudget from "./RetryBudget.js"
import * as RetryConfig from "./RetryConfig.js"
import * as RetryPolicy from "./RetryPolicy.js"
import type { ConnectionPoolError } from "./TransportError.js"

/**
 * What a request through the whole composition can fail with.
 *
 * @since 0.1.0
 * @category models
 */
export type Failure =
  | RequestFailure
  | ConnectionPoolError
  | CircuitOpenError
  | RetryBudget.RetryBudgetExhaustedError<RequestFailure | ConnectionPoolError | CircuitOpenError>

/**
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
    readonly client: (peer: string) => Effect.Effect<HttpClient.With<Failure>, InvalidSpiffeIdError>
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
  const { attemptTimeout, ...retry } = yield* RetryConfig.make(options.retry ?? {})
  const outer = new RetryConfig.RetryConfig(retry)
  const clients = new Map<string, WeakRef<HttpClient.With<Failure>>>()
  const forgotten = new FinalizationRegistry<string>((peer) => {
    if (clients.get(peer)?.deref() === undefined) clients.delete(peer)
  })

  const build = (peer: SpiffeId.SpiffeId) =>
    Effect.gen(function* () {
      const breaker = yield* breakers.get(peer)
      const budget = yield* RetryBudget.make({ ...options.retryBudget, target: peer })
      const policy = new Policy<RetryPolicy.Limit>(outer, undefined, budget)
      const pooled: HttpClient.With<RequestFailure | ConnectionPoolError> = pool.client(peer)
      const attempt = attemptTimeout === undefined ? pooled : withAttemptLimit(pooled, attemptTimeout)
      return attempt.pipe(withBreaker(breaker), RetryPolicy.withRetry(policy))
    })

  return Transport.of({
    client: (peer) =>
      Effect.flatMap(SpiffeId.parse(peer), (id) =>
        Effect.suspend(() => {
          const known = clients.get(id)?.deref()
          if (known !== undefined) return Effect.succeed(known)
          return Effect.map(Effect.orDie(build(id)), (client) => {
            clients.set(id, new WeakRef(client))
            forgotten.register(client, id)
            return client
          })
        })
      )
  })
})

/**
 * The composition over services that are there already: a pool and a registry shared with the rest of the program.
 *
 * @since 0.1.0
 * @category layers
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
