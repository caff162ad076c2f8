/**
 * A circuit breaker: it stops calling a target that fails, and lets a few calls through later to see whether it has
 * recovered.
 *
 * @since 0.1.0
 */
import * as HttpClient from "@effect/platform/HttpClient"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import type * as Pipeable from "effect/Pipeable"
import { hasProperty } from "effect/Predicate"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import { optionalRecorder } from "./AuditLog.js"
import * as CircuitBreakerConfig from "./CircuitBreakerConfig.js"
import type { CircuitBreakerMetrics } from "./CircuitBreakerMetrics.js"
import type { CircuitOpenError } from "./CircuitOpenError.js"
import type { CircuitState } from "./CircuitState.js"
import type { InvalidConfigError } from "./InvalidConfigError.js"
import * as internal from "./internal/breaker/breaker.js"
import { onTransition } from "./internal/breaker/changes.js"
import { withClock } from "./internal/clock.js"
import { decoder, Text } from "./internal/config.js"
import { isServerErrorStatus } from "./internal/requestTelemetry.js"
import { unsafeCircuitMade } from "./TransportMetrics.js"

/**
 * Marks a `CircuitBreaker`.
 *
 * @since 0.1.0
 * @category symbols
 */
export const TypeId: unique symbol = internal.TypeId

/**
 * Marks a `CircuitBreaker`.
 *
 * @since 0.1.0
 * @category symbols
 */
export type TypeId = typeof TypeId

/**
 * A breaker for one target. All fibers that share it share its state.
 *
 * - An interrupted call is neutral, and gives back its probe slot. An effect that is timed out *around* the breaker is
 *   interrupted: a limit that is to count as a failure belongs inside.
 * - A defect is a failure. So is each error that `isExcluded` does not exclude.
 * - An outcome that comes after a transition changes nothing but the totals.
 * - Time is Effect's `Clock`, by its monotonic nanoseconds: a wall clock set back changes nothing.
 *
 * @since 0.1.0
 * @category models
 */
export interface CircuitBreaker extends Pipeable.Pipeable {
  readonly [TypeId]: TypeId
  /** The name of what is called: a SPIFFE ID, as a rule. */
  readonly target: string
  readonly config: CircuitBreakerConfig.CircuitBreakerConfig
  /**
   * Runs an effect through the breaker, or fails with a `CircuitOpenError` without running it. What of its results is a
   * failure says `isFailure`, here or else in the configuration: by default a response with a status of 500 or above.
   */
  protect<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    options?: ProtectOptions<A>
  ): Effect.Effect<A, E | CircuitOpenError, R>
  /** The present state: an open breaker whose time is over is half-open, whether or not a call has come since. */
  readonly state: Effect.Effect<CircuitState>
  readonly metrics: Effect.Effect<CircuitBreakerMetrics>
  /**
   * The present state, then each transition as it takes place. A reader that falls behind keeps the latest 16; the last
   * one it reads is always the present state. Never ends.
   */
  readonly changes: Stream.Stream<CircuitState>
  /** Opens the breaker by hand, until {@link reset}. */
  readonly isolate: Effect.Effect<void>
  /** Closes the breaker by hand and forgets all failures. To be used with care: the target may still be failing. */
  readonly reset: Effect.Effect<void>
}

/**
 * Options of one protected effect.
 *
 * @since 0.1.0
 * @category models
 */
export interface ProtectOptions<in A> {
  /** Results of this effect that count as failures; takes the place of the configuration's `isFailure`. */
  readonly isFailure?: (value: A) => boolean
}

/**
 * Whether a value is a `CircuitBreaker`.
 *
 * @since 0.1.0
 * @category guards
 */
export const isCircuitBreaker = (u: unknown): u is CircuitBreaker => hasProperty(u, TypeId)

/**
 * The options of {@link make}: the name of the target, and a `CircuitBreakerConfig`.
 *
 * @since 0.1.0
 * @category models
 */
