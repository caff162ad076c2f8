/**
 * Retries with exponential backoff and full jitter.
 *
 * @since 0.1.0
 */
import type * as HttpClient from "@effect/platform/HttpClient"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import { hasProperty } from "effect/Predicate"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Types from "effect/Types"
import type { InvalidConfigError } from "./InvalidConfigError.js"
import { decoder, Text, ValueOf } from "./internal/config.js"
import * as internal from "./internal/retry/policy.js"
import { isRetryBudget, type RetryBudget, type RetryBudgetExhaustedError } from "./RetryBudget.js"
import * as RetryConfig from "./RetryConfig.js"
import type { TimeoutError } from "./TransportError.js"

/**
 * Marks a `RetryPolicy`.
 *
 * @since 0.1.0
 * @category symbols
 */
export const TypeId: unique symbol = internal.TypeId

/**
 * Marks a `RetryPolicy`.
 *
 * @since 0.1.0
 * @category symbols
 */
export type TypeId = typeof TypeId

/**
 * The limits of a policy that show in the errors of the effects it retries: a limit of time, or a budget.
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
export type AddedError<Limits extends Limit, E> =
  | TimedOut<Limits>
  | ("Budget" extends Limits ? RetryBudgetExhaustedError<E | TimedOut<Limits>> : never)

type TimedOut<Limits extends Limit> = "Timeout" extends Limits ? TimeoutError : never

/**
 * A policy is a `Schedule`: it goes into `Effect.retry`, `HttpClient.retry`, `Schedule.intersect`, `Schedule.union`,
 * `Schedule.jittered` and `Schedule.andThen` as it is. Its output is the number of the retry, from 0. As a schedule it has
 * the delays, the number of retries, the choice of errors and the budget of its configuration, and `totalTimeout` from the
 * first failure on. A schedule cannot interrupt an attempt that runs, nor can it know that the wait for a retry was
 * interrupted: under `Effect.retry(policy)` there is no `attemptTimeout`, the request brings the budget nothing, and a retry
 * that was interrupted while it waited stays paid for. {@link withRetry} and the policy's own `retry` do all of this.
 *
 * By its own `retry`, and by {@link withRetry}, it does more: it keeps the limits of time, and counts what it does. When it
 * gives up, the last error (or the last response) is the result, as it is.
 *
 * - Typed failures are retried, defects and interruption never are. Nor is what a retry would only meet again, whatever
 *   `isRetryable` or a schedule says and whatever error wraps it as its `cause`: a refused identity
 *   (`PeerVerificationError`, `IdentityError`), `CircuitOpenError`, `PoolClosedError`, `ScopeClosedError`, `AuditError`, a
 *   `ConnectionError` of reason `LocalFault`, a `RetryBudgetExhaustedError` of a policy further down, and mistakes of the
 *   caller (a `RequestError` of reason `Encode` or `InvalidUrl`, `HttpBodyError`, `InvalidSpiffeIdError`,
 *   `InvalidConfigError`).
 * - An error of an `HttpClient` names its request, and is retried under the rules of {@link withRetry}.
 * - An attempt that exceeds `attemptTimeout` is interrupted; that is a `TimeoutError` like any other, and so retryable.
 * - `totalTimeout` also ends an attempt that is running; a delay that would reach it is not slept.
 *
 * @since 0.1.0
 * @category models
 */
export interface RetryPolicy<out Limits extends Limit = never> extends Schedule.Schedule<number, unknown> {
  readonly [TypeId]: { readonly _Limits: Types.Covariant<Limits> }
  readonly config: RetryConfig.RetryConfig
  /** The budget that its retries draw on, if there is one. */
  readonly budget: RetryBudget | undefined
  readonly stats: Effect.Effect<RetryStats>
  /** Runs an effect, again and again if need be. Running it more than once has to be safe: only the caller knows that. */
  retry<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | AddedError<Limits, E>, R>
}

/**
 * The counts of a policy since it was made. Calls that succeed at once are not counted: they pass untouched.
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
 * The options of {@link make}: a `RetryConfig`, and values that cannot be configured by data.
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
 * The options with the types of their limits.
 *
 * @since 0.1.0
 * @category models
 */
export type OptionsWith<Attempt, Total, Budget> = Omit<Options, "attemptTimeout" | "totalTimeout" | "budget"> & {
  readonly attemptTimeout?: Attempt
  readonly totalTimeout?: Total
  readonly budget?: Budget
}

type TimeLimit = Duration.DurationInput | undefined

/**
 * A policy, of options or of a `Schedule` of the caller's that says when and how often. Its type tells which errors it
 * adds: see {@link AddedError}. Given a policy it is that policy.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { RetryPolicy } from "@agentweave/transport"
 * import { Effect, Schedule } from "effect"
 *
 * declare const fetchInvoice: Effect.Effect<string, { readonly _tag: "Busy"; readonly isRetryable: true }>
 *
 * const program = Effect.gen(function* () {
 *   const policy = yield* RetryPolicy.make({ maxRetries: 5, baseDelay: "100 millis", totalTimeout: "10 seconds" })
 *   return yield* policy.retry(fetchInvoice)
 * }).pipe(Effect.catchTag("TimeoutError", (error) => Effect.succeed(error.message)))
 *
 * const fibonacci = RetryPolicy.make({
 *   schedule: Schedule.intersect(Schedule.fibonacci("100 millis"), Schedule.recurs(5)),
 *   attemptTimeout: "1 second"
 * })
 * ```
 */
