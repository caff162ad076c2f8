import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { CurrentAttempt } from "../../CurrentAttempt.js"
import { type RetryBudget, RetryBudgetExhaustedError } from "../../RetryBudget.js"
import type { RetryConfig } from "../../RetryConfig.js"
import { TimeoutError } from "../../TransportError.js"
import { isFinal } from "../blame.js"
import { currentClock, millis } from "../clock.js"
import { clockOf, withFiber } from "../fiber.js"
import { delay, scheduled } from "./backoff.js"
import { Budget } from "./budget.js"

/** Decides which outcomes of an attempt are retried. `A` and `E` are what an attempt ends with. */
export interface Rules<in A, in E> {
  /** Whether results are looked at; if not, `retriesValue` is not asked. */
  readonly watchesValues: boolean
  retriesValue(value: A): boolean
  retriesError(error: E | TimeoutError): boolean
  /** Milliseconds the peer asks to wait. */
  notBefore(outcome: A | E | TimeoutError, wallClock: number): number
  /** The name of the operation, for an error. */
  describe(): string
  /** Lets go of an outcome that nobody will see, within `limit` milliseconds. */
  discard(outcome: A | E | TimeoutError, limit: number): Effect.Effect<void>
}

/** The state that all calls under one policy share. */
export interface Shared {
  readonly config: RetryConfig
  readonly target: string | undefined
  /** Whether there is a limit of time: something to set up before the first attempt. */
  readonly timed: boolean
  readonly budget: RetryBudget | undefined
  readonly counters: Counters
}

export interface Counters {
  retries: number
  recovered: number
  exhausted: number
  notRetryable: number
  outOfTime: number
  overBudget: number
  attemptTimeouts: number
  totalTimeouts: number
  delayed: number
}

/** Everything a policy can add to the errors of an effect. */
export type Raised<E> = E | TimeoutError | RetryBudgetExhaustedError<E | TimeoutError>

/** Runs an effect under a policy. Nothing is set up before the first failure unless there is a limit of time. */
export const run = <A, E, R>(
  shared: Shared,
  effect: Effect.Effect<A, E, R>,
  rules: Rules<A, E>
): Effect.Effect<A, Raised<E>, R> => {
  if (shared.timed) {
    return limited(shared, effect, rules)
  }
  const call = firstFailure(shared, effect, rules)
  return rules.watchesValues || shared.budget !== undefined
    ? Effect.matchCauseEffect(effect, { onFailure: call, onSuccess: firstValue(shared, effect, rules) })
    : Effect.catchAllCause(effect, call)
}

/** Ends a call whose only attempt has come to an outcome: the budget counts a request. */
const deposited = <A, E>(budget: RetryBudget | undefined, outcome: Effect.Effect<A, E>): Effect.Effect<A, E> => {
  if (budget === undefined) return outcome
  if (!(budget instanceof Budget)) return Effect.zipRight(budget.deposit, outcome)
  budget.noteRequest(millis(currentClock()))
  return outcome
}

const firstFailure =
  <A, E, R>(shared: Shared, effect: Effect.Effect<A, E, R>, rules: Rules<A, E>) =>
  (cause: Cause.Cause<E>): Effect.Effect<A, Raised<E>, R> =>
    new Call(shared, effect, rules, Number.POSITIVE_INFINITY).failed(cause)

const firstValue =
  <A, E, R>(shared: Shared, effect: Effect.Effect<A, E, R>, rules: Rules<A, E>) =>
  (value: A): Effect.Effect<A, Raised<E>, R> =>
    rules.watchesValues && rules.retriesValue(value)
      ? new Call(shared, effect, rules, Number.POSITIVE_INFINITY).answered(value)
      : deposited(shared.budget, Effect.succeed(value))

