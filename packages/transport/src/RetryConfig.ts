/**
 * How often, when and what to retry.
 *
 * @since 0.1.0
 */
import type * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as ParseResult from "effect/ParseResult"
import { hasProperty } from "effect/Predicate"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { InvalidConfigError } from "./InvalidConfigError.js"
import * as internal from "./internal/config.js"
import * as retryable from "./internal/retry/retryable.js"
import { optionsFromConfig } from "./internal/retry/retryOptions.js"

/**
 * The errors that are retried by default, connections that failed and limits of time:
 *
 * - those whose `isRetryable` is `true`; of the errors of this package: lost, refused or unreachable connections and
 *   limits of time;
 * - Effect's `TimeoutException`, and the `TimeoutError` that `AbortSignal.timeout` aborts with;
 * - errors with a code of Node or undici for these, such as `ECONNREFUSED`, `ECONNRESET` or `ETIMEDOUT`, also inside an
 *   `UnknownException` or a `TypeError` of `fetch`;
 * - a `RequestError` of an `HttpClient` with reason `Transport`, unless its cause says otherwise.
 *
 * @since 0.1.0
 * @category guards
 */
export const isRetryableByDefault: (error: unknown) => boolean = retryable.isRetryableByDefault

/** 2^31 - 1 milliseconds, the longest a JavaScript timer waits. */
const longestDelay = Duration.millis(2_147_483_647)

const ScheduleValue = internal.ValueOf("a Schedule", (input: unknown): input is Schedule.Schedule<unknown, unknown> =>
  Schedule.isSchedule(input)
)

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
  /**
   * When and how often to retry, in place of `maxRetries`, `baseDelay`, `exponentialBase` and `jitter`, which then have no
   * meaning. Its input is the error, or the response whose status is worth a retry. `maxDelay` still bounds a
   * `Retry-After`. Default none.
   */
  schedule: Schema.optional(ScheduleValue),
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
  /**
   * Limit for one attempt, which is interrupted when it is over. Default none. A policy that is used as a bare `Schedule`
   * cannot keep it: `withRetry` and the policy's own `retry` do.
   */
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
 * The fields that {@link make} takes: every field optional, every duration a `DurationInput`. A `RetryConfig` is one too.
 *
 * @since 0.1.0
 * @category models
 */
export type Options = typeof RetryConfig.Encoded

/**
 * The configuration of retries, wherever one is taken: fields, or a `Schedule` of the caller's in place of the numbers.
 * A `RetryPolicy` is a `Schedule`, and brings its configuration with it.
 *
 * @since 0.1.0
 * @category models
 */
export type Input = Options | Schedule.Schedule<unknown, unknown>

const decode = internal.decoder("RetryConfig", RetryConfig)

const numbers = ["maxRetries", "baseDelay", "exponentialBase", "jitter"] as const

const both = (options: Options | null | undefined): InvalidConfigError | undefined => {
  if (typeof options !== "object" || options === null) return undefined
  const given = numbers.find((name) => options[name] !== undefined)
  return options.schedule === undefined || options instanceof RetryConfig || given === undefined
    ? undefined
    : new InvalidConfigError({
        config: "RetryConfig",
        field: given,
        description: "expected either a schedule or the numbers of one, got both"
      })
}

/**
 * Checks options and fills in defaults. The configuration of a `RetryPolicy` is its own; one with a budget is refused,
 * because a configuration has no place for it.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { RetryConfig } from "@agentweave/transport"
 * import { Schedule } from "effect"
 *
 * const config = RetryConfig.make({ maxRetries: 5, baseDelay: "100 millis", totalTimeout: "10 seconds" })
 *
 * const spaced = RetryConfig.make(Schedule.intersect(Schedule.spaced("1 second"), Schedule.recurs(5)))
 * ```
 */
export const make = (input: Input): Either.Either<RetryConfig, InvalidConfigError> => {
  if (!Schedule.isSchedule(input)) {
    const refused = both(input)
    return refused === undefined ? decode(input) : Either.left(refused)
  }
  return configOf(input)
}

/** A policy is known by what it has: its module builds on this one. */
const configOf = (schedule: Schedule.Schedule<unknown, unknown>): Either.Either<RetryConfig, InvalidConfigError> => {
  if (!hasProperty(schedule, "config") || !(schedule.config instanceof RetryConfig)) return decode({ schedule })
  return hasProperty(schedule, "budget") && schedule.budget !== undefined
    ? Either.left(
        new InvalidConfigError({
          config: "RetryConfig",
          field: "budget",
          description:
            "expected a policy without a budget here: a budget is given to withRetry, or to Transport as retryBudget"
        })
      )
    : Either.right(schedule.config)
}

/**
 * A configuration, or the schedule that takes its place, as a field of another configuration.
 *
 * @internal
 */
export const FromInput: Schema.Schema<RetryConfig, Input> = Schema.transformOrFail(
  Schema.declare((_: unknown): _ is Input => true),
  Schema.typeSchema(RetryConfig),
  {
    strict: true,
    decode: (input, options, ast) =>
      Schedule.isSchedule(input)
        ? Either.mapLeft(configOf(input), (error) => new ParseResult.Type(ast, input, error.description))
        : ParseResult.decodeUnknown(RetryConfig, options)(input),
    encode: (config, options) => ParseResult.encode(RetryConfig, options)(config)
  }
)

/**
 * All defaults.
 *
 * @since 0.1.0
 * @category constants
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
