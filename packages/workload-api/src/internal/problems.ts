/** Which of the things that happen between us and the agent are problems to tell, each once. Pure. */
import type { IdentityProblem } from "@agentweave/spiffe"
import type { WorkloadApiEvent } from "../WorkloadApiEvent.js"
import { isoDate } from "./dates.js"

/** Steps of the identity, also those that are no events: a call begins, an update was good, one had nothing for us. */
export type ReportedEvent =
  | WorkloadApiEvent
  | { readonly _tag: "Called" }
  | { readonly _tag: "Usable" }
  | { readonly _tag: "NotSelected"; readonly description: string }

type Problem = Omit<IdentityProblem.IdentityProblem, "time">

/** The problems that were reported and are not over yet. */
export interface Reported {
  /** Why the agent gives us nothing; reported once each until a good update comes. */
  readonly outages: ReadonlySet<string>
  /** The last discarded update, until a good one comes. */
  readonly discard: string | undefined
  /** Whether the call has brought nothing yet: after a reconnect the agent repeats itself. */
  readonly isFirst: boolean
}

export const initial: Reported = { outages: new Set(), discard: undefined, isFirst: true }

type Step = readonly [reported: Reported, problem: Problem | undefined]

/** That the agent has no identity for us, whichever way it says so. */
const noIdentity = "NoIdentity"

const outage = (self: Reported, key: string, problem: Problem): Step =>
  self.outages.has(key) ? [self, undefined] : [{ ...self, outages: new Set(self.outages).add(key) }, problem]

const unavailable = (reason: string, description: string): Problem => ({ kind: "Unavailable", reason, description })

export const step = (self: Reported, event: ReportedEvent): Step => {
  switch (event._tag) {
    case "Called":
      return [{ ...self, isFirst: true }, undefined]
    case "Usable":
      return [{ ...initial, isFirst: false }, undefined]
    case "Updated":
      return [self, undefined]
    case "UpdateDiscarded": {
      const { description, reason } = event
      const discard = `${reason}: ${description}`
      const known = self.isFirst && self.discard === discard
      return [{ ...self, discard, isFirst: false }, known ? undefined : { kind: "Discarded", reason, description }]
    }
    case "BundleDiscarded": {
      const { description, reason } = event
      return [self, { kind: "Discarded", reason, description }]
    }
    case "AuthoritiesLeftOut":
      return [self, { kind: "Discarded", reason: "InvalidBundle", description: event.description }]
    case "NotSelected":
      return outage(self, noIdentity, unavailable(event._tag, event.description))
    case "Withdrawn": {
      const { _tag, description } = event
      const [reported] = outage(self, noIdentity, unavailable(_tag, description))
      return [reported, { kind: "Withdrawn", reason: _tag, description }]
    }
    case "Expired": {
      const { _tag, notAfter, spiffeId } = event
      // The call that brought no successor ends as stalled.
      const [reported] = outage(self, "Stalled", unavailable(_tag, ""))
      const description = `the SVID of ${spiffeId} ended at ${isoDate(notAfter)} and no successor came`
      return [reported, { kind: "Expired", reason: _tag, description }]
    }
    case "Disconnected": {
      const { description, reason } = event
      const kind = reason === "LimitExceeded" ? "Discarded" : "Unavailable"
      return outage(self, reason === "PermissionDenied" ? noIdentity : reason, { kind, reason, description })
    }
    case "InitialWaitOver":
      return [self, unavailable(event._tag, event.description)]
    case "Stopped":
      return [self, unavailable(event._tag, `${event.description}; the agent is not asked any more`)]
  }
}
