/**
 * Between a client's request and what a handler sees, and between a handler's answer and bytes.
 */
import * as HttpClientError from "@effect/platform/HttpClientError"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"
import type * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { TestRequest } from "../../TestMessage.js"

const bodyOf = (request: HttpClientRequest): Stream.Stream<Uint8Array, unknown> => {
  const { body } = request
  switch (body._tag) {
    case "Empty":
      return Stream.empty
    case "Uint8Array":
      return Stream.make(body.body)
    case "Stream":
      return body.stream
    case "FormData":
      return Stream.fromEffect(
        Effect.map(
          Effect.tryPromise(() => new Response(body.formData).arrayBuffer()),
          (bytes) => new Uint8Array(bytes)
        )
      )
    case "Raw":
      return typeof body.body === "string"
        ? Stream.make(new TextEncoder().encode(body.body))
        : Stream.dieMessage("expected a raw body that is a string, got another one")
  }
}

/** The body runs in the context of the fiber that sends it. `onBytes` is told how much of it went over. */
export const makeRequest = (
  request: HttpClientRequest,
  context: Context.Context<never>,
  onBytes: (count: number) => void,
  rest: Pick<TestRequest, "path" | "peer" | "caller" | "address" | "connectionId">
): TestRequest => {
  const body = bodyOf(request).pipe(
    Stream.provideContext(context),
    Stream.tap((bytes) => Effect.sync(() => onBytes(bytes.length))),
    Stream.mapError(
      (cause) =>
        new HttpClientError.RequestError({
          request,
          reason: "Encode",
          description: "expected a request body that can be read to its end, it failed",
          cause
        })
    )
  )
  return { request, ...rest, body, text: Stream.mkString(Stream.decodeText(body)) }
}

/** A body that goes back over the wire: bytes known whole, or a stream. */
export const responseBody = (
  request: HttpClientRequest,
  response: HttpServerResponse.HttpServerResponse
): Stream.Stream<Uint8Array, unknown> | Uint8Array => {
  const { body } = response
  if (request.method === "HEAD") return new Uint8Array(0)
  switch (body._tag) {
    case "Empty":
      return new Uint8Array(0)
    case "Uint8Array":
      return body.body
    case "Stream":
      return body.stream
    default:
      return Stream.dieMessage(`expected an empty, byte or stream body in the answer of a test, got ${body._tag}`)
  }
}
