import type { SpiffeIdRule } from "../InvalidSpiffeIdError.js"

/** The first rule of the SPIFFE-ID grammar a text breaks: SPIFFE-ID sections 2.1, 2.2 and 2.3. */
export interface Violation {
  readonly rule: SpiffeIdRule
  readonly expected: string
  readonly position?: number
}

/** `spiffe://`, lower-case only: the scheme is compared on the raw text, never through a URL parser. */
export const spiffeScheme = "spiffe://"

/** SPIFFE-ID section 2.3: implementations must support IDs up to 2048 bytes, and must not generate longer ones. */
export const maxIdLength = 2048

/** SPIFFE-ID section 2.1: a trust domain name is at most 255 bytes, as an authority of RFC 3986 is. */
export const maxTrustDomainLength = 255

const isTrustDomainCode = (code: number): boolean =>
  (code >= 0x61 && code <= 0x7a) || (code >= 0x30 && code <= 0x39) || code === 0x2e || code === 0x2d || code === 0x5f

const isPathCode = (code: number): boolean => isTrustDomainCode(code) || (code >= 0x41 && code <= 0x5a)

/** Checks `text[from, to)` as a trust domain name. */
export const trustDomainViolation = (text: string, from: number, to: number): Violation | undefined => {
  if (to === from) return { rule: "TrustDomainEmpty", expected: "a trust domain name", position: from }
  if (to - from > maxTrustDomainLength) {
    return { rule: "TrustDomainTooLong", expected: `a trust domain name of at most ${maxTrustDomainLength} bytes` }
  }
  for (let i = from; i < to; i++) {
    if (!isTrustDomainCode(text.charCodeAt(i))) {
      return {
        rule: "TrustDomainCharacter",
        expected: "a trust domain name of a-z, 0-9, '.', '-' and '_'",
        position: i
      }
    }
  }
  return undefined
}

/** Checks `text[from, end)` as a path that starts with `/`; an empty path is the caller's to judge. */
const pathViolation = (text: string, from: number): Violation | undefined => {
  let start = from + 1
  for (let i = start; i <= text.length; i++) {
    const end = i === text.length
    if (!end && text.charCodeAt(i) !== 0x2f) {
      if (isPathCode(text.charCodeAt(i))) continue
      return { rule: "PathCharacter", expected: "path segments of A-Z, a-z, 0-9, '.', '-' and '_'", position: i }
    }
    if (i === start) {
      return end
        ? { rule: "PathTrailingSlash", expected: "a path without a trailing slash", position: i - 1 }
        : { rule: "PathSegmentEmpty", expected: "no empty path segment", position: i }
    }
    const segment = text.slice(start, i)
    if (segment === "." || segment === "..") {
      return { rule: "PathSegmentDot", expected: "no '.' or '..' path segment", position: start }
    }
    start = i + 1
  }
  return undefined
}

/** The index at which the path of a text with the right scheme begins (its length when it has none). */
export const pathStart = (text: string): number => {
  const slash = text.indexOf("/", spiffeScheme.length)
  return slash === -1 ? text.length : slash
}

/** Checks a whole text as the SPIFFE ID of a workload: a path is required. */
export const spiffeIdViolation = (text: string): Violation | undefined => {
  if (text.length === 0) return { rule: "Empty", expected: "a SPIFFE ID" }
  if (text.length > maxIdLength) return { rule: "TooLong", expected: `a SPIFFE ID of at most ${maxIdLength} bytes` }
  if (!text.startsWith(spiffeScheme)) {
    return { rule: "Scheme", expected: "a SPIFFE ID that starts with spiffe://", position: 0 }
  }
  const path = pathStart(text)
  const domain = trustDomainViolation(text, spiffeScheme.length, path)
  if (domain !== undefined) return domain
  if (path === text.length) return { rule: "PathMissing", expected: "a workload's SPIFFE ID, with a path" }
  return pathViolation(text, path)
}