export const make: {
  <Limits extends Limit>(policy: RetryPolicy<Limits>): Effect.Effect<RetryPolicy<Limits>, InvalidConfigError>
  (schedule: Schedule.Schedule<unknown, unknown>): Effect.Effect<RetryPolicy, InvalidConfigError>
  <
    Attempt extends TimeLimit = undefined,
    Total extends TimeLimit = undefined,
    Budget extends RetryBudget | undefined = undefined
  >(
    options?: OptionsWith<Attempt, Total, Budget>
  ): Effect.Effect<RetryPolicy<LimitsOf<Attempt | Total, Budget>>, InvalidConfigError>
} = (input: Options | Schedule.Schedule<unknown, unknown> = {}): Effect.Effect<RetryPolicy, InvalidConfigError> =>
  Schedule.isSchedule(input) ? Effect.succeed(ofSchedule(input)) : ofOptions(input)

const ofOptions = (options: Options): Effect.Effect<RetryPolicy, InvalidConfigError> =>
  options instanceof RetryConfig.RetryConfig
    ? Effect.succeed(new internal.Policy<never>(options, undefined, undefined))
    : ofFields(options)

const ofFields = ({ budget, target, ...options }: Options): Effect.Effect<RetryPolicy, InvalidConfigError> =>
  Effect.zipRight(
    decodeOwn({ target, budget }),
    Effect.map(RetryConfig.make(options), (config) => new internal.Policy<never>(config, target, budget))
  )

/** Which limits it has, the overloads say. */
const isPolicy = (schedule: Schedule.Schedule<unknown, unknown>): schedule is internal.Policy<never> =>
  schedule instanceof internal.Policy

/** A schedule needs no check. */
const ofSchedule = (schedule: Schedule.Schedule<unknown, unknown>): internal.Policy<never> =>
  isPolicy(schedule) ? schedule : new internal.Policy(new RetryConfig.RetryConfig({ schedule }), undefined, undefined)

/**
 * A policy as a service of its own tag: an application has as many as it has kinds of calls. The tag's type says which
 * limits the policy may have.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { RetryPolicy } from "@agentweave/transport"
 * import { Context, Effect } from "effect"
 *
 * class Reads extends Context.Tag("app/Reads")<Reads, RetryPolicy.RetryPolicy<"Timeout">>() {}
 *
 * const ReadsLive = RetryPolicy.layer(Reads, { maxRetries: 5, baseDelay: "100 millis", totalTimeout: "10 seconds" })
 *
 * declare const fetchInvoice: Effect.Effect<string, { readonly _tag: "Busy"; readonly isRetryable: true }>
 *
 * const invoice = Effect.flatMap(Reads, (reads) => reads.retry(fetchInvoice)).pipe(Effect.provide(ReadsLive))
 * ```
 */
export const layer: {
  <I, Limits extends Limit>(
    tag: Context.Tag<I, RetryPolicy<Limits>>,
    schedule: Schedule.Schedule<unknown, unknown>
  ): Layer.Layer<I, InvalidConfigError>
  <
    I,
    Limits extends Limit,
    Attempt extends TimeLimit = undefined,
    Total extends TimeLimit = undefined,
    Budget extends RetryBudget | undefined = undefined
  >(
    tag: Context.Tag<I, RetryPolicy<Limits>>,
    options: OptionsWith<Attempt, Total, Budget> & Within<Limits, LimitsOf<Attempt | Total, Budget>>
  ): Layer.Layer<I, InvalidConfigError>
} = <I>(
  tag: Context.Tag<I, RetryPolicy<Limit>>,
  input: Options | Schedule.Schedule<unknown, unknown>
): Layer.Layer<I, InvalidConfigError> =>
  Layer.effect(tag, Schedule.isSchedule(input) ? Effect.succeed(ofSchedule(input)) : ofOptions(input))

/** Refuses options that set a limit which the tag's type does not name. */
type Within<Declared, Set> = [Set] extends [Declared] ? unknown : { readonly limitsNotInTheTypeOfTheTag: Set }

/**
 * {@link layer} with options from `Config`. The tag's type names every limit, because configuration may set them.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { RetryConfig, RetryPolicy } from "@agentweave/transport"
 * import { Config, Context } from "effect"
 *
 * class Reads extends Context.Tag("app/Reads")<Reads, RetryPolicy.RetryPolicy<RetryPolicy.Limit>>() {}
 *
 * const ReadsLive = RetryPolicy.layerConfig(Reads, Config.nested(RetryConfig.config, "READS"))
 * ```
 */
