import * as HttpClientError from "@effect/platform/HttpClientError"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"
import * as UrlParams from "@effect/platform/UrlParams"
import * as Either from "effect/Either"
import * as Option from "effect/Option"

/** Where a request goes: an https origin, and the base path that relative URLs are appended to. */
export interface BaseUrl {
  /** `https://host[:port]`, the default port left out. */
  readonly origin: string
  /** Host name or IP address, IPv6 without brackets. */
  readonly host: string
  readonly port: number
  /** Empty, or a path that starts with a slash and does not end with one. */
  readonly prefix: string
}

/** A request's base and its request target in origin form (RFC 9112 section 3.2.1). */
export interface RequestTarget {
  readonly base: BaseUrl
  readonly path: string
}

/** The host of a URL or of `host:port` as sockets take it: an IPv6 address without its brackets (RFC 3986 section 3.2.2). */
export const hostOf = (hostname: string): string => hostname.replace(/^\[|\]$/g, "")

/** `host:port` as in a URL: an IPv6 address in brackets (RFC 3986 section 3.2.2). */
export const addressOf = (host: string, port: number): string => `${host.includes(":") ? `[${host}]` : host}:${port}`

const baseOf = (url: URL, prefix: string): BaseUrl => ({
  origin: url.origin,
  host: hostOf(url.hostname),
  port: url.port === "" ? 443 : Number(url.port),
  prefix
})

/** The fault of an https URL, or `undefined` when it is fine. */
const refusal = (url: URL): string | undefined => {
  if (url.protocol !== "https:") {
    return `expected an https: URL, got ${url.protocol}//${url.host}: plaintext is refused before a socket opens`
  }
  if (url.username !== "" || url.password !== "") return "expected a URL without user information"
  return undefined
}

/** Reads a base URL; the Left says what was expected and what came. */
export const parseBase = (text: string | URL): Either.Either<BaseUrl, string> => {
  const url = typeof text === "string" ? (URL.canParse(text) ? new URL(text) : undefined) : text
  if (url === undefined) return Either.left(`expected an absolute https: URL, got ${JSON.stringify(text)}`)
  const refused = refusal(url)
  if (refused !== undefined) return Either.left(refused)
  if (url.search !== "" || url.hash !== "") {
    return Either.left(`expected a base URL without query and fragment, got ${JSON.stringify(url.href)}`)
  }
  return Either.right(baseOf(url, url.pathname.replace(/\/+$/, "")))
}

const invalid = (request: HttpClientRequest, description: string) =>
  Either.left(new HttpClientError.RequestError({ request, reason: "InvalidUrl", description }))

/** Printable ASCII that `URL` would leave as it is, no dot segment, no fragment, no backslash, no apostrophe. */
const plainPath = /^\/(?!\/)(?:(?!\/(?:\.|%2[eE]))[!$-&(-;=?-[\]_a-z~])*$/

/**
 * Resolves a request's URL. A relative URL is appended to the base; an absolute one must be https and, where there is
 * a base, of its origin: that is what keeps a redirect (RFC 9110 section 15.4) from leaving the peer's origin.
 */
export const resolve = (
  base: BaseUrl | undefined,
  request: HttpClientRequest
): Either.Either<RequestTarget, HttpClientError.RequestError> => {
  const text = request.url
  if (base !== undefined && request.urlParams.length === 0 && plainPath.test(text)) {
    return Either.right({ base, path: base.prefix === "" ? text : base.prefix + text })
  }
  return resolveSlow(base, request)
}

const isAbsolute = (text: string): boolean => /^[a-zA-Z][a-zA-Z0-9+.-]*:/.test(text)

/** A request's URL with its origin: what followers of redirects and readers of errors expect of a request. */
export const absolute = (base: BaseUrl, text: string): string => {
  if (text.startsWith("/")) return base.origin + base.prefix + text
  if (isAbsolute(text)) return text
  return `${base.origin}${base.prefix}${text === "" || text.startsWith("?") || text.startsWith("#") ? "" : "/"}${text}`
}

const resolveSlow = (
  base: BaseUrl | undefined,
  request: HttpClientRequest
): Either.Either<RequestTarget, HttpClientError.RequestError> => {
  const text = request.url
  if (!isAbsolute(text) && base === undefined) {
    return invalid(
      request,
      `expected an absolute https: URL (this channel has no base URL), got ${JSON.stringify(text)}`
    )
  }
  if (text.startsWith("//")) {
    return invalid(request, `expected a path or an https: URL, got ${JSON.stringify(text)}`)
  }
  const made = UrlParams.makeUrl(base === undefined ? text : absolute(base, text), request.urlParams, Option.none())
  if (Either.isLeft(made)) return invalid(request, `expected a URL, got ${JSON.stringify(text)}: ${made.left.message}`)
  const url = made.right
  const refused = refusal(url)
  if (refused !== undefined) return invalid(request, refused)
  if (base !== undefined && url.origin !== base.origin) {
    return invalid(
      request,
      `expected a URL of ${base.origin}, got ${url.origin}: a channel never leaves its peer's origin`
    )
  }
  return Either.right({ base: base ?? baseOf(url, ""), path: url.pathname + url.search })
}
