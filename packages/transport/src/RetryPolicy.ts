/**
 * Retries with exponential backoff and full jitter.
 *
 * @since 0.1.0
 */
import * as HttpClient from "@effect/platform/HttpClient"
import type * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import { hasProperty } from "effect/Predicate"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Types from "effect/Types"
import type { InvalidConfigError } from "./InvalidConfigError.js"
import { isFinal } from "./internal/blame.js"
import { decoder, Text, ValueOf } from "./internal/config.js"
import { delay } from "./internal/retry.js"
import * as internal from "./internal/retryPolicy.js"
import { isRetryBudget, type RetryBudget, type RetryBudgetExhaustedError } from "./RetryBudget.js"
import * as RetryConfig from "./RetryConfig.js"
import type { TimeoutError } from "./TransportError.js"

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
 * What of a policy shows in the errors of what it retries: it has a time limit, or a budget.
 *
 * @since 0.1.0
 * @category models
 */
export type Limit = "Timeout" | "Budget"

/**
 * The errors a policy adds to those of the effect: a `TimeoutError` (phase `Attempt` or `Total`) if it has a time limit,
 * a `RetryBudgetExhaustedError` if it has a budget, nothing otherwise.
 *
 * @since 0.1.0
 * @category errors
 */
export type Added<Limits extends Limit, E> =
  | TimedOut<Limits>
  | ("Budget" extends Limits ? RetryBudgetExhaustedError<E | TimedOut<Limits>> : never)

type TimedOut<Limits extends Limit> = "Timeout" extends Limits ? TimeoutError : never

/**
 * A policy that counts what it does. When it gives up, the last error (or the last response) is the result, as it is.
 *
 * - Typed failures are retried, defects and interruption never are. Nor is what a retry would only meet again, whatever
 *   `isRetryable` says and whatever error wraps it as its `cause`: a refused identity (`PeerVerificationError`,
 *   `IdentityError`), `CircuitOpenError`, `PoolClosedError`, `ScopeClosedError`, `AuditError`, a
 *   `RetryBudgetExhaustedError` of a policy further down, and mistakes of the caller (a `RequestError` of reason `Encode` or `InvalidUrl`, `HttpBodyError`,
 *   `InvalidSpiffeIdError`, `InvalidConfigError`).
 * - An attempt that exceeds `attemptTimeout` is interrupted; that is a `TimeoutError` like any other, and so retryable.
 * - `totalTimeout` also ends an attempt that is running; a delay that would reach it is not slept.
 *
 * @since 0.1.0
 * @category models
 */
export interface RetryPolicy<out Limits extends Limit = never> {
  readonly [TypeId]: { readonly _Limits: Types.Covariant<Limits> }
  readonly config: RetryConfig.RetryConfig
  readonly stats: Effect.Effect<RetryStats>
  /** Runs an effect, again and again if need be. Running it more than once has to be safe: only the caller knows that. */
  retry<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | Added<Limits, E>, R>
  /**
   * Runs what answers a request, under the rules of HTTP:
   *
   * - Only idempotent methods are retried (RFC 9110 section 9.2.2), others only after an error with outcome `NotSent`;
   *   an attempt that timed out may have been processed.
   * - Responses with one of the configured `statuses` are retried; `Retry-After` prolongs the delay, up to `maxDelay`. The
   *   response's body is released first. When retries are used up, the response is the result.
   * - A body that cannot be replayed, a stream or a raw one, is never retried.
   */
  retryRequest<E, R>(
    response: Effect.Effect<HttpClientResponse.HttpClientResponse, E, R>,
    request: HttpClientRequest.HttpClientRequest
  ): Effect.Effect<HttpClientResponse.HttpClientResponse, E | Added<Limits, E>, R>
}

/**
 * What a policy has done since it was made. Calls that succeed at once are not counted: they pass untouched.
 *
 * @since 0.1.0
 * @category models
 */
export interface RetryStats {
  /** Attempts after the first ones. */
  readonly retries: number
  /** Calls that succeeded after at least one retry. */
  readonly recovered: number
  /** Calls that ended with a failure because `maxRetries` were used up. */
  readonly exhausted: number
  /** Calls that ended with a failure that is not worth a retry. */
  readonly notRetryable: number
  /** Calls that ended with a failure because the next attempt would have started after the deadline. */
  readonly outOfTime: number
  /** Calls that ended with a failure because the budget was used up. */
  readonly overBudget: number
  /** Attempts cut off by `attemptTimeout`. */
  readonly attemptTimeouts: number
  /** Attempts cut off by `totalTimeout`. */
  readonly totalTimeouts: number
  /** All delays between attempts together. */
  readonly delayed: Duration.Duration
}

/**
 * What {@link make} takes: a `RetryConfig`, and what cannot be configured by data.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends RetryConfig.Options {
  /** The name errors give to what is called. Default: method and URL of a request, without its query. */
  readonly target?: string | undefined
  /** Retries draw on this budget. Default none. */
  readonly budget?: RetryBudget | undefined
}

