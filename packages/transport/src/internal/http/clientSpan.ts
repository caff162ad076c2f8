import * as HttpClient from "@effect/platform/HttpClient"
import { isHttpClientError } from "@effect/platform/HttpClientError"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"
import * as ClientRequest from "@effect/platform/HttpClientRequest"
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import type { RuntimeFiber } from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Tracer from "effect/Tracer"
import { CapturedHeaders } from "../../CapturedHeaders.js"
import type { Connection } from "../../Connector.js"
import { CurrentAttempt } from "../../CurrentAttempt.js"
import { clockOf, fiberRefOf, serviceOf } from "../fiber.js"
import { captureHeaders, nameOf, pathOf, tracerOf } from "../requestTelemetry.js"
import type { BaseUrl } from "./url.js"

/** The tracer a request is to be traced with, if somebody has put one there. */
const tracer = (fiber: RuntimeFiber<unknown, unknown>, request: HttpClientRequest): Tracer.Tracer | undefined => {
  const found = tracerOf(fiber)
  return found === undefined || fiberRefOf(fiber, HttpClient.currentTracerDisabledWhen)(request) ? undefined : found
}

/**
 * How a failure stands in a span. An error of the platform has the request in it, and the URL with its query in its message;
 * a defect may have anything. Of these only their names are told.
 */
const told = (cause: Cause.Cause<unknown>): Exit.Exit<unknown, unknown> => {
  if (Cause.isInterruptedOnly(cause)) return Exit.failCause(cause)
  const failure = Cause.failureOption(cause)
  if (Option.isNone(failure)) return Exit.die(nameOf(Cause.squash(cause)))
  return Exit.fail(isHttpClientError(failure.value) ? failure.value._tag : failure.value)
}

/**
 * The span of one request, from its start to the end of its exchange, with the attributes of OpenTelemetry's semantic
 * conventions for HTTP clients. The query is left out: it may hold what is nobody's business.
 */
export class ClientSpan {
  readonly span: Tracer.Span
  private readonly tracer: Tracer.Tracer
  private readonly fiber: RuntimeFiber<unknown, unknown>
  /** The wait for a connection, while there is one. */
  private wait: Tracer.Span | undefined = undefined
  private ended = false

  private constructor(tracer: Tracer.Tracer, fiber: RuntimeFiber<unknown, unknown>, request: HttpClientRequest) {
    this.tracer = tracer
    this.fiber = fiber
    this.span = tracer.span(
      request.method,
      Option.fromNullable(fiber.currentSpan),
      fiber.currentContext,
      [],
      this.nanos(),
      "client"
    )
    this.span.attribute("http.request.method", request.method)
    const attempt = serviceOf(fiber, CurrentAttempt)
    if (attempt !== undefined && attempt > 1) this.span.attribute("http.request.resend_count", attempt - 1)
  }

  /** `undefined`, and next to no cost, where there is no tracer. */
  static open(fiber: RuntimeFiber<unknown, unknown>, request: HttpClientRequest): ClientSpan | undefined {
    const found = tracer(fiber, request)
    return found === undefined ? undefined : new ClientSpan(found, fiber, request)
  }

  private nanos(): bigint {
    return clockOf(this.fiber).unsafeCurrentTimeNanos()
  }

  /** The span of the wait for a connection, in which a handshake may happen: it ends with {@link sent} or the request. */
  waits(): Tracer.Span {
    const { currentContext } = this.fiber
    this.wait = this.tracer.span(
      "transport.acquire",
      Option.some(this.span),
      currentContext,
      [],
      this.nanos(),
      "internal"
    )
    return this.wait
  }

  private waited(exit: Exit.Exit<unknown, unknown>): void {
    this.wait?.end(this.nanos(), exit)
    this.wait = undefined
  }

  /** The request as it is sent on this connection: with its `traceparent` (W3C Trace Context section 3.2). */
  sent(request: HttpClientRequest, connection: Connection, base: BaseUrl, path: string): HttpClientRequest {
    const { span } = this
    this.waited(Exit.void)
    span.attribute("url.scheme", "https")
    span.attribute("url.path", pathOf(path))
    span.attribute("server.address", base.host)
    span.attribute("server.port", base.port)
    span.attribute("network.protocol.version", "1.1")
    span.attribute("spiffe.peer.id", connection.peer.spiffeId)
    span.attribute("spiffe.self.id", connection.ownId)
    span.attribute("transport.connection.id", connection.id)
    const captured = serviceOf(this.fiber, CapturedHeaders)
    captureHeaders(span, captured, request.headers)
    if (!fiberRefOf(this.fiber, HttpClient.currentTracerPropagation)) return request
    const traceparent = `00-${span.traceId}-${span.spanId}-${span.sampled ? "01" : "00"}`
    return ClientRequest.setHeader(request, "traceparent", traceparent)
  }

  status(status: number): void {
    this.span.attribute("http.response.status_code", status)
    if (status >= 400) this.span.attribute("error.type", String(status))
  }

  /** The exchange is over; `error` is the tag of what it failed with. */
  end(error: string | undefined): void {
    if (error !== undefined) this.span.attribute("error.type", error)
    this.endWith(error === undefined ? Exit.void : Exit.fail(error))
  }

  /** The request failed or was interrupted before it had a connection, or after. */
  endCause(cause: Cause.Cause<unknown>): void {
    if (this.ended) return
    const exit = told(cause)
    this.span.attribute("error.type", Cause.isInterruptedOnly(cause) ? "Interrupted" : nameOf(Cause.squash(cause)))
    this.endWith(exit)
  }

  private endWith(exit: Exit.Exit<unknown, unknown>): void {
    if (this.ended) return
    this.ended = true
    this.waited(exit)
    this.span.end(this.nanos(), exit)
  }
}
