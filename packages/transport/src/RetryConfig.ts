/**
 * How often, when and what to retry.
 *
 * @since 0.1.0
 */
import type * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import type * as Either from "effect/Either"
import { hasProperty } from "effect/Predicate"
import * as Schema from "effect/Schema"
import type { InvalidConfigError } from "./InvalidConfigError.js"
import * as internal from "./internal/config.js"
import { optionsFromConfig } from "./internal/retryOptions.js"

/**
 * The errors that are retried by default: those whose `isRetryable` is `true` (of the errors of this package: lost,
 * refused or unreachable connections and time limits), Effect's `TimeoutException`, and `RequestError`s of an `HttpClient`
 * with reason `Transport`.
 *
 * @since 0.1.0
 * @category refinements
 */
export const isRetryableByDefault = (error: unknown): boolean =>
  (hasProperty(error, "isRetryable") && error.isRetryable === true) ||
  (hasProperty(error, "_tag") &&
    (error._tag === "TimeoutException" ||
      (error._tag === "RequestError" && hasProperty(error, "reason") && error.reason === "Transport")))

/** 2^31 - 1 milliseconds, the longest a JavaScript timer waits. */
const longestDelay = Duration.millis(2_147_483_647)

const notLessThan =
  (field: "maxDelay" | "totalTimeout", other: "baseDelay" | "attemptTimeout") =>
  (config: { readonly [K in typeof field | typeof other]?: Duration.Duration | undefined }) => {
    const [value, least] = [config[field], config[other]]
    return value !== undefined && least !== undefined && Duration.lessThan(value, least)
      ? {
          path: [field],
          message: `expected at least ${other} ${Duration.format(least)}, got ${Duration.format(value)}`
        }
      : undefined
  }

const fields = Schema.Struct({
  /** Retries after the first attempt. Default 3; 0 turns retrying off. */
  maxRetries: Schema.optionalWith(internal.NumberIn(0), { default: () => 3 }),
  /** The delay before the first retry, before jitter. Default 1 second. */
  baseDelay: Schema.optionalWith(internal.NonNegativeDuration, { default: () => Duration.seconds(1) }),
  /** The longest delay, one that the peer asked for with `Retry-After` included. Default 30 seconds. */
  maxDelay: Schema.optionalWith(
    internal.NonNegativeDuration.pipe(
      Schema.filter(
        (delay) =>
          Duration.lessThanOrEqualTo(delay, longestDelay) ||
          `expected at most ${Duration.format(longestDelay)}, got ${Duration.format(delay)}`
      )
    ),
    { default: () => Duration.seconds(30) }
  ),
  /** The delay grows by this factor with each retry. Default 2. */
  exponentialBase: Schema.optionalWith(internal.NumberIn(1, Number.MAX_SAFE_INTEGER, false), { default: () => 2 }),
  /** Whether a delay is drawn between zero and the computed one, by Effect's `Random`. Default `true`. */
  jitter: Schema.optionalWith(internal.Flag, { default: () => true }),
  /** Which errors are worth a retry. Default {@link isRetryableByDefault}. */
  isRetryable: Schema.optionalWith(internal.FunctionOf<(error: unknown) => boolean>(), {
    default: () => isRetryableByDefault
  }),
  /** The HTTP statuses that are worth a retry. Default 408, 429, 502, 503 and 504. */
  statuses: Schema.optionalWith(Schema.Array(internal.NumberIn(100, 599)), {
    default: () => [408, 429, 502, 503, 504]
  }),
  /** Limit for one attempt, which is interrupted when it is over. Default none. */
  attemptTimeout: Schema.optional(internal.PositiveDuration),
  /** Limit for all attempts and delays together: no attempt starts after it. Default none. */
  totalTimeout: Schema.optional(internal.PositiveDuration)
}).pipe(
  Schema.filter(notLessThan("maxDelay", "baseDelay")),
  Schema.filter(notLessThan("totalTimeout", "attemptTimeout"))
)

/**
 * The configuration of retries: all fields have defaults, all are checked.
 *
 * @since 0.1.0
 * @category models
 */
export class RetryConfig extends Schema.Class<RetryConfig>("@agentweave/transport/RetryConfig")(fields) {}

/**
 * What {@link make} takes: every field optional, every duration a `DurationInput`. A `RetryConfig` is one too.
 *
 * @since 0.1.0
 * @category models
 */
export type Options = typeof RetryConfig.Encoded

/**
 * Checks options and fills in defaults.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { RetryConfig } from "@agentweave/transport"
 *
 * const config = RetryConfig.make({ maxRetries: 5, baseDelay: "100 millis", totalTimeout: "10 seconds" })
 * ```
 */
export const make: (options: Options) => Either.Either<RetryConfig, InvalidConfigError> = internal.decoder(
  "RetryConfig",
  RetryConfig
)

/**
 * All defaults.
 *
 * @since 0.1.0
 * @category constructors
 */
export const defaults: RetryConfig = new RetryConfig({})

/**
 * The configuration read from `Config`: `maxRetries`, `baseDelay`, `maxDelay`, `exponentialBase`, `jitter`, `statuses`
 * (separated by commas), `attemptTimeout`, `totalTimeout`, each optional.
 *
 * @since 0.1.0
 * @category config
 */
export const config: Config.Config<RetryConfig> = internal.fromConfig(optionsFromConfig, make)