export type Options = CircuitBreakerConfig.Options & {
  /** The name of what is called, for metrics, audit events and errors: a SPIFFE ID, as a rule. */
  readonly target: string
}

const decodeTarget = decoder("CircuitBreaker", Schema.Struct({ target: Text }))

/**
 * A breaker for `target`; the other options are those of `CircuitBreakerConfig`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { CircuitBreaker } from "@agentweave/transport"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const breaker = yield* CircuitBreaker.make({ target: "spiffe://example.org/billing", failureThreshold: 3 })
 *   return yield* breaker.protect(Effect.succeed("paid"))
 * }).pipe(Effect.catchTag("CircuitOpenError", (error) => Effect.succeed(`not now: ${error.message}`)))
 * ```
 */
export const make = (options: Options): Effect.Effect<CircuitBreaker, InvalidConfigError> => makeBreaker(options)

const makeBreaker = ({ target, ...options }: Options): Effect.Effect<internal.Breaker, InvalidConfigError> =>
  Effect.zipRight(
    decodeTarget({ target }),
    Effect.flatMap(CircuitBreakerConfig.make(options), (config) => ofConfig(target, config))
  )

const ofConfig = (target: string, config: CircuitBreakerConfig.CircuitBreakerConfig): Effect.Effect<internal.Breaker> =>
  withClock((clock) => new internal.Breaker(target, config, clock))

/**
 * A breaker of a configuration that has been checked.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { CircuitBreaker, CircuitBreakerConfig } from "@agentweave/transport"
 * import { Config, Effect } from "effect"
 *
 * const breaker = Effect.flatMap(Config.nested(CircuitBreakerConfig.config, "BILLING"), (config) =>
 *   CircuitBreaker.fromConfig("spiffe://example.org/billing", config)
 * )
 * ```
 */
export const fromConfig: (
  target: string,
  config: CircuitBreakerConfig.CircuitBreakerConfig
) => Effect.Effect<CircuitBreaker> = ofConfig

const makeRecorded = Effect.fnUntraced(function* (options: Options) {
  const breaker = yield* makeBreaker(options)
  const record = yield* optionalRecorder
  const clock = yield* Effect.clock
  unsafeCircuitMade(breaker.target)
  onTransition(breaker.machine, (from, to) => {
    // An event that cannot be put on record does not keep a breaker from changing its state either.
    record({ _tag: "CircuitStateChanged", time: clock.unsafeCurrentTimeMillis(), target: breaker.target, from, to })
  })
  return breaker
})

/**
 * A breaker as a service of its own tag: an application has as many as it has targets. Its transitions are counted in the
 * metrics and, where there is an `AuditLog` in the context, put on record. For a breaker a peer, made when it is first
 * asked for, there is `CircuitBreakerRegistry`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { CircuitBreaker } from "@agentweave/transport"
 * import { Context, Effect } from "effect"
 *
 * class BillingBreaker extends Context.Tag("app/BillingBreaker")<BillingBreaker, CircuitBreaker.CircuitBreaker>() {}
 *
 * const BillingBreakerLive = CircuitBreaker.layer(BillingBreaker, {
 *   target: "spiffe://example.org/billing",
 *   failureThreshold: 3
 * })
 *
 * const state = Effect.flatMap(BillingBreaker, (breaker) => breaker.state).pipe(Effect.provide(BillingBreakerLive))
 * ```
 */
export const layer = <I>(tag: Context.Tag<I, CircuitBreaker>, options: Options): Layer.Layer<I, InvalidConfigError> =>
  Layer.effect(tag, makeRecorded(options))

/**
 * {@link layer} with options from `Config`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { CircuitBreaker } from "@agentweave/transport"
 * import { Config, Context } from "effect"
 *
 * class BillingBreaker extends Context.Tag("app/BillingBreaker")<BillingBreaker, CircuitBreaker.CircuitBreaker>() {}
 *
 * const BillingBreakerLive = CircuitBreaker.layerConfig(BillingBreaker, {
 *   target: Config.string("BILLING_ID"),
 *   failureThreshold: Config.withDefault(Config.integer("BILLING_FAILURES"), 5)
 * })
 * ```
 */
