import { IdentityError } from "@agentweave/spiffe/IdentityError"
import { PeerVerificationError } from "@agentweave/spiffe/PeerVerificationError"
import type { SpiffeBundle } from "@agentweave/spiffe/SpiffeBundle"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { BundleEndpoint } from "../../BundleEndpoint.js"
import { BundleEndpointError, type BundleEndpointReason } from "../../BundleEndpointError.js"
import { codeOf } from "../errors.js"
import { describeUrl, endpointUrl } from "./endpointUrl.js"
import { decodeDocument } from "./parse.js"

/** One GET, over a connection on which the endpoint has proven to be what its profile asks. Redirects are not followed. */
export type Get = (endpoint: BundleEndpoint, url: URL) => Effect.Effect<HttpClientResponse, Error, Scope.Scope>

export interface FetchLimits {
  readonly maxBytes: number
  readonly timeout: Duration.Duration
}

const maxRedirects = 5

/** RFC 9110 section 15.4, the ones that lead to another place for the same GET. */
const redirects: ReadonlySet<number> = new Set([301, 302, 303, 307, 308])

/** OpenSSL's and Node's names for a certificate that does not prove what it should. */
const certificateCode = /CERT|SELF_SIGNED|UNABLE_TO_|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH/

/** An error and what caused it, outermost first; a client wraps the platform's error several times. */
const causes = (error: unknown): ReadonlyArray<Error> => {
  const chain: Array<Error> = []
  for (let at = error; at instanceof Error && chain.length < 8; at = at.cause) chain.push(at)
  return chain
}

const isUnauthenticated = (error: Error): boolean =>
  error instanceof PeerVerificationError || error instanceof IdentityError || certificateCode.test(codeOf(error))

type Fail = (reason: BundleEndpointReason, description: string, cause?: unknown) => BundleEndpointError

const failWith =
  (endpoint: BundleEndpoint, url: URL): Fail =>
  (reason, description, cause) =>
    new BundleEndpointError({
      reason,
      trustDomain: endpoint.trustDomain,
      url: describeUrl(url),
      description,
      ...(cause === undefined ? undefined : { cause })
    })

const notFetched =
  (fail: Fail, url: URL) =>
  (error: Error): BundleEndpointError => {
    const chain = causes(error)
    const messages = new Set(chain.map(({ message }) => message.replaceAll(url.href, describeUrl(url))))
    return fail(
      chain.some(isUnauthenticated) ? "Unauthenticated" : "Unreachable",
      `expected an answer, got: ${Array.from(messages).join(": ")}`,
      error
    )
  }

const readBody = (
  response: HttpClientResponse,
  maxBytes: number,
  fail: Fail,
  url: URL
): Effect.Effect<Uint8Array, BundleEndpointError> =>
  Effect.suspend(() => {
    const chunks: Array<Uint8Array> = []
    let length = 0
    return response.stream.pipe(
      Stream.mapError(notFetched(fail, url)),
      Stream.runForEach((chunk) => {
        chunks.push(chunk)
        length += chunk.length
        return length > maxBytes ? fail("TooLarge", `expected at most ${maxBytes} bytes, got more`) : Effect.void
      }),
      Effect.map(() => Buffer.concat(chunks))
    )
  })

const follow = (from: URL, response: HttpClientResponse): Either.Either<URL, string> => {
  const location = response.headers["location"]
  return location === undefined
    ? Either.left(`expected a redirect's Location, got status ${response.status} without one`)
    : endpointUrl(location, from)
}

/** The answer to a GET of the endpoint's own URL, redirects followed for this one time (sections 5.2.1.4, 5.2.2.4). */
const request = Effect.fnUntraced(function* (
  endpoint: BundleEndpoint,
  get: Get,
  { maxBytes }: FetchLimits
): Effect.fn.Return<SpiffeBundle, BundleEndpointError, Scope.Scope> {
  let url = endpoint.url
  for (let hops = 0; ; hops++) {
    const fail = failWith(endpoint, url)
    const response = yield* get(endpoint, url).pipe(
      // A client that is broken is an endpoint that cannot be reached: the next attempt comes all the same.
      Effect.catchAllDefect((defect) => Effect.fail(defect instanceof Error ? defect : new Error(String(defect)))),
      Effect.mapError(notFetched(fail, url))
    )
    if (redirects.has(response.status)) {
      if (hops === maxRedirects) return yield* fail("Redirect", `expected at most ${maxRedirects} redirects, got more`)
      url = yield* Either.mapLeft(follow(url, response), (problem) => fail("Redirect", problem))
      continue
    }
    if (response.status !== 200) return yield* fail("Status", `expected status 200, got ${response.status}`)
    const bytes = yield* readBody(response, maxBytes, fail, url)
    return yield* Effect.mapError(decodeDocument(endpoint.trustDomain, bytes), (error) =>
      fail("Malformed", error.description)
    )
  }
})

/** Fetches a bundle once. */
export const fetchBundle = (
  endpoint: BundleEndpoint,
  get: Get,
  limits: FetchLimits
): Effect.Effect<SpiffeBundle, BundleEndpointError> =>
  Effect.scoped(request(endpoint, get, limits)).pipe(
    Effect.timeoutFail({
      duration: limits.timeout,
      onTimeout: () =>
        failWith(endpoint, endpoint.url)("Timeout", `expected an answer within ${Duration.format(limits.timeout)}`)
    })
  )
