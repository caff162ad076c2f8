/** The time between two attempts: of the policy's own numbers, with jitter, or of a caller's schedule. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type * as Schedule from "effect/Schedule"
import * as ScheduleDecision from "effect/ScheduleDecision"
import * as ScheduleIntervals from "effect/ScheduleIntervals"
import type { RetryConfig } from "../../RetryConfig.js"

/**
 * The delay before retry number `attempt` (0 for the first), in whole milliseconds: `min(base * exponentialBase^attempt,
 * max)`, and with jitter anything between zero and that.
 */
export const delay = (config: RetryConfig, attempt: number): Effect.Effect<number> => {
  const base = Duration.toMillis(config.baseDelay)
  // 0 * Infinity is NaN: no base delay, no delay.
  const grown = base === 0 ? 0 : base * config.exponentialBase ** attempt
  const longest = Math.min(grown, Duration.toMillis(config.maxDelay))
  return config.jitter ? Effect.map(Random.next, (random) => Math.round(longest * random)) : Effect.succeed(longest)
}

/**
 * The delay before the next retry by a schedule of the caller's, in milliseconds, and the schedule's next state; `undefined`
 * when it does not go on.
 */
export const scheduled = (
  schedule: Schedule.Schedule<unknown, unknown>,
  input: unknown,
  state: unknown,
  now: number
): Effect.Effect<readonly [state: unknown, delay: number | undefined]> =>
  Effect.map(schedule.step(now, input, state), ([next, _, decision]) => [
    next,
    ScheduleDecision.isDone(decision) ? undefined : Math.max(0, ScheduleIntervals.start(decision.intervals) - now)
  ])