const decodeOwn = decoder(
  "RetryPolicy",
  Schema.Struct({
    target: Schema.optional(Text),
    budget: Schema.optional(ValueOf("a RetryBudget", isRetryBudget))
  })
)

/**
 * The limits that options set, or may set: `Timeouts` and `Budget` are the types of what was given.
 *
 * @since 0.1.0
 * @category models
 */
export type LimitsOf<Timeouts, Budget> =
  | ([Exclude<Timeouts, undefined>] extends [never] ? never : "Timeout")
  | ([Exclude<Budget, undefined>] extends [never] ? never : "Budget")

/**
 * A policy. Its type tells which errors it adds: see {@link Added}.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { RetryPolicy } from "@agentweave/transport"
 * import { Effect } from "effect"
 *
 * declare const fetchInvoice: Effect.Effect<string, { readonly _tag: "Busy"; readonly isRetryable: true }>
 *
 * const program = Effect.gen(function* () {
 *   const policy = yield* RetryPolicy.make({ maxRetries: 5, baseDelay: "100 millis", totalTimeout: "10 seconds" })
 *   return yield* policy.retry(fetchInvoice)
 * }).pipe(Effect.catchTag("TimeoutError", (error) => Effect.succeed(error.message)))
 * ```
 */
export const make = <
  Attempt extends Duration.DurationInput | undefined = undefined,
  Total extends Duration.DurationInput | undefined = undefined,
  Budget extends RetryBudget | undefined = undefined
>({
  budget,
  target,
  ...options
}: Omit<Options, "attemptTimeout" | "totalTimeout" | "budget"> & {
  readonly attemptTimeout?: Attempt
  readonly totalTimeout?: Total
  readonly budget?: Budget
} = {}): Effect.Effect<RetryPolicy<LimitsOf<Attempt | Total, Budget>>, InvalidConfigError> =>
  Effect.flatMap(decodeOwn({ target, budget }), () =>
    Effect.map(RetryConfig.make(options), (config) => new internal.Policy(config, target, budget))
  )

/**
 * The backoff as a plain `Schedule`, for `Effect.retry` and everything else that takes one: it recurs `maxRetries` times,
 * while the errors are retryable, with the delays of the configuration. Its output is the number of the retry, from 0.
 *
 * @since 0.1.0
 * @category schedules
 * @example
 * ```ts
 * import { RetryConfig, RetryPolicy } from "@agentweave/transport"
 * import { Effect } from "effect"
 *
 * declare const fetchInvoice: Effect.Effect<string, Error>
 *
 * const program = Effect.retry(fetchInvoice, RetryPolicy.schedule(RetryConfig.defaults))
 * ```
 */
export const schedule = (config: RetryConfig.RetryConfig): Schedule.Schedule<number, unknown> =>
  Schedule.recurs(config.maxRetries).pipe(
    Schedule.whileInput((error: unknown) => !isFinal(error) && config.isRetryable(error)),
    Schedule.addDelayEffect((attempt) => Effect.map(delay(config, attempt), Duration.millis))
  )

/**
 * Runs an effect under a policy; what {@link RetryPolicy.retry} does.
 *
 * @since 0.1.0
 * @category combinators
 */
export const retry: {
  <Limits extends Limit>(
    policy: RetryPolicy<Limits>
  ): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | Added<Limits, E>, R>
  <A, E, R, Limits extends Limit>(
    self: Effect.Effect<A, E, R>,
    policy: RetryPolicy<Limits>
  ): Effect.Effect<A, E | Added<Limits, E>, R>
} = dual(
  2,
  <A, E, R, Limits extends Limit>(
    self: Effect.Effect<A, E, R>,
    policy: RetryPolicy<Limits>
  ): Effect.Effect<A, E | Added<Limits, E>, R> => policy.retry(self)
)

/**
 * Retries the requests of a client under the rules of HTTP; see {@link RetryPolicy.retryRequest}. What the client does to a
 * request before it is sent (`HttpClient.mapRequest`) is done once, so that all attempts send the same.
 *
 * @since 0.1.0
 * @category combinators
 */
export const withRetry: {
  <Limits extends Limit>(
    policy: RetryPolicy<Limits>
  ): <E, R>(self: HttpClient.HttpClient.With<E, R>) => HttpClient.HttpClient.With<E | Added<Limits, E>, R>
  <E, R, Limits extends Limit>(
    self: HttpClient.HttpClient.With<E, R>,
    policy: RetryPolicy<Limits>
  ): HttpClient.HttpClient.With<E | Added<Limits, E>, R>
} = dual(
  2,
  <E, R, Limits extends Limit>(
    self: HttpClient.HttpClient.With<E, R>,
    policy: RetryPolicy<Limits>
  ): HttpClient.HttpClient.With<E | Added<Limits, E>, R> =>
    HttpClient.transform(self, (response, request) => policy.retryRequest(response, request))
)

/**
 * @since 0.1.0
 * @category refinements
 */
export const isRetryPolicy = (u: unknown): u is RetryPolicy<Limit> => hasProperty(u, TypeId)
