/** Decides which errors are worth a retry by default. */
import { hasProperty } from "effect/Predicate"

/** The codes by which Node, and undici in it, report a connection that failed or a limit of time that passed. */
const transientCodes: ReadonlySet<unknown> = new Set([
  "ECONNABORTED",
  "ECONNREFUSED",
  "ECONNRESET",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "EPIPE",
  "ETIMEDOUT",
  "UND_ERR_BODY_TIMEOUT",
  "UND_ERR_CONNECT_TIMEOUT",
  "UND_ERR_HEADERS_TIMEOUT",
  "UND_ERR_SOCKET"
])

/** The verdict of the error itself, or `undefined` when it has none. */
const verdict = (error: object): boolean | undefined => {
  if ("isRetryable" in error && typeof error.isRetryable === "boolean") return error.isRetryable
  if (hasProperty(error, "_tag") && error._tag === "TimeoutException") return true
  // `AbortSignal.timeout` aborts with a `DOMException` of this name.
  if (hasProperty(error, "name") && error.name === "TimeoutError") return true
  return hasProperty(error, "code") && transientCodes.has(error.code) ? true : undefined
}

const maxDepth = 16

/** A rejected promise, and what an `HttpClient` or a reader of its response's body failed with. */
const wrappers: ReadonlySet<unknown> = new Set(["UnknownException", "RequestError", "ResponseError"])

/** The error inside one that says nothing by itself; `fetch failed` is a `TypeError`. */
const heldBy = (error: object): unknown => {
  const isWrapper = error instanceof TypeError || (hasProperty(error, "_tag") && wrappers.has(error._tag))
  return isWrapper && hasProperty(error, "cause") ? error.cause : undefined
}

const verdictOf = (error: unknown, depth: number): boolean | undefined => {
  if (typeof error !== "object" || error === null || depth > maxDepth) return undefined
  return verdict(error) ?? verdictOf(heldBy(error), depth + 1)
}

export const isRetryableByDefault = (error: unknown): boolean => {
  const isTransport =
    hasProperty(error, "_tag") && error._tag === "RequestError" && hasProperty(error, "reason")
      ? error.reason === "Transport"
      : undefined
  return isTransport === false ? false : (verdictOf(error, 0) ?? isTransport ?? false)
}
