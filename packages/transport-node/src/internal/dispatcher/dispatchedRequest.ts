import * as Headers from "@effect/platform/Headers"
import * as HttpBody from "@effect/platform/HttpBody"
import * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import { isHttpMethod } from "@effect/platform/HttpMethod"
import * as Either from "effect/Either"
import type { Dispatcher } from "undici"

type Pairs = Array<readonly [string, string]>

const textOf = (value: unknown): string =>
  value instanceof Uint8Array ? Buffer.from(value).toString("latin1") : String(value)

const valuesOf = (value: unknown): ReadonlyArray<unknown> =>
  value === undefined || value === null ? [] : Array.isArray(value) ? value : [value]

/** Header fields in all forms that undici takes: names and values by turns, a record, pairs. */
const pairsOf = (headers: Dispatcher.DispatchOptions["headers"]): Pairs => {
  const pairs: Pairs = []
  const add = (name: unknown, value: unknown) => {
    for (const one of valuesOf(value)) pairs.push([textOf(name), textOf(one)])
  }
  if (headers === undefined || headers === null) return pairs
  if (Array.isArray(headers) && !Array.isArray(headers[0])) {
    for (let i = 0; i + 1 < headers.length; i += 2) add(headers[i], headers[i + 1])
  } else if (Symbol.iterator in headers) {
    for (const [name, value] of headers as Iterable<readonly [unknown, unknown]>) add(name, value)
  } else for (const [name, value] of Object.entries(headers)) add(name, value)
  return pairs
}

/** The fields that RFC 9110 section 5.3 lets be combined, combined; `Cookie` has a separator of its own (RFC 6265 section 5.4). */
const headersOf = (pairs: Pairs): Headers.Headers => {
  const headers: Record<string, string> = Object.create(null)
  for (const [name, value] of pairs) {
    const key = name.toLowerCase()
    const before = headers[key]
    headers[key] = before === undefined ? value : `${before}${key === "cookie" ? "; " : ", "}${value}`
  }
  return Headers.fromInput(headers)
}

const bodyOf = (body: unknown): HttpBody.HttpBody => {
  if (body === undefined || body === null) return HttpBody.empty
  // An empty type is none: as with undici, the caller's headers say it, or nobody does.
  if (typeof body === "string") return HttpBody.uint8Array(new TextEncoder().encode(body), "")
  return body instanceof Uint8Array ? HttpBody.uint8Array(body, "") : HttpBody.raw(body)
}

const queryOf = (query: Dispatcher.DispatchOptions["query"]): string => {
  const params = new URLSearchParams()
  for (const [name, value] of Object.entries(query ?? {})) {
    for (const one of valuesOf(value)) params.append(name, String(one))
  }
  const text = params.toString()
  return text === "" ? "" : `?${text}`
}

/** The headers of the caller stand, also where they state a type or a length of the body. */
const withBody = (request: HttpClientRequest.HttpClientRequest, body: HttpBody.HttpBody) =>
  body._tag === "Empty"
    ? request
    : HttpClientRequest.setHeaders(HttpClientRequest.setBody(request, body), request.headers)

/**
 * A dispatched request as one of an `HttpClient`. The path is one, beyond doubt: appended to the origin it could otherwise make
 * another host of it.
 */
export const toClientRequest = (
  options: Dispatcher.DispatchOptions
): Either.Either<HttpClientRequest.HttpClientRequest, HttpClientError.RequestError> => {
  const { method, path, query, upgrade } = options
  const origin = options.origin === undefined ? "" : String(options.origin)
  const url = `${URL.canParse(origin) ? new URL(origin).origin : origin}${path}${queryOf(query)}`
  const invalid = (description: string) =>
    Either.left(
      new HttpClientError.RequestError({ request: HttpClientRequest.get(url), reason: "InvalidUrl", description })
    )
  if (!path.startsWith("/")) return invalid(`expected a path that begins with "/", got ${JSON.stringify(path)}`)
  if (!isHttpMethod(method)) return invalid(`expected a method of HTTP requests, got ${JSON.stringify(method)}`)
  if (upgrade) return invalid("expected a request without an upgrade: a WebSocket has a client of its own")
  const request = HttpClientRequest.make(method)(url, { headers: headersOf(pairsOf(options.headers)) })
  return Either.right(withBody(request, bodyOf(options.body)))
}
