import * as HttpClientError from "@effect/platform/HttpClientError"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"

/** The reason by which `HttpClient.retryTransient` retries connections and time limits, and nothing else. */
const reasonOf = (tag: string): HttpClientError.RequestError["reason"] => {
  switch (tag) {
    case "ConnectionError":
    case "TimeoutError":
      return "Transport"
    case "PeerVerificationError":
      return "InvalidUrl"
    default:
      return "Encode"
  }
}

/** An error as those know it who know `HttpClientError` only; the typed one is its cause. */
export const toHttpClientError = (
  request: HttpClientRequest,
  error: HttpClientError.HttpClientError | (Error & { readonly _tag: string })
): HttpClientError.HttpClientError =>
  HttpClientError.isHttpClientError(error)
    ? error
    : new HttpClientError.RequestError({
        request,
        reason: reasonOf(error._tag),
        description: error.message,
        cause: error
      })
