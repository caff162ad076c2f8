/**
 * How a circuit breaker behaves.
 *
 * @since 0.1.0
 */
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import type * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import type { InvalidConfigError } from "./InvalidConfigError.js"
import { isLocalFault } from "./internal/blame.js"
import * as internal from "./internal/config.js"
import { isServerErrorStatus } from "./internal/requestTelemetry.js"
import { TripRule } from "./TripRule.js"

/**
 * The errors a breaker leaves out by default, because they say nothing about the health of the target's service, also
 * when another error wraps them as its `cause`:
 *
 * - a refused identity on either side: `PeerVerificationError`, `IdentityError`;
 * - this side's own limits and ends: `PoolExhaustedError`, `PoolClosedError`, `ScopeClosedError`, `AuditError`, a
 *   `TimeoutError` of phase `Acquire`, a `ConnectionError` of reason `NoAddress` or `LocalFault`, a `CircuitOpenError` of a
 *   breaker further down;
 * - mistakes of the caller: a `RequestError` of reason `Encode` (a header or a body that cannot be sent) or `InvalidUrl`,
 *   `HttpBodyError`, `InvalidSpiffeIdError`, `InvalidConfigError`; and a `ResponseError` of reason `StatusCode` with a status
 *   below 500 (`HttpClient.filterStatusOk` makes them).
 *
 * @since 0.1.0
 * @category guards
 * @example
 * ```ts
 * import { CircuitBreakerConfig } from "@agentweave/transport"
 *
 * class NotFound {
 *   readonly _tag = "NotFound"
 * }
 *
 * const config = CircuitBreakerConfig.make({
 *   isExcluded: (error) => error instanceof NotFound || CircuitBreakerConfig.isExcludedByDefault(error)
 * })
 * ```
 */
export const isExcludedByDefault = (error: unknown): boolean => isLocalFault(error)

/**
 * The results that count as failures by default, wherever a breaker sees one: an `HttpClientResponse`, or a `Response` of
 * `fetch`, with a status of 500 or above. A 4xx is the caller's.
 *
 * @since 0.1.0
 * @category guards
 */
export const isFailureByDefault = (value: unknown): boolean =>
  typeof value === "object" &&
  value !== null &&
  (HttpClientResponse.TypeId in value || value instanceof Response) &&
  "status" in value &&
  typeof value.status === "number" &&
  isServerErrorStatus(value.status)

const fields = Schema.Struct({
  /** Failures in a row that open the breaker. Default 5. A `rule` takes its place. */
  failureThreshold: Schema.optionalWith(internal.NumberIn(1), { default: () => 5 }),
  /** Successful probes that close a half-open breaker. Default 2. */
  successThreshold: Schema.optionalWith(internal.NumberIn(1), { default: () => 2 }),
  /** How long the breaker stays open before it lets probes through. Default 30 seconds. */
  timeout: Schema.optionalWith(internal.PositiveDuration, { default: () => Duration.seconds(30) }),
  /** The open time grows by this factor each time a probe fails. Default 1: it stays the same. */
  timeoutMultiplier: Schema.optionalWith(internal.NumberIn(1, 1_000, false), { default: () => 1 }),
  /** Longest open time when it grows. Default 5 minutes, or `timeout` if that is longer. */
  maxTimeout: Schema.optional(internal.PositiveDuration),
  /** Probes that may run at once while half-open. Default `successThreshold`. */
  halfOpenMaxCalls: Schema.optional(internal.NumberIn(1)),
  /** When the breaker opens. Default `TripRule.consecutiveFailures(failureThreshold)`. */
  rule: Schema.optional(TripRule),
  /** Errors that count as neither success nor failure. Default {@link isExcludedByDefault}. */
  isExcluded: Schema.optionalWith(internal.FunctionOf<(error: unknown) => boolean>(), {
    default: () => isExcludedByDefault
  }),
  /** Results that count as failures although the effect succeeded. Default {@link isFailureByDefault}. */
  isFailure: Schema.optionalWith(internal.FunctionOf<(value: unknown) => boolean>(), {
    default: () => isFailureByDefault
  })
}).pipe(
  Schema.filter((config) =>
    config.maxTimeout !== undefined && Duration.lessThan(config.maxTimeout, config.timeout)
      ? {
          path: ["maxTimeout"],
          message: `expected at least timeout ${Duration.format(config.timeout)}, got ${Duration.format(config.maxTimeout)}`
        }
      : undefined
  )
)

/**
 * The configuration of a breaker: all fields have defaults, all are checked.
 *
 * @since 0.1.0
 * @category models
 */
export class CircuitBreakerConfig extends Schema.Class<CircuitBreakerConfig>(
  "@agentweave/transport/CircuitBreakerConfig"
)(fields) {}

/**
 * The options of {@link make}: every field optional, every duration a `DurationInput`. A `CircuitBreakerConfig` is one too.
 *
 * @since 0.1.0
 * @category models
 */
export type Options = typeof CircuitBreakerConfig.Encoded

/**
 * Checks options and fills in defaults.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { CircuitBreakerConfig, TripRule } from "@agentweave/transport"
 *
 * const config = CircuitBreakerConfig.make({
 *   rule: TripRule.failureRatio({ ratio: 0.5, window: "10 seconds", minimumCalls: 20 }),
 *   timeout: "5 seconds",
 *   timeoutMultiplier: 2
 * })
 * ```
 */
export const make: (options: Options) => Either.Either<CircuitBreakerConfig, InvalidConfigError> = internal.decoder(
  "CircuitBreakerConfig",
  CircuitBreakerConfig
)

/**
 * All defaults.
 *
 * @since 0.1.0
 * @category constants
 */
export const defaults: CircuitBreakerConfig = new CircuitBreakerConfig({})

/**
 * The configuration read from `Config`: `failureThreshold`, `successThreshold`, `timeout`, `timeoutMultiplier`,
 * `maxTimeout`, `halfOpenMaxCalls`, each optional.
 *
 * @since 0.1.0
 * @category config
 */
export const config: Config.Config<CircuitBreakerConfig> = internal.fromConfig(
  Config.all({
    failureThreshold: internal.optional(Config.integer("failureThreshold")),
    successThreshold: internal.optional(Config.integer("successThreshold")),
    timeout: internal.optionalDuration("timeout"),
    timeoutMultiplier: internal.optional(Config.number("timeoutMultiplier")),
    maxTimeout: internal.optionalDuration("maxTimeout"),
    halfOpenMaxCalls: internal.optional(Config.integer("halfOpenMaxCalls"))
  }),
  internal.decoder("CircuitBreakerConfig", CircuitBreakerConfig as Schema.Schema<CircuitBreakerConfig, unknown>)
)
