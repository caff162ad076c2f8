/**
 * When a circuit breaker opens, as a value.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import * as internal from "./internal/config.js"

const ConsecutiveFailures = Schema.TaggedStruct("ConsecutiveFailures", {
  /** So many failures in a row. */
  threshold: internal.NumberIn(1)
})

const window = {
  /** Opens at this share of the window or more; above 0, at most 1. */
  ratio: internal.NumberIn(Number.MIN_VALUE, 1, false),
  /** The window is the latest so many calls. */
  calls: Schema.optional(internal.NumberIn(1, 1_000_000)),
  /** The window is so much time, counted in tenths: what a tenth holds leaves together with it. */
  window: Schema.optional(internal.PositiveDuration),
  /** Fewer calls in the window are no evidence. Default: all `calls`, or 10 in a window of time. */
  minimumCalls: Schema.optional(internal.NumberIn(1, 1_000_000))
}

const oneWindow = (rule: { readonly calls?: unknown; readonly window?: unknown }) =>
  (rule.calls === undefined) === (rule.window === undefined)
    ? { path: ["window"], message: "expected one of calls and window, got both or neither" }
    : undefined

const reachable = (rule: { readonly calls?: number | undefined; readonly minimumCalls?: number | undefined }) =>
  rule.calls !== undefined && rule.minimumCalls !== undefined && rule.minimumCalls > rule.calls
    ? { path: ["minimumCalls"], message: `expected at most calls ${rule.calls}, got ${rule.minimumCalls}` }
    : undefined

const FailureRatio = Schema.TaggedStruct("FailureRatio", window).pipe(
  Schema.filter(oneWindow),
  Schema.filter(reachable)
)

const SlowCallRatio = Schema.TaggedStruct("SlowCallRatio", {
  ...window,
  /** A call that took longer is slow, whether it succeeded or failed. */
  slowerThan: internal.PositiveDuration
}).pipe(Schema.filter(oneWindow), Schema.filter(reachable))

/**
 * How one call ended. Excluded errors and interrupted calls are not seen by a rule.
 *
 * @since 0.1.0
 * @category models
 */
export interface CallOutcome {
  readonly failed: boolean
  /** How long the call took, in milliseconds. */
  readonly duration: number
}

type Step<S> = (state: S, outcome: CallOutcome, now: number) => readonly [state: S, opens: boolean]

const Custom = Schema.TaggedStruct("Custom", {
  /** The state the rule begins with, each time the breaker closes. */
  initial: Schema.Unknown,
  /** The state after one more call, and whether the breaker has to open. */
  step: internal.FunctionOf<Step<unknown>>()
})

const Single = Schema.Union(ConsecutiveFailures, FailureRatio, SlowCallRatio, Custom)

/**
 * - `ConsecutiveFailures`: so many failures in a row.
 * - `FailureRatio`: a share of failures in a window of calls or of time.
 * - `SlowCallRatio`: a share of slow calls in such a window; a slow probe then also counts as a failure.
 * - `Custom`: what a pure function of the caller's makes of the calls.
 * - `AnyOf`: as soon as one of the rules says so.
 *
 * @since 0.1.0
 * @category models
 */
export const TripRule = Schema.Union(
  ...Single.members,
  Schema.TaggedStruct("AnyOf", { rules: Schema.NonEmptyArray(Single) })
)

/**
 * The rule by which a closed circuit opens.
 *
 * @since 0.1.0
 * @category models
 */
export type TripRule = typeof TripRule.Type

/**
 * A rule before its values are checked, which `CircuitBreakerConfig.make` does. A `TripRule` is one too.
 *
 * @since 0.1.0
 * @category models
 */
export type Options = typeof TripRule.Encoded

/**
 * A rule that is not made of others.
 *
 * @since 0.1.0
 * @category models
 */
export type SingleOptions = typeof Single.Encoded

/**
 * Opens after `threshold` failures in a row: the default rule, with the configuration's `failureThreshold`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { CircuitBreaker, TripRule } from "@agentweave/transport"
 *
 * const breaker = CircuitBreaker.make({
 *   target: "spiffe://example.org/billing",
 *   rule: TripRule.consecutiveFailures(3)
 * })
 * ```
 */
export const consecutiveFailures = (threshold: number): SingleOptions => ({ _tag: "ConsecutiveFailures", threshold })

/**
 * Opens when `ratio` or more of the calls in the window failed. The window is the latest `calls`, or a time.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { TripRule } from "@agentweave/transport"
 *
 * const ofTheLastHundredCalls = TripRule.failureRatio({ ratio: 0.5, calls: 100 })
 * const ofTheLastTenSeconds = TripRule.failureRatio({ ratio: 0.5, window: "10 seconds", minimumCalls: 20 })
 * ```
 */
export const failureRatio = (options: Omit<typeof FailureRatio.Encoded, "_tag">): SingleOptions => ({
  ...options,
  _tag: "FailureRatio"
})

/**
 * Opens when `ratio` or more of the calls in the window took longer than `slowerThan`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { TripRule } from "@agentweave/transport"
 *
 * const halfAreSlow = TripRule.slowCallRatio({ ratio: 0.5, slowerThan: "2 seconds", window: "30 seconds", minimumCalls: 20 })
 * ```
 */
export const slowCallRatio = (options: Omit<typeof SlowCallRatio.Encoded, "_tag">): SingleOptions => ({
  ...options,
  _tag: "SlowCallRatio"
})

/**
 * A rule of one's own: a state, and what one more call makes of it. It is asked after every call that ended while the
 * breaker is closed, and begins anew each time the breaker closes. `now` is in milliseconds that never run backwards, from
 * an arbitrary origin. `step` has to be pure and quick; what it throws is a defect of the call.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { CircuitBreaker, TripRule } from "@agentweave/transport"
 *
 * // Opens when three failures come within one second of each other.
 * const burst = TripRule.custom<ReadonlyArray<number>>([], (failures, { failed }, now) => {
 *   const recent = failed ? [...failures.filter((at) => now - at < 1_000), now] : failures
 *   return [recent, recent.length >= 3]
 * })
 *
 * const breaker = CircuitBreaker.make({ target: "spiffe://example.org/billing", rule: burst })
 * ```
 */
export const custom = <S>(initial: S, step: Step<S>): SingleOptions => ({
  _tag: "Custom",
  initial,
  // The state comes from `initial` and from `step` itself.
  step: (state, outcome, now) => step(state as S, outcome, now)
})

/**
 * Opens as soon as one of the rules says so.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { TripRule } from "@agentweave/transport"
 *
 * const rule = TripRule.anyOf(
 *   TripRule.consecutiveFailures(5),
 *   TripRule.failureRatio({ ratio: 0.5, calls: 100 })
 * )
 * ```
 */
export const anyOf = (rule: SingleOptions, ...rules: ReadonlyArray<SingleOptions>): Options => ({
  _tag: "AnyOf",
  rules: [rule, ...rules]
})