export const layerConfig = <I>(
  tag: Context.Tag<I, CircuitBreaker>,
  options: Config.Config.Wrap<Options>
): Layer.Layer<I, ConfigError | InvalidConfigError> =>
  Layer.effect(tag, Effect.flatMap(Config.unwrap(options), makeRecorded))

/**
 * An effect or a client under a breaker: it can fail with `CircuitOpenError` besides.
 *
 * @since 0.1.0
 * @category models
 */
export type Protected<Self> =
  Self extends HttpClient.HttpClient.With<infer E, infer R>
    ? HttpClient.HttpClient.With<E | CircuitOpenError, R>
    : Self extends Effect.Effect<infer A, infer E, infer R>
      ? Effect.Effect<A, E | CircuitOpenError, R>
      : never

type Protectable = HttpClient.HttpClient.With<unknown, unknown> | Effect.Effect<unknown, unknown, unknown>

/**
 * Runs an effect, or each request of a client, through a breaker. Results that are failures are those of the breaker's
 * `isFailure`: by default responses with a status of 500 or above. What a client does to a request before it is sent
 * (`HttpClient.mapRequestEffect`) is not the target's doing, and stays outside.
 *
 * An interrupted call is neutral. So a limit of time that is to count as a failure belongs inside: `Transport` puts its
 * `attemptTimeout` there, and one's own composition does with `HttpClient.transformResponse(Effect.timeout("1 second"))`.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { CircuitBreaker, ConnectionPool } from "@agentweave/transport"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const pool = yield* ConnectionPool.ConnectionPool
 *   const breaker = yield* CircuitBreaker.make({ target: "spiffe://example.org/billing" })
 *   const billing = pool.client("spiffe://example.org/billing").pipe(CircuitBreaker.withBreaker(breaker))
 *   return yield* billing.get("/invoices/42")
 * })
 * ```
 */
export const withBreaker: {
  (breaker: CircuitBreaker): <Self extends Protectable>(self: Self) => Protected<Self>
  <E, R>(
    self: HttpClient.HttpClient.With<E, R>,
    breaker: CircuitBreaker
  ): HttpClient.HttpClient.With<E | CircuitOpenError, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, breaker: CircuitBreaker): Effect.Effect<A, E | CircuitOpenError, R>
} = dual(
  2,
  (self: Protectable, breaker: CircuitBreaker): Protected<Protectable> =>
    Effect.isEffect(self) ? breaker.protect(self) : HttpClient.transform(self, (response) => breaker.protect(response))
)

/**
 * {@link withBreaker} of an effect.
 *
 * @since 0.1.0
 * @category combinators
 * @deprecated `withBreaker` is the same; a result's own `isFailure` is an option of the breaker's method `protect`.
 */
export const protect: {
  (breaker: CircuitBreaker): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | CircuitOpenError, R>
  <A>(
    breaker: CircuitBreaker,
    options: ProtectOptions<A>
  ): <E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | CircuitOpenError, R>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    breaker: CircuitBreaker,
    options?: ProtectOptions<A>
  ): Effect.Effect<A, E | CircuitOpenError, R>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    breaker: CircuitBreaker,
    options?: ProtectOptions<A>
  ): Effect.Effect<A, E | CircuitOpenError, R> => breaker.protect(self, options)
)

/**
 * Whether a response has a status of 500 or above.
 *
 * @since 0.1.0
 * @category guards
 * @deprecated `CircuitBreakerConfig.isFailureByDefault` is the default of every breaker.
 */
export const isServerError = (response: HttpClientResponse.HttpClientResponse): boolean =>
  isServerErrorStatus(response.status)
