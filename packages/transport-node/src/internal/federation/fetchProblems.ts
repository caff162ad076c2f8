/** Which failed fetches are problems to tell: one that lasts is told once. Pure. */
import type { IdentityProblem } from "@agentweave/spiffe/IdentityProblem"
import type { BundleEndpointReason } from "../../BundleEndpointError.js"
import type { BundleEndpointEvent } from "../../BundleEndpointEvent.js"

type Problem = Omit<IdentityProblem, "time">

/** Problems told of one endpoint since its last good answer. */
export interface Told {
  /** Why there was no answer. */
  readonly outages: ReadonlySet<BundleEndpointReason>
  /** The last answer that could not be used. */
  readonly discard: string | undefined
}

export const initial: Told = { outages: new Set(), discard: undefined }

/** An answer came, and could not be used. */
const discards: ReadonlySet<BundleEndpointReason> = new Set(["TooLarge", "Malformed", "SequenceRegressed"])

export const step = (self: Told, event: BundleEndpointEvent): readonly [told: Told, problem: Problem | undefined] => {
  if (event._tag === "BundleFetched") {
    const { leftOut } = event
    if (leftOut === undefined || leftOut === self.discard) return [{ ...initial, discard: leftOut }, undefined]
    return [
      { ...initial, discard: leftOut },
      { kind: "Discarded", reason: "Malformed", description: `${leftOut} (at ${event.url})` }
    ]
  }
  const { reason, trustDomain, url } = event
  const description = `bundle of ${trustDomain} at ${url}: ${event.description}`
  if (discards.has(reason)) {
    const discard = `${reason}: ${description}`
    return self.discard === discard
      ? [self, undefined]
      : [
          { ...self, discard },
          { kind: "Discarded", reason, description }
        ]
  }
  return self.outages.has(reason)
    ? [self, undefined]
    : [
        { ...self, outages: new Set(self.outages).add(reason) },
        { kind: "Unavailable", reason, description }
      ]
}
