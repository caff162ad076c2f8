/** A retry policy as a `Schedule`: the same retries and delays for `Effect.retry` and everything else that takes one. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ScheduleDecision from "effect/ScheduleDecision"
import * as ScheduleInterval from "effect/ScheduleInterval"
import type { RetryBudget } from "../../RetryBudget.js"
import type { RetryConfig } from "../../RetryConfig.js"
import { isFinal } from "../blame.js"
import { delay, scheduled } from "./backoff.js"
import type { Rules } from "./retry.js"

export interface State {
  /** How often it was asked. */
  readonly retries: number
  /** When the first failure came, in the milliseconds a `Schedule` is given. */
  readonly since: number | undefined
  /** The state of a schedule of the caller's. */
  readonly inner: unknown
}

export const initial = (config: RetryConfig): State => ({
  retries: 0,
  since: undefined,
  inner: config.schedule?.initial
})

type Decided = readonly [State, number, ScheduleDecision.ScheduleDecision]

/** The delay in milliseconds and the next inner state; no delay when there is to be no further retry. */
const backoff = (
  config: RetryConfig,
  now: number,
  input: unknown,
  { inner, retries }: State
): Effect.Effect<readonly [inner: unknown, delay: number | undefined]> => {
  if (config.schedule !== undefined) return scheduled(config.schedule, input, inner, now)
  return retries >= config.maxRetries
    ? Effect.succeed([inner, undefined])
    : Effect.map(delay(config, retries), (millis) => [inner, millis])
}

export const step = (
  config: RetryConfig,
  budget: RetryBudget | undefined,
  rules: Rules<unknown, unknown>,
  now: number,
  input: unknown,
  state: State
): Effect.Effect<Decided> =>
  Effect.suspend(() => {
    const { retries } = state
    // A combinator may go on where this schedule has ended, and then asks it again.
    const done: Decided = [{ ...state, retries: retries + 1 }, retries, ScheduleDecision.done]
    if (isFinal(input) || !rules.retriesError(input)) return Effect.succeed(done)
    const since = state.since ?? now
    return Effect.flatMap(backoff(config, now, input, state), ([inner, delay]) => {
      if (delay === undefined) return Effect.succeed(done)
      const asked = Math.min(rules.notBefore(input, now), Duration.toMillis(config.maxDelay))
      const startsAt = now + Math.max(delay, asked)
      if (config.totalTimeout !== undefined && startsAt >= since + Duration.toMillis(config.totalTimeout)) {
        return Effect.succeed(done)
      }
      const next: Decided = [
        { retries: retries + 1, since, inner },
        retries,
        ScheduleDecision.continueWith(ScheduleInterval.after(startsAt))
      ]
      return budget === undefined
        ? Effect.succeed(next)
        : Effect.map(budget.withdraw, (granted) => (granted ? next : done))
    })
  })
