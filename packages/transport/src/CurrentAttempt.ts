/**
 * The number of the attempt a retried effect is in.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"

/**
 * 1 in the first attempt, 2 in the first retry, and so on: set by `RetryPolicy` for each retry, read by layers further
 * down (an audit log, a span). It is not set for a first attempt, which therefore costs
 * nothing, and shows the number of the retry around it if there is one.
 *
 * @since 0.1.0
 * @category tags
 * @example
 * ```ts
 * import { CurrentAttempt } from "@agentweave/transport"
 * import { Effect } from "effect"
 *
 * const program = Effect.flatMap(CurrentAttempt.CurrentAttempt, (attempt) => Effect.log(`attempt ${attempt}`))
 * ```
 */
export class CurrentAttempt extends Context.Reference<CurrentAttempt>()("@agentweave/transport/CurrentAttempt", {
  defaultValue: () => 1
}) {}
