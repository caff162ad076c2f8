/** When the bundle of an endpoint is fetched again. */
import * as Duration from "effect/Duration"
import type { Endpoint } from "./endpointState.js"

export interface Intervals {
  /** Where the bundle has no hint. */
  readonly refresh: Duration.Duration
  readonly min: Duration.Duration
  readonly max: Duration.Duration
  /** After the first failed attempt, before any bundle was fetched. */
  readonly retryBase: Duration.Duration
}

/** How often a bundle is asked for: its own hint within bounds, else the default (section 4.1). */
const refreshInterval = (self: Endpoint, intervals: Intervals): Duration.Duration =>
  Duration.clamp(self.bundle?.refreshHint ?? intervals.refresh, { minimum: intervals.min, maximum: intervals.max })

/**
 * The time to the next attempt; `random` in `[0, 1)` spreads it so that a fleet does not ask all at once. A failed refresh
 * waits for the next regular one, as section 6.2 asks; only before the first bundle are attempts closer, each delay twice
 * the one before.
 */
export const nextDelay = (self: Endpoint, intervals: Intervals, random: number): Duration.Duration => {
  const refresh = refreshInterval(self, intervals)
  if (self.fetched || self.failures === 0) return Duration.times(refresh, 1 - random * 0.1)
  const backoff = Duration.times(intervals.retryBase, 2 ** Math.min(self.failures - 1, 30))
  return Duration.times(Duration.min(backoff, refresh), 1 - random * 0.5)
}
