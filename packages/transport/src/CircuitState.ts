/**
 * The states of a circuit breaker.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * - `Closed`: normal operation, every call passes through.
 * - `Open`: every call is rejected at once, until the open time is over (or, when isolated by hand, until a reset).
 * - `HalfOpen`: a few calls pass through, to see whether the target has recovered.
 *
 * @since 0.1.0
 * @category models
 */
export const CircuitState = Schema.Literal("Closed", "Open", "HalfOpen")

/**
 * The state of a circuit breaker.
 *
 * @since 0.1.0
 * @category models
 */
export type CircuitState = typeof CircuitState.Type
