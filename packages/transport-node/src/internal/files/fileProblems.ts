/** Events of identity files, as problems to tell. Pure. */
import type { IdentityProblem, IdentityProblemKind } from "@agentweave/spiffe/IdentityProblem"
import type { Fault } from "./parts.js"

type Problem = Omit<IdentityProblem, "time">

const kindOf = ({ error: { reason }, isServing }: Fault): IdentityProblemKind => {
  if (reason === "Unavailable") return "Unavailable"
  return reason === "Expired" && isServing ? "Expired" : "Discarded"
}

/** Faults are told once by whoever compares them with those before. */
export const ofFault = (fault: Fault): Problem => ({
  kind: kindOf(fault),
  reason: fault.error.reason,
  description: fault.error.description
})

export const ofWatch = (directory: string, code: string): Problem => ({
  kind: "Unavailable",
  reason: "WatchFailed",
  description: `directory ${directory}: expected to be told of changes, got ${code}; they are found at the next poll`
})

export const ofExposure = (path: string): Problem => ({
  kind: "Exposed",
  reason: "KeyExposed",
  description: `key ${path}: expected a file for its owner alone, everybody on the machine may read it`
})
