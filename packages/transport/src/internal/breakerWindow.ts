import * as Duration from "effect/Duration"
import type { TripRule } from "../TripRule.js"
import { SlidingCounts } from "./slidingCounts.js"

/** What a trip rule sees of the calls. Mutable; time comes in as an argument. */
export interface Window {
  /** Records one outcome and says whether the breaker has to open. */
  readonly record: (matches: boolean, now: number) => boolean
  /** Whether this window looks for slow calls, and from how many milliseconds on a call is one. */
  readonly slowerThan: number | undefined
}

type Single = Exclude<TripRule, { readonly _tag: "AnyOf" }>
type Ratio = Exclude<Single, { readonly _tag: "ConsecutiveFailures" }>

/** A trip rule taken apart: the failures in a row that open, and the windows that do. */
export interface Trip {
  readonly threshold: number
  readonly windows: () => ReadonlyArray<Window>
}

export const fromRule = (rule: TripRule): Trip => {
  const rules: ReadonlyArray<Single> = rule._tag === "AnyOf" ? rule.rules : [rule]
  const thresholds = rules.flatMap((rule) => (rule._tag === "ConsecutiveFailures" ? [rule.threshold] : []))
  const ratios = rules.flatMap((rule) => (rule._tag === "ConsecutiveFailures" ? [] : [rule]))
  return { threshold: Math.min(...thresholds), windows: () => ratios.map(make) }
}

const make = (rule: Ratio): Window => {
  const minimum = rule.minimumCalls ?? rule.calls ?? 10
  const slowerThan = rule._tag === "SlowCallRatio" ? Duration.toMillis(rule.slowerThan) : undefined
  const trips = (matching: number, total: number): boolean => total >= minimum && matching >= rule.ratio * total
  return {
    slowerThan,
    record: rule.calls === undefined ? timeWindow(rule.window, trips) : countWindow(rule.calls, trips)
  }
}

/** The latest `size` outcomes, in a ring. */
const countWindow = (size: number, trips: (matching: number, total: number) => boolean): Window["record"] => {
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
): Window["record"] => {
  const counts = new SlidingCounts(Duration.toMillis(length ?? Duration.infinity), 2)
  return (matches, now) => {
    counts.add(0, now)
    if (matches) {
      counts.add(1, now)
    }
    return trips(counts.sum(1, now), counts.sum(0, now))
  }
}