const limited = <A, E, R>(
  shared: Shared,
  effect: Effect.Effect<A, E, R>,
  rules: Rules<A, E>
): Effect.Effect<A, Raised<E>, R> => {
  const { totalTimeout } = shared.config
  return withFiber<A, Raised<E>, R>((fiber) => {
    const deadline =
      totalTimeout === undefined ? Number.POSITIVE_INFINITY : millis(clockOf(fiber)) + Duration.toMillis(totalTimeout)
    return new Call(shared, effect, rules, deadline).attempt()
  })
}

/** One run of the effect, with its attempts. */
class Call<A, E, R> {
  private readonly shared: Shared
  private readonly effect: Effect.Effect<A, E, R>
  private readonly rules: Rules<A, E>
  /** Monotonic milliseconds; no attempt starts then or later. */
  private readonly deadline: number
  private attempts = 1
  /** That of a schedule of the caller's. */
  private state: unknown

  constructor(shared: Shared, effect: Effect.Effect<A, E, R>, rules: Rules<A, E>, deadline: number) {
    this.shared = shared
    this.effect = effect
    this.rules = rules
    this.deadline = deadline
    this.state = shared.config.schedule?.initial
  }

  private target(): string {
    return this.shared.target ?? this.rules.describe()
  }

  attempt(): Effect.Effect<A, Raised<E>, R> {
    const numbered =
      this.attempts === 1 ? this.effect : Effect.provideService(this.effect, CurrentAttempt, this.attempts)
    return Effect.matchCauseEffect(this.limited(numbered), {
      onFailure: (cause) => this.failed(cause),
      onSuccess: (value) => this.answered(value)
    })
  }

  failed(cause: Cause.Cause<E | TimeoutError>): Effect.Effect<A, Raised<E>, R> {
    const failure = Cause.failureOption(cause)
    if (Option.isNone(failure)) {
      return Cause.isInterruptedOnly(cause) ? Effect.failCause(cause) : this.end(Effect.failCause(cause))
    }
    const error = failure.value
    if (isFinal(error) || !this.rules.retriesError(error)) {
      this.shared.counters.notRetryable++
      return this.end(Effect.failCause(cause))
    }
    return this.again(error, Effect.failCause(cause), () =>
      Effect.fail(new RetryBudgetExhaustedError({ target: this.target(), attempts: this.attempts, lastError: error }))
    )
  }

  answered(value: A): Effect.Effect<A, Raised<E>, R> {
    const result = Effect.succeed(value)
    if (this.rules.watchesValues && this.rules.retriesValue(value)) {
      return this.again(value, result, () => result)
    }
    if (this.attempts > 1) {
      this.shared.counters.recovered++
    }
    return this.end(result)
  }

  /** The end of the call, which its budget counts unless a retry has made it do so. */
  private end<B, F>(outcome: Effect.Effect<B, F>): Effect.Effect<B, F> {
    return this.attempts === 1 ? deposited(this.shared.budget, outcome) : outcome
  }

  /** Waits and tries again, or ends with what there is. */
  private again(
    outcome: A | E | TimeoutError,
    giveUp: Effect.Effect<A, Raised<E>>,
    overBudget: () => Effect.Effect<A, Raised<E>>
  ): Effect.Effect<A, Raised<E>, R> {
    const { config, counters } = this.shared
    return Effect.flatMap(this.backoff(outcome), (backoff) =>
      backoff === undefined
        ? Effect.zipRight(
            Effect.sync(() => counters.exhausted++),
            Effect.suspend(() => this.end(giveUp))
          )
        : withFiber<A, Raised<E>, R>((fiber) => {
            const clock = clockOf(fiber)
            const asked = Math.min(
              this.rules.notBefore(outcome, clock.unsafeCurrentTimeMillis()),
              Duration.toMillis(config.maxDelay)
            )
            const wait = Math.max(backoff, asked)
            const startsAt = millis(clock) + wait
            if (startsAt >= this.deadline) {
              counters.outOfTime++
              return this.end(giveUp)
            }
            return this.next(outcome, wait, startsAt, overBudget)
          })
    )
  }

