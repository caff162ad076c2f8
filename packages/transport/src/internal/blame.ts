/**
 * Decides from an error whose fault it is, also when another error wraps it: a circuit breaker counts the target's faults
 * only, and a retry mends neither a refused identity nor a mistake of the caller.
 */
import * as Cause from "effect/Cause"
import { hasProperty } from "effect/Predicate"
import * as Runtime from "effect/Runtime"
import { isServerErrorStatus } from "./requestTelemetry.js"

/** Wrappers within wrappers that are looked into; an error can hold itself. */
const maxDepth = 16

/** The errors directly inside an error: its `cause`, a retry's last error, what Effect's own wrappers hold. */
const inside = (error: unknown): ReadonlyArray<unknown> => {
  if (typeof error !== "object" || error === null) return []
  if (Cause.isCause(error)) return [...Cause.failures(error), ...Cause.defects(error)]
  if (Runtime.isFiberFailure(error)) return [error[Runtime.FiberFailureCauseId]]
  if (hasProperty(error, "_tag") && error._tag === "RetryBudgetExhaustedError" && hasProperty(error, "lastError")) {
    return [error.lastError]
  }
  return hasProperty(error, "cause") ? [error.cause] : []
}

/** Whether the error, or one that it wraps, is such a one. */
const holds = (error: unknown, is: (error: unknown) => boolean, depth = 0): boolean =>
  is(error) || (depth < maxDepth && inside(error).some((cause) => holds(cause, is, depth + 1)))

const tagOf = (error: unknown): unknown => (hasProperty(error, "_tag") ? error._tag : undefined)

const reasonOf = (error: unknown): unknown => (hasProperty(error, "reason") ? error.reason : undefined)

/** A request that could not be sent as its caller made it: an invalid URL or header, a body that failed. */
const isCallersFault = (error: unknown): boolean => {
  const tag = tagOf(error)
  return tag === "HttpBodyError" || (tag === "RequestError" && reasonOf(error) !== "Transport")
}

/** A response that was made an error and is no failure of the target: its status is below 500. */
const isCallersStatus = (error: unknown): boolean =>
  tagOf(error) === "ResponseError" &&
  reasonOf(error) === "StatusCode" &&
  hasProperty(error, "response") &&
  hasProperty(error.response, "status") &&
  typeof error.response.status === "number" &&
  !isServerErrorStatus(error.response.status)

/** A retry meets the same refusal: identities, what has ended on this side, malformed input. */
const final: ReadonlySet<unknown> = new Set([
  "AuditError",
  "CircuitOpenError",
  "IdentityError",
  "InvalidConfigError",
  "InvalidSpiffeIdError",
  "PeerVerificationError",
  "PoolClosedError",
  "RetryBudgetExhaustedError",
  "ScopeClosedError"
])

/** Refusals by this side that say nothing about the target. A `RetryBudgetExhaustedError` is what its last error is. */
const local: ReadonlySet<unknown> = new Set([
  "AuditError",
  "CircuitOpenError",
  "IdentityError",
  "InvalidConfigError",
  "InvalidSpiffeIdError",
  "PeerVerificationError",
  "PoolClosedError",
  "PoolExhaustedError",
  "ScopeClosedError"
])

/** The phases in which this side waits for itself: a free connection, its own request's body, its own reader of a response. */
const ownPhases: ReadonlySet<unknown> = new Set(["Acquire", "RequestBody", "Read"])

/** This machine has nothing left to make a connection of. */
const isOfThisMachine = (error: unknown): boolean =>
  tagOf(error) === "ConnectionError" && reasonOf(error) === "LocalFault"

/** This side's own limit on connections or slowness, or its directory. */
const isOwnLimit = (error: unknown): boolean =>
  (tagOf(error) === "ConnectionError" && reasonOf(error) === "NoAddress") ||
  isOfThisMachine(error) ||
  (tagOf(error) === "TimeoutError" && hasProperty(error, "phase") && ownPhases.has(error.phase))

/** A peer that closes each new connection without a word. */
const mayRefuseUs = (error: unknown): boolean =>
  tagOf(error) === "ConnectionError" && reasonOf(error) === "MaybeRefused"

/** A retry would meet the same refusal, whatever a predicate or a schedule says. */
export const isFinal = (error: unknown): boolean =>
  holds(error, (each) => final.has(tagOf(each)) || isCallersFault(each) || isOfThisMachine(each) || mayRefuseUs(each))

/** An error that says nothing about the health of the target. */
export const isLocalFault = (error: unknown): boolean =>
  holds(error, (each) => local.has(tagOf(each)) || isCallersFault(each) || isCallersStatus(each) || isOwnLimit(each))
