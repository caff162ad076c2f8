/**
 * Which requests may be sent again: by their method, by their body, and by how far they came. Errors by themselves are in
 * `retryable.ts`.
 */
import * as HttpClientError from "@effect/platform/HttpClientError"
import type * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { hasProperty } from "effect/Predicate"
import type { RetryConfig } from "../../RetryConfig.js"
import { describeRequest } from "./attemptLimit.js"
import type { Rules } from "./retry.js"
import { retryAfter } from "./retryAfter.js"
import { release } from "./unreadResponse.js"

/** RFC 9110 section 9.2.2. */
const idempotentMethods: ReadonlySet<string> = new Set(["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"])

/** Bodies that are there as a whole, to be sent again. A stream, or what a platform makes of a raw value, may be used up. */
const replayableBodies: ReadonlySet<string> = new Set(["Empty", "Uint8Array", "FormData"])

/** Decides which outcomes of one request are retried, and when at the earliest. */
export class HttpRules implements Rules<HttpClientResponse.HttpClientResponse, unknown> {
  readonly watchesValues: boolean
  private readonly config: RetryConfig
  private readonly request: HttpClientRequest.HttpClientRequest
  private readonly replayable: boolean
  private readonly idempotent: boolean

  constructor(config: RetryConfig, request: HttpClientRequest.HttpClientRequest) {
    this.config = config
    this.request = request
    this.replayable = replayableBodies.has(request.body._tag)
    this.idempotent = idempotentMethods.has(request.method)
    this.watchesValues = this.replayable && this.idempotent
  }

  retriesValue(response: HttpClientResponse.HttpClientResponse): boolean {
    return this.watchesValues && this.config.statuses.includes(response.status)
  }

  retriesError(error: unknown): boolean {
    const response = statusError(error)
    return Option.isSome(response)
      ? this.retriesValue(response.value)
      : this.replayable && (this.idempotent || neverSent(error)) && this.config.isRetryable(error)
  }

  notBefore(outcome: unknown, wallClock: number): number {
    return notBefore(outcome, wallClock)
  }

  describe(): string {
    return describeRequest(this.request)
  }

  discard(outcome: unknown, limit: number): Effect.Effect<void> {
    return discard(outcome, limit)
  }
}

/** A `RequestError` of `layerHttpClient` has the typed error as its cause. */
const neverSent = (error: unknown): boolean =>
  hasProperty(error, "outcome")
    ? error.outcome === "NotSent"
    : HttpClientError.isHttpClientError(error) && neverSent(error.cause)

/**
 * The rules for an effect of which nothing is known: its errors are what the configuration says. Where the error is one of
 * an `HttpClient` it names the request, and then the rules of HTTP hold.
 */
export const plainRules = (config: RetryConfig): Rules<unknown, unknown> => ({
  watchesValues: false,
  retriesValue: () => false,
  retriesError: (error) =>
    HttpClientError.isHttpClientError(error)
      ? new HttpRules(config, error.request).retriesError(error)
      : config.isRetryable(error),
  notBefore,
  describe: () => "the operation",
  discard
})

const isResponse = (u: unknown): u is HttpClientResponse.HttpClientResponse =>
  hasProperty(u, "status") && hasProperty(u, "headers") && hasProperty(u, "stream")

/** The response inside a `ResponseError` of `HttpClient.filterStatusOk`: a status that was made an error. */
const statusError = (error: unknown): Option.Option<HttpClientResponse.HttpClientResponse> =>
  hasProperty(error, "reason") &&
  error.reason === "StatusCode" &&
  hasProperty(error, "response") &&
  isResponse(error.response)
    ? Option.some(error.response)
    : Option.none()

const answer = (outcome: unknown): Option.Option<HttpClientResponse.HttpClientResponse> =>
  isResponse(outcome) ? Option.some(outcome) : statusError(outcome)

const notBefore = (outcome: unknown, wallClock: number): number =>
  Option.match(answer(outcome), {
    onNone: () => 0,
    onSome: (response) => retryAfter(response.headers, wallClock)
  })

const discard = (outcome: unknown, limit: number): Effect.Effect<void> =>
  Option.match(answer(outcome), {
    onNone: () => Effect.void,
    onSome: (response) => release(response, limit)
  })
