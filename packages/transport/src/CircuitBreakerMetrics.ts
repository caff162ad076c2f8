/**
 * The metrics of a circuit breaker.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { CircuitState } from "./CircuitState.js"

export {
  /**
   * @since 0.1.0
   * @category models
   */
  CircuitState
}

/**
 * One snapshot of a breaker. The totals count every outcome since the breaker was made; a reset leaves them alone. An
 * interrupted call is in none of them: it leaves the breaker as if it had not been.
 *
 * @since 0.1.0
 * @category models
 */
export const CircuitBreakerMetrics = Schema.Struct({
  state: CircuitState,
  /** Opened by hand: open until a reset, whatever the time. */
  isolated: Schema.Boolean,
  /** Failures in a row, as the breaker counts them. A call that began before the first of them cannot end the row. */
  failureCount: Schema.Number,
  /** Successful probes of the present half-open state; zero in the other states. */
  successCount: Schema.Number,
  /** Probes running now; zero unless half-open. */
  probes: Schema.Number,
  /** Calls that were let through and have ended: the sum of `totalFailures`, `totalSuccesses` and `totalExcluded`. */
  totalCalls: Schema.Number,
  /** Calls that failed, those that came back too late to matter included. */
  totalFailures: Schema.Number,
  /** Calls that succeeded. */
  totalSuccesses: Schema.Number,
  /** Calls that ended with an error that is no fault of the target. */
  totalExcluded: Schema.Number,
  /** Calls refused with a `CircuitOpenError`. */
  totalRejected: Schema.Number,
  /** How often the breaker went from another state to `Open`. */
  totalOpened: Schema.Number,
  /** When the last failure came, by the wall clock. */
  lastFailureTime: Schema.OptionFromNullOr(Schema.DateTimeUtc),
  /** When the present state began, by the wall clock; at first the time the breaker was made. */
  lastStateChange: Schema.DateTimeUtc
}).annotations({ identifier: "CircuitBreakerMetrics" })

/**
 * The counts and the state of a circuit breaker at one moment.
 *
 * @since 0.1.0
 * @category models
 */
export type CircuitBreakerMetrics = typeof CircuitBreakerMetrics.Type
