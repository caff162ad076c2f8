/** Which of the things that happen between us and the agent are problems to tell, each once. Pure. */
import type { IdentityProblem } from "@agentweave/spiffe"
import type { WorkloadApiEvent } from "../WorkloadApiEvent.js"

/** What became of the identity, and what is no event: a call begins, an update was good, one had nothing for us. */
export type Happening =
  | WorkloadApiEvent
  | { readonly _tag: "Called" }
  | { readonly _tag: "Usable" }
  | { readonly _tag: "NotSelected"; readonly description: string }

type Problem = Omit<IdentityProblem.IdentityProblem, "time">

/** What was told and is not over yet. */
export interface Told {
  /** Why the agent gives us nothing; told once each until a good update comes. */
  readonly outages: ReadonlySet<string>
  /** The last discarded update, until a good one comes. */
  readonly discard: string | undefined
  /** Whether the call has brought nothing yet: after a reconnect the agent repeats itself. */
  readonly isFirst: boolean
}

export const initial: Told = { outages: new Set(), discard: undefined, isFirst: true }

type Step = readonly [told: Told, problem: Problem | undefined]

/** That the agent has no identity for us, whichever way it says so. */
const noIdentity = "NoIdentity"

const outage = (self: Told, key: string, problem: Problem): Step =>
  self.outages.has(key) ? [self, undefined] : [{ ...self, outages: new Set(self.outages).add(key) }, problem]

const unavailable = (reason: string, description: string): Problem => ({ kind: "Unavailable", reason, description })

const iso = (millis: number): string => new Date(millis).toISOString()

export const step = (self: Told, happening: Happening): Step => {
  switch (happening._tag) {
    case "Called":
      return [{ ...self, isFirst: true }, undefined]
    case "Usable":
      return [{ ...initial, isFirst: false }, undefined]
    case "Updated":
      return [self, undefined]
    case "UpdateDiscarded": {
      const { description, reason } = happening
      const discard = `${reason}: ${description}`
      const known = self.isFirst && self.discard === discard
      return [{ ...self, discard, isFirst: false }, known ? undefined : { kind: "Discarded", reason, description }]
    }
    case "BundleDiscarded": {
      const { description, reason } = happening
      return [self, { kind: "Discarded", reason, description }]
    }
    case "AuthoritiesLeftOut":
      return [self, { kind: "Discarded", reason: "InvalidBundle", description: happening.description }]
    case "NotSelected":
      return outage(self, noIdentity, unavailable(happening._tag, happening.description))
    case "Withdrawn": {
      const { _tag, description } = happening
      const [told] = outage(self, noIdentity, unavailable(_tag, description))
      return [told, { kind: "Withdrawn", reason: _tag, description }]
    }
    case "Expired": {
      const { _tag, notAfter, spiffeId } = happening
      // The call that brought no successor ends as stalled.
      const [told] = outage(self, "Stalled", unavailable(_tag, ""))
      const description = `the SVID of ${spiffeId} ended at ${iso(notAfter)} and no successor came`
      return [told, { kind: "Expired", reason: _tag, description }]
    }
    case "Disconnected": {
      const { description, reason } = happening
      const kind = reason === "LimitExceeded" ? "Discarded" : "Unavailable"
      return outage(self, reason === "PermissionDenied" ? noIdentity : reason, { kind, reason, description })
    }
    case "InitialWaitOver":
      return [self, unavailable(happening._tag, happening.description)]
    case "Stopped":
      return [self, unavailable(happening._tag, `${happening.description}; the agent is not asked any more`)]
  }
}
