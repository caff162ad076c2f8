/**
 * The rejection of a call by a circuit breaker.
 *
 * @since 0.1.0
 */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import { CircuitBreakerMetrics } from "./CircuitBreakerMetrics.js"

/**
 * The breaker of `target` did not let the call through. `metrics` is the breaker at that moment, `retryAfter` the time
 * until it will let calls through again: zero while half-open (a probe can end at any moment), infinite when isolated.
 *
 * The breaker's own instances carry no stack: a rejection costs less than the work it saves.
 *
 * @since 0.1.0
 * @category errors
 */
export class CircuitOpenError extends Schema.TaggedError<CircuitOpenError>()("CircuitOpenError", {
  target: Schema.String,
  metrics: CircuitBreakerMetrics,
  retryAfter: Schema.Duration
}) {
  /** The breaker knows when to try again: retrying on top of it would only add load. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    const { failureCount, isolated, lastStateChange, probes, state } = this.metrics
    if (isolated) {
      return `isolated: expected a closed circuit to ${this.target}, it was opened by hand and stays open until it is reset`
    }
    return state === "HalfOpen"
      ? `HalfOpen: expected a free probe of the circuit to ${this.target}, all ${probes} are in use`
      : `Open: expected a closed circuit to ${this.target}, it opened at ${DateTime.formatIso(lastStateChange)} with ${failureCount} failures in a row; retry in ${Duration.format(this.retryAfter)}`
  }
}
