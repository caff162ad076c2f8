/**
 * A limit on retries as a share of the requests: when most requests fail, retries stop adding to the load. The design is
 * that of Finagle's `RetryBudget`.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { hasProperty } from "effect/Predicate"
import * as Schema from "effect/Schema"
import type { InvalidConfigError } from "./InvalidConfigError.js"
import * as internalConfig from "./internal/config.js"
import * as internal from "./internal/retry/budget.js"

/**
 * Marks a `RetryBudget`.
 *
 * @since 0.1.0
 * @category symbols
 */
export const TypeId: unique symbol = internal.TypeId

/**
 * Marks a `RetryBudget`.
 *
 * @since 0.1.0
 * @category symbols
 */
export type TypeId = typeof TypeId

/**
 * A budget of retries. It is meant to be shared by everything that retries against the same peer.
 *
 * @since 0.1.0
 * @category models
 */
export interface RetryBudget {
  readonly [TypeId]: TypeId
  /**
   * Counts a request; a retry of one is no request. A `RetryPolicy` does so when the first attempt has ended, so that a
   * request that is interrupted before brings nothing.
   */
  readonly deposit: Effect.Effect<void>
  /** Takes what one retry costs; `false` if the budget does not have it. */
  readonly withdraw: Effect.Effect<boolean>
  /** How many retries may start now. */
  readonly balance: Effect.Effect<number>
}

/**
 * A policy that has run out of its budget: the last attempt failed with `lastError`, which would have been retried.
 * Typed, so that the original error can be put back where the difference does not matter:
 * `Effect.catchTag("RetryBudgetExhaustedError", (error) => Effect.fail(error.lastError))`.
 *
 * @since 0.1.0
 * @category errors
 */
export class RetryBudgetExhaustedError<out E = unknown> extends Schema.TaggedError<RetryBudgetExhaustedError>()(
  "RetryBudgetExhaustedError",
  {
    target: Schema.String,
    /** Attempts made, the first one included. */
    attempts: Schema.Number,
    lastError: Schema.Defect
  }
) {
  declare readonly lastError: E

  /** A retry is what there is no budget for. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    const last = this.lastError instanceof Error ? this.lastError.message : String(this.lastError)
    return `expected retries within the budget for ${this.target}, it is used up after attempt ${this.attempts}: ${last}`
  }
}

const options = Schema.Struct({
  /** Retries allowed for each request, from 0 to 1,000. Default 0.2: one retry for five requests. */
  ratio: Schema.optionalWith(internalConfig.NumberIn(0, 1_000, false), { default: () => 0.2 }),
  /** Retries a second that are always allowed, so that a caller with few requests can retry at all. Default 10. */
  minRetriesPerSecond: Schema.optionalWith(internalConfig.NumberIn(0, 1_000_000, false), { default: () => 10 }),
  /** How long a request and a retry count, forgotten in tenths of it. Default 10 seconds. */
  ttl: Schema.optionalWith(internalConfig.PositiveDuration, { default: () => Duration.seconds(10) }),
  /**
   * The peer whose retries it bounds, as a SPIFFE ID: names it in the metrics `TransportMetrics.retryBudget` and
   * `retryBudgetExhausted`. Default: it has no gauge.
   */
  target: Schema.optional(Schema.String)
})

/**
 * Options of a budget, each with its default.
 *
 * @since 0.1.0
 * @category models
 */
export type Options = typeof options.Encoded

const decode = internalConfig.decoder("RetryBudget", options)

/**
 * Makes a budget. Fails with `InvalidConfigError` for options that break a rule.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { RetryBudget, RetryPolicy } from "@agentweave/transport"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const budget = yield* RetryBudget.make({ ratio: 0.1, minRetriesPerSecond: 2 })
 *   const reads = yield* RetryPolicy.make({ budget })
 *   const writes = yield* RetryPolicy.make({ budget, maxRetries: 1 })
 * })
 * ```
 */
export const make = (options: Options = {}): Effect.Effect<RetryBudget, InvalidConfigError> =>
  Effect.flatMap(decode(options), ({ minRetriesPerSecond, ratio, target, ttl }) =>
    internal.make(ratio, minRetriesPerSecond, Duration.toMillis(ttl), target)
  )

/**
 * A budget as a service of its own tag, for all the policies of a program that retry against one peer.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { RetryBudget, RetryPolicy } from "@agentweave/transport"
 * import { Context, Effect } from "effect"
 *
 * class BillingBudget extends Context.Tag("app/BillingBudget")<BillingBudget, RetryBudget.RetryBudget>() {}
 *
 * const program = Effect.gen(function* () {
 *   return yield* RetryPolicy.make({ budget: yield* BillingBudget })
 * }).pipe(Effect.provide(RetryBudget.layer(BillingBudget, { ratio: 0.1 })))
 * ```
 */
export const layer = <I>(tag: Context.Tag<I, RetryBudget>, options: Options = {}): Layer.Layer<I, InvalidConfigError> =>
  Layer.effect(tag, make(options))

/**
 * {@link layer} with options from `Config`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { RetryBudget } from "@agentweave/transport"
 * import { Config, Context } from "effect"
 *
 * class BillingBudget extends Context.Tag("app/BillingBudget")<BillingBudget, RetryBudget.RetryBudget>() {}
 *
 * const BillingBudgetLive = RetryBudget.layerConfig(BillingBudget, { ratio: Config.number("BILLING_RETRIES") })
 * ```
 */
export const layerConfig = <I>(
  tag: Context.Tag<I, RetryBudget>,
  options: Config.Config.Wrap<Options>
): Layer.Layer<I, ConfigError | InvalidConfigError> => Layer.effect(tag, Effect.flatMap(Config.unwrap(options), make))

/**
 * Whether a value is a `RetryBudget`.
 *
 * @since 0.1.0
 * @category guards
 */
export const isRetryBudget = (u: unknown): u is RetryBudget => hasProperty(u, TypeId)
