/** The limit of one attempt, and the name of its request in errors. */
import type * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { TimeoutError } from "../../TransportError.js"
import { outOfTime } from "./retry.js"

/** A request's method and URL, without the query, which may hold secrets. */
export const describeRequest = (request: HttpClientRequest.HttpClientRequest): string =>
  `${request.method} ${request.url.split(/[?#]/, 1).join()}`

/** Limits the time of one attempt: inside a breaker, so that an attempt that ran out of time is a failure. */
export const limitAttempt = <A, E, R>(
  attempt: Effect.Effect<A, E, R>,
  limit: Duration.Duration,
  request: HttpClientRequest.HttpClientRequest
): Effect.Effect<A, E | TimeoutError, R> =>
  Effect.timeoutFail(attempt, {
    duration: limit,
    onTimeout: () => outOfTime("Attempt", limit, describeRequest(request))
  })
