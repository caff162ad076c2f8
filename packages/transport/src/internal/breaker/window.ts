import * as Duration from "effect/Duration"
import type { CallOutcome, TripRule } from "../../TripRule.js"
import { SlidingCounts } from "../metrics/slidingCounts.js"

/** The part of a trip rule that sees every call. Mutable; time comes in as an argument, in milliseconds. */
export interface Window {
  /** Whether it looks at the duration of a call. */
  readonly timed: boolean
  /** Records one outcome and says whether the breaker has to open. */
  readonly record: (outcome: CallOutcome, now: number) => boolean
  /** Whether a call of this duration is slow, and so a failed probe. */
  readonly isSlow: (duration: number) => boolean
}

type Single = Exclude<TripRule, { readonly _tag: "AnyOf" }>
type Windowed = Exclude<Single, { readonly _tag: "ConsecutiveFailures" }>
type Custom = Extract<Single, { readonly _tag: "Custom" }>
type Ratio = Exclude<Windowed, Custom>

/** A trip rule taken apart: the failures in a row that open, and the windows that do. */
export interface Trip {
  readonly threshold: number
  readonly windows: () => ReadonlyArray<Window>
}

export const fromRule = (rule: TripRule): Trip => {
  const rules: ReadonlyArray<Single> = rule._tag === "AnyOf" ? rule.rules : [rule]
  const thresholds = rules.flatMap((rule) => (rule._tag === "ConsecutiveFailures" ? [rule.threshold] : []))
  const windowed = rules.flatMap((rule) => (rule._tag === "ConsecutiveFailures" ? [] : [rule]))
  return { threshold: Math.min(...thresholds), windows: () => windowed.map(make) }
}

const make = (rule: Windowed): Window => (rule._tag === "Custom" ? custom(rule) : ratio(rule))

const custom = (rule: Custom): Window => {
  let state = rule.initial
  return {
    timed: true,
    isSlow: () => false,
    record: (outcome, now) => {
      const [next, opens] = rule.step(state, outcome, now)
      state = next
      return opens
    }
  }
}

const ratio = (rule: Ratio): Window => {
  const minimum = rule.minimumCalls ?? rule.calls ?? 10
  const trips = (matching: number, total: number): boolean => total >= minimum && matching >= rule.ratio * total
  const record = rule.calls === undefined ? timeWindow(rule.window, trips) : countWindow(rule.calls, trips)
  if (rule._tag === "FailureRatio") {
    return { timed: false, isSlow: () => false, record: ({ failed }, now) => record(failed, now) }
  }
  const slowerThan = Duration.toMillis(rule.slowerThan)
  return {
    timed: true,
    isSlow: (duration) => duration > slowerThan,
    record: ({ duration }, now) => record(duration > slowerThan, now)
  }
}

type Record = (matches: boolean, now: number) => boolean

/** The latest `size` outcomes, in a ring. */
const countWindow = (size: number, trips: (matching: number, total: number) => boolean): Record => {
  const ring = new Uint8Array(size)
  let next = 0
  let total = 0
  let matching = 0
  return (matches) => {
    const value = matches ? 1 : 0
    matching += value - (ring[next] ?? 0)
    ring[next] = value
    next = next + 1 === size ? 0 : next + 1
    if (total < size) {
      total++
    }
    return trips(matching, total)
  }
}

/** The outcomes of the last `length`. */
const timeWindow = (
  length: Duration.Duration | undefined,
  trips: (matching: number, total: number) => boolean
): Record => {
  const counts = new SlidingCounts(Duration.toMillis(length ?? Duration.infinity), 2)
  return (matches, now) => {
    counts.add(0, now)
    if (matches) {
      counts.add(1, now)
    }
    return trips(counts.sum(1, now), counts.sum(0, now))
  }
}