  /** The delay before the next attempt in milliseconds, or `undefined` when there is none. */
  private backoff(outcome: A | E | TimeoutError): Effect.Effect<number | undefined> {
    const { config } = this.shared
    const { schedule } = config
    if (schedule === undefined) {
      return this.attempts > config.maxRetries ? Effect.succeed(undefined) : delay(config, this.attempts - 1)
    }
    return withFiber((fiber) =>
      Effect.map(
        scheduled(schedule, outcome, this.state, clockOf(fiber).unsafeCurrentTimeMillis()),
        ([state, delay]) => {
          this.state = state
          return delay
        }
      )
    )
  }

  /** Waits and makes the next attempt. */
  private next(
    outcome: A | E | TimeoutError,
    wait: number,
    startsAt: number,
    overBudget: () => Effect.Effect<A, Raised<E>>
  ): Effect.Effect<A, Raised<E>, R> {
    const { budget, counters } = this.shared
    const waited = Effect.zipRight(
      this.rules.discard(outcome, wait),
      Effect.map(sleepUntil(startsAt), () => {
        counters.retries++
        counters.delayed += wait
        this.attempts++
        return true
      })
    )
    const granted = budget === undefined ? waited : withinBudget(budget, waited, this.attempts === 1)
    return Effect.flatMap(granted, (isGranted) => {
      if (isGranted) return this.attempt()
      counters.overBudget++
      return overBudget()
    })
  }

  /** The attempt's own limit or what is left of the whole, whichever ends first. */
  private limited(attempt: Effect.Effect<A, E, R>): Effect.Effect<A, E | TimeoutError, R> {
    const { attemptTimeout, totalTimeout } = this.shared.config
    if (attemptTimeout === undefined && totalTimeout === undefined) {
      return attempt
    }
    return withFiber<A, E | TimeoutError, R>((fiber) => {
      const left = this.deadline - millis(clockOf(fiber))
      const own = attemptTimeout === undefined ? Number.POSITIVE_INFINITY : Duration.toMillis(attemptTimeout)
      const phase = own < left ? "Attempt" : "Total"
      const limit = phase === "Attempt" ? attemptTimeout : totalTimeout
      return Effect.timeoutFail(attempt, {
        duration: Math.min(own, left),
        onTimeout: () => {
          this.shared.counters[phase === "Attempt" ? "attemptTimeouts" : "totalTimeouts"]++
          return outOfTime(phase, limit ?? Duration.infinity, this.target())
        }
      })
    })
  }
}

/** The attempt may have reached the peer before it was cut off. */
export const outOfTime = (phase: "Attempt" | "Total", limit: Duration.Duration, target: string): TimeoutError =>
  new TimeoutError({ phase, outcome: "Unknown", limit, target })

/**
 * Takes what a retry costs; the first retry of a call counts the request before that. If the wait for the retry does not
 * come to its end, both are taken back. A budget that somebody else has made has no way to do so.
 */
const withinBudget = (budget: RetryBudget, wait: Effect.Effect<boolean>, isFirst: boolean): Effect.Effect<boolean> => {
  if (!(budget instanceof Budget)) {
    const withdraw = isFirst ? Effect.zipRight(budget.deposit, budget.withdraw) : budget.withdraw
    return Effect.flatMap(withdraw, (granted) => (granted ? wait : Effect.succeed(false)))
  }
  return Effect.uninterruptibleMask((restore) =>
    withFiber((fiber) => {
      const now = millis(clockOf(fiber))
      if (isFirst) budget.noteRequest(now)
      if (!budget.take(now)) return Effect.succeed(false)
      return Effect.onInterrupt(restore(wait), () =>
        Effect.sync(() => {
          budget.giveBack(now)
          if (isFirst) budget.forgetRequest(now)
        })
      )
    })
  )
}

const sleepUntil = (time: number): Effect.Effect<void> =>
  withFiber((fiber) => {
    const left = time - millis(clockOf(fiber))
    return left > 0 ? Effect.sleep(left) : Effect.void
  })
