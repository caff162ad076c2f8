import type { SpiffeBundle } from "@agentweave/spiffe/SpiffeBundle"
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import type { BundleEndpoint } from "../../BundleEndpoint.js"
import { BundleEndpointError } from "../../BundleEndpointError.js"
import { describeUrl } from "./endpointUrl.js"

/** The state of one endpoint. */
export interface Endpoint {
  readonly endpoint: BundleEndpoint
  /** The last good bundle. */
  readonly bundle: SpiffeBundle | undefined
  /** The highest sequence number seen. */
  readonly sequence: bigint | undefined
  /** Whether a bundle was ever fetched, as opposed to configured. */
  readonly fetched: boolean
  /** Failed attempts since the last good one. */
  readonly failures: number
}

export interface Intervals {
  /** Where the bundle has no hint. */
  readonly refresh: Duration.Duration
  readonly min: Duration.Duration
  readonly max: Duration.Duration
  /** After the first failed attempt, before any bundle was fetched. */
  readonly retryBase: Duration.Duration
}

export const initial = (endpoint: BundleEndpoint): Endpoint => ({
  endpoint,
  bundle: endpoint.bundle,
  sequence: endpoint.bundle?.sequence,
  fetched: false,
  failures: 0
})

/**
 * Takes a fetched bundle, unless its sequence number is lower than one already seen. Without a number the bundle fetched
 * last is the newest (SPIFFE_Federation section 4.2), and the highest number seen stays in force.
 */
export const accept = (self: Endpoint, bundle: SpiffeBundle): Either.Either<Endpoint, BundleEndpointError> => {
  const { sequence } = bundle
  if (sequence !== undefined && self.sequence !== undefined && sequence < self.sequence) {
    return Either.left(
      new BundleEndpointError({
        reason: "SequenceRegressed",
        trustDomain: self.endpoint.trustDomain,
        url: describeUrl(self.endpoint.url),
        description: `expected a sequence number of at least ${self.sequence}, got ${sequence}`
      })
    )
  }
  return Either.right({ ...self, bundle, sequence: sequence ?? self.sequence, fetched: true, failures: 0 })
}

export const reject = (self: Endpoint): Endpoint => ({ ...self, failures: self.failures + 1 })

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
