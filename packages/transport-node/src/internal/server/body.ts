import type { IncomingMessage, ServerResponse } from "node:http"
import { nameOf } from "@agentweave/transport/RequestTelemetry"
import * as FileSystem from "@effect/platform/FileSystem"
import * as HttpApp from "@effect/platform/HttpApp"
import * as HttpBody from "@effect/platform/HttpBody"
import { MaxBodySize } from "@effect/platform/HttpIncomingMessage"
import type { HttpMiddleware } from "@effect/platform/HttpMiddleware"
import { ResponseError } from "@effect/platform/HttpServerError"
import { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { RuntimeFiber } from "effect/Fiber"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Stream from "effect/Stream"
import { fiberRefOf, serviceIn, withFiber } from "../fiber.js"
import { InboundMessage } from "./inboundMessage.js"

/** A body failed with something that is no `Error`; the name is that of what it failed with. */
class BodyError extends Error {
  override readonly name: string
  constructor(name: string, cause: unknown) {
    super("expected a response body that can be read to its end, it failed", { cause })
    this.name = name
  }
}

/** A body's failure, as an error that ends a socket. */
const errorOf = (cause: Cause.Cause<unknown>): Error => {
  const first = Option.orElse(Chunk.head(Cause.failures(cause)), () => Chunk.head(Cause.defects(cause)))
  if (Option.isNone(first)) return new BodyError("Interrupted", cause)
  return first.value instanceof Error ? first.value : new BodyError(nameOf(first.value), first.value)
}

/** A stream whose failure, defect or interruption destroys the response, before the platform ends it as if it were whole. */
const cutting = <E>(
  stream: Stream.Stream<Uint8Array, E>,
  response: () => ServerResponse
): Stream.Stream<Uint8Array, E> =>
  Stream.ensuringWith(stream, (exit) =>
    Exit.isFailure(exit) ? Effect.sync(() => response().destroy(errorOf(exit.cause))) : Effect.void
  )

/** The bytes of a form. The platform's way of sending them ends the process when they cannot be read. */
const formBytes = ({ body }: Response): Stream.Stream<Uint8Array, unknown> =>
  body === null ? Stream.empty : Stream.fromReadableStream(() => body, identity)

/** A body that Node sends by itself, or by `pipeline`, which destroys the response where the source fails. */
const isSendable = (body: unknown): boolean =>
  body === undefined ||
  body === null ||
  typeof body === "string" ||
  body instanceof Uint8Array ||
  (Predicate.hasProperty(body, "pipe") && typeof body.pipe === "function")

/** A response whose body, if it fails, is not sent as if it were whole. */
const guarded: HttpApp.PreResponseHandler = (request, response) => {
  const { body } = response
  const node = () => NodeHttpServerRequest.toServerResponse(request)
  switch (body._tag) {
    case "Stream":
      return Effect.succeed(
        HttpServerResponse.setBody(
          response,
          HttpBody.stream(cutting(body.stream, node), body.contentType, body.contentLength)
        )
      )
    case "FormData": {
      const form = new Response(body.formData)
      const contentType = form.headers.get("content-type") ?? undefined
      return Effect.succeed(
        HttpServerResponse.setBody(response, HttpBody.stream(cutting(formBytes(form), node), contentType))
      )
    }
    case "Raw":
      return isSendable(body.body)
        ? Effect.succeed(response)
        : new ResponseError({
            request,
            response,
            reason: "Decode",
            description: "expected a raw body of text, bytes or a readable stream of Node"
          })
    default:
      return Effect.succeed(response)
  }
}

const isBytes = ({ body }: HttpServerResponse.HttpServerResponse): boolean =>
  body._tag === "Uint8Array" || body._tag === "Empty"

/** Says that the connection ends with the answer, which it does where Node has taken it away from HTTP. */
const last: HttpApp.PreResponseHandler = (_, response) =>
  Effect.succeed(HttpServerResponse.setHeader(response, "connection", "close"))

const messageOf = (fiber: RuntimeFiber<unknown, unknown>): IncomingMessage =>
  NodeHttpServerRequest.toIncomingMessage(Context.unsafeGet(fiber.currentContext, HttpServerRequest))

const isLast = (fiber: RuntimeFiber<unknown, unknown>): boolean => {
  const message = messageOf(fiber)
  return message instanceof InboundMessage && message.upgrade
}

const isUnreadable = (error: unknown): boolean => Predicate.isTagged(error, "RequestError")

/** Whether a handler failed because the body was too large to be read as a whole: its reader gave it up. */
const isTooLarge = (fiber: RuntimeFiber<unknown, unknown>, cause: Cause.Cause<unknown>): boolean => {
  const message = messageOf(fiber)
  return (
    message instanceof InboundMessage &&
    message.isGivenUp === true &&
    (Chunk.some(Cause.failures(cause), isUnreadable) || Chunk.some(Cause.defects(cause), isUnreadable))
  )
}

const tooLarge = HttpServerResponse.empty({ status: 413 })

/**
 * An app no body of which is sent as if it were whole when it failed. What looks at the body comes after every handler
 * that may change it, and is not there for a response of bytes that nothing changes.
 */
export const guardApp = <E, R>(app: HttpApp.Default<E, R>): HttpApp.Default<E, R> => {
  const guard = HttpApp.appendPreResponseHandler(guarded)
  const guardLast = Effect.zipRight(HttpApp.appendPreResponseHandler(last), guard)
  return withFiber((fiber) => {
    const needed = isLast(fiber) ? guardLast : guard
    return Effect.matchCauseEffect(app, {
      onSuccess: (response) =>
        isBytes(response) && needed === guard && Option.isNone(fiberRefOf(fiber, HttpApp.currentPreResponseHandlers))
          ? Effect.succeed(response)
          : Effect.as(needed, response),
      // The response that the failure is made into may have any body.
      onFailure: (cause) =>
        isTooLarge(fiber, cause) ? Effect.succeed(tooLarge) : Effect.zipRight(needed, Effect.failCause(cause))
    })
  })
}

/** A middleware may answer by itself: that response has not gone through what {@link guardApp} looks at. */
export const guardMiddleware =
  (middleware: HttpMiddleware): HttpMiddleware =>
  (app) =>
    Effect.flatMap(middleware(app), (response) => {
      if (isBytes(response)) return Effect.succeed(response)
      return Effect.flatMap(HttpServerRequest, (request) =>
        NodeHttpServerRequest.toServerResponse(request).headersSent
          ? Effect.succeed(response)
          : guarded(request, response)
      )
    })

/** The default limit for bodies that are read as a whole, where the app is not served under one of its own. */
export const withMaxBodySize =
  (bytes: number) =>
  <A, E, R>(serve: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.mapInputContext(serve, (context: Context.Context<R>) =>
      serviceIn(context, MaxBodySize) !== undefined
        ? context
        : Context.add(context, MaxBodySize, Option.some(FileSystem.Size(bytes)))
    )
