/**
 * A circuit breaker: it stops calling a target that fails, and lets a few calls through later to see whether it has
 * recovered.
 *
 * @since 0.1.0
 */
import * as HttpClient from "@effect/platform/HttpClient"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import type * as Pipeable from "effect/Pipeable"
import { hasProperty } from "effect/Predicate"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import * as CircuitBreakerConfig from "./CircuitBreakerConfig.js"
import type { CircuitBreakerMetrics, CircuitState } from "./CircuitBreakerMetrics.js"
import type { CircuitOpenError } from "./CircuitOpenError.js"
import type { InvalidConfigError } from "./InvalidConfigError.js"
import * as internal from "./internal/breaker.js"
import { decoder, Text } from "./internal/config.js"
import { clockOf } from "./internal/monotonic.js"

/**
 * @since 0.1.0
 * @category type ids
 */
export const TypeId: unique symbol = internal.TypeId

/**
 * @since 0.1.0
 * @category type ids
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
  /** Runs an effect through the breaker, or fails with a `CircuitOpenError` without running it. */
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
 * @since 0.1.0
 * @category models
 */
export interface ProtectOptions<in A> {
  /** Results of this effect that count as failures; takes the place of the configuration's `isFailure`. */
  readonly isFailure?: (value: A) => boolean
}

/**
 * @since 0.1.0
 * @category refinements
 */
export const isCircuitBreaker = (u: unknown): u is CircuitBreaker => hasProperty(u, TypeId)

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
export const make = ({
  target,
  ...options
}: CircuitBreakerConfig.Options & { readonly target: string }): Effect.Effect<CircuitBreaker, InvalidConfigError> =>
  Effect.flatMap(decodeTarget({ target }), () =>
    Effect.flatMap(CircuitBreakerConfig.make(options), (config) => fromConfig(target, config))
  )

/**
 * A breaker of a configuration that has been checked.
 *
 * @since 0.1.0
 * @category constructors
 */
export const fromConfig = (
  target: string,
  config: CircuitBreakerConfig.CircuitBreakerConfig
): Effect.Effect<CircuitBreaker> =>
  Effect.withFiberRuntime((fiber) => Effect.succeed(new internal.Breaker(target, config, clockOf(fiber))))

/**
 * Runs an effect through a breaker; what {@link CircuitBreaker.protect} does.
 *
 * @since 0.1.0
 * @category combinators
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
 * The responses that count as failures of an `HttpClient` by default: a status of 500 or above. A 4xx is the caller's.
 *
 * @since 0.1.0
 * @category refinements
 */
export const isServerError = (response: HttpClientResponse.HttpClientResponse): boolean => response.status >= 500

/**
 * Runs each request of a client through a breaker. A response is a failure if the breaker's `isFailure` says so, or else
 * {@link isServerError}. What the client does to a request before it is sent (`HttpClient.mapRequestEffect`) is not the
 * target's doing, and stays outside.
 *
 * @since 0.1.0
 * @category combinators
 */
export const withBreaker: {
  (
    breaker: CircuitBreaker
  ): <E, R>(self: HttpClient.HttpClient.With<E, R>) => HttpClient.HttpClient.With<E | CircuitOpenError, R>
  <E, R>(
    self: HttpClient.HttpClient.With<E, R>,
    breaker: CircuitBreaker
  ): HttpClient.HttpClient.With<E | CircuitOpenError, R>
} = dual(
  2,
  <E, R>(
    self: HttpClient.HttpClient.With<E, R>,
    breaker: CircuitBreaker
  ): HttpClient.HttpClient.With<E | CircuitOpenError, R> => {
    const options = { isFailure: breaker.config.isFailure ?? isServerError }
    return HttpClient.transform(self, (response) => breaker.protect(response, options))
  }
)