export const layerConfig = <I>(
  tag: Context.Tag<I, RetryPolicy<Limit>>,
  options: Config.Config.Wrap<Options>
): Layer.Layer<I, ConfigError | InvalidConfigError> =>
  Layer.effect(tag, Effect.flatMap(Config.unwrap(options), ofOptions))

/**
 * The backoff of a configuration as a plain `Schedule`.
 *
 * @since 0.1.0
 * @category constructors
 * @deprecated A `RetryPolicy` is a `Schedule` itself.
 */
export const schedule = (config: RetryConfig.RetryConfig): Schedule.Schedule<number, unknown> =>
  new internal.Policy(config, undefined, undefined)

/**
 * An effect or a client under a policy: it can fail with what the policy adds besides.
 *
 * @since 0.1.0
 * @category models
 */
export type Retried<Self, Limits extends Limit> =
  Self extends HttpClient.HttpClient.With<infer E, infer R>
    ? HttpClient.HttpClient.With<E | AddedError<Limits, E>, R>
    : Self extends Effect.Effect<infer A, infer E, infer R>
      ? Effect.Effect<A, E | AddedError<Limits, E>, R>
      : never

type Retryable = HttpClient.HttpClient.With<unknown, unknown> | Effect.Effect<unknown, unknown, unknown>

/**
 * Retries an effect, or the requests of a client, by a policy or by a `Schedule` of the caller's. Of a schedule it takes
 * when and how often; which errors are worth a retry is the default of `RetryConfig`.
 *
 * An effect is run again as it is: that this is safe, only the caller knows. A request is retried under the rules of HTTP:
 *
 * - Only idempotent methods are retried (RFC 9110 section 9.2.2), others only after an error with outcome `NotSent`;
 *   an attempt that timed out may have been processed.
 * - Responses with one of the configured `statuses` are retried; `Retry-After` prolongs the delay, up to `maxDelay`. The
 *   response's body is released first. When retries are used up, the response is the result.
 * - A body that cannot be replayed, a stream or a raw one, is never retried.
 *
 * Changes that a client makes to a request before it is sent (`HttpClient.mapRequest`) are made once, so that all attempts
 * send the same.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { ConnectionPool, RetryPolicy } from "@agentweave/transport"
 * import { Effect, Schedule } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const pool = yield* ConnectionPool.ConnectionPool
 *   const billing = pool
 *     .client("spiffe://example.org/billing")
 *     .pipe(RetryPolicy.withRetry(Schedule.intersect(Schedule.spaced("1 second"), Schedule.recurs(3))))
 *   return yield* billing.get("/invoices/42")
 * })
 * ```
 */
export const withRetry: {
  <Limits extends Limit>(policy: RetryPolicy<Limits>): <Self extends Retryable>(self: Self) => Retried<Self, Limits>
  (schedule: Schedule.Schedule<unknown, unknown>): <Self extends Retryable>(self: Self) => Retried<Self, never>
  <E, R, Limits extends Limit>(
    self: HttpClient.HttpClient.With<E, R>,
    policy: RetryPolicy<Limits>
  ): HttpClient.HttpClient.With<E | AddedError<Limits, E>, R>
  <E, R>(
    self: HttpClient.HttpClient.With<E, R>,
    schedule: Schedule.Schedule<unknown, unknown>
  ): HttpClient.HttpClient.With<E, R>
  <A, E, R, Limits extends Limit>(
    self: Effect.Effect<A, E, R>,
    policy: RetryPolicy<Limits>
  ): Effect.Effect<A, E | AddedError<Limits, E>, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, schedule: Schedule.Schedule<unknown, unknown>): Effect.Effect<A, E, R>
} = dual(2, (self: Retryable, schedule: Schedule.Schedule<unknown, unknown>): Retried<Retryable, Limit> => {
  const policy = ofSchedule(schedule)
  return Effect.isEffect(self) ? policy.retry(self) : policy.retryClient(self)
})

/**
 * {@link withRetry} of an effect.
 *
 * @since 0.1.0
 * @category combinators
 * @deprecated `withRetry` is the same, and so is the policy's method `retry`.
 */
export const retry: {
  <Limits extends Limit>(
    policy: RetryPolicy<Limits>
  ): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | AddedError<Limits, E>, R>
  <A, E, R, Limits extends Limit>(
    self: Effect.Effect<A, E, R>,
    policy: RetryPolicy<Limits>
  ): Effect.Effect<A, E | AddedError<Limits, E>, R>
} = dual(
  2,
  <A, E, R, Limits extends Limit>(
    self: Effect.Effect<A, E, R>,
    policy: RetryPolicy<Limits>
  ): Effect.Effect<A, E | AddedError<Limits, E>, R> => policy.retry(self)
)

/**
 * Whether a value is a `RetryPolicy`.
 *
 * @since 0.1.0
 * @category guards
 */
export const isRetryPolicy = (u: unknown): u is RetryPolicy<Limit> => hasProperty(u, TypeId)
