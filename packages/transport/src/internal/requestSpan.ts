import * as HttpClient from "@effect/platform/HttpClient"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"
import * as ClientRequest from "@effect/platform/HttpClientRequest"
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import { liveServices } from "effect/DefaultServices"
import * as Exit from "effect/Exit"
import type { RuntimeFiber } from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"
import type { Connection } from "../Connector.js"
import { CurrentAttempt } from "../CurrentAttempt.js"
import type { Base } from "./target.js"

/** Effect's own tracer: it is always there and keeps its spans to itself, so it counts as none. */
const nativeTracer = Context.get(liveServices, Tracer.Tracer)

/** The tracer a request is to be traced with, if somebody has put one there. */
const tracerOf = (fiber: RuntimeFiber<unknown, unknown>, request: HttpClientRequest): Tracer.Tracer | undefined => {
  const tracer = fiber.currentTracer
  if (tracer === nativeTracer || !fiber.getFiberRef(FiberRef.currentTracerEnabled)) return undefined
  return fiber.getFiberRef(HttpClient.currentTracerDisabledWhen)(request) ? undefined : tracer
}

/**
 * The span of one request, from its start to the end of its exchange, with the attributes of OpenTelemetry's semantic
 * conventions for HTTP clients. The query is left out: it may hold what is nobody's business.
 */
export class RequestSpan {
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
    const attempt = fiber.currentContext.unsafeMap.get(CurrentAttempt.key) as number | undefined
    if (attempt !== undefined && attempt > 1) this.span.attribute("http.request.resend_count", attempt - 1)
  }

  /** `undefined`, and next to no cost, where there is no tracer. */
  static open(fiber: RuntimeFiber<unknown, unknown>, request: HttpClientRequest): RequestSpan | undefined {
    const tracer = tracerOf(fiber, request)
    return tracer === undefined ? undefined : new RequestSpan(tracer, fiber, request)
  }

  private nanos(): bigint {
    return Context.get(this.fiber.currentDefaultServices, Clock.Clock).unsafeCurrentTimeNanos()
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
  sent(request: HttpClientRequest, connection: Connection, base: Base, path: string): HttpClientRequest {
    const { span } = this
    this.waited(Exit.void)
    const query = path.indexOf("?")
    span.attribute("url.scheme", "https")
    span.attribute("url.path", query === -1 ? path : path.slice(0, query))
    span.attribute("server.address", base.host)
    span.attribute("server.port", base.port)
    span.attribute("network.protocol.version", "1.1")
    span.attribute("spiffe.peer.id", connection.peer.spiffeId)
    span.attribute("spiffe.self.id", connection.ownId)
    span.attribute("transport.connection.id", connection.id)
    if (!this.fiber.getFiberRef(HttpClient.currentTracerPropagation)) return request
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
    this.endWith(Exit.failCause(cause))
  }

  private endWith(exit: Exit.Exit<unknown, unknown>): void {
    if (this.ended) return
    this.ended = true
    this.waited(exit)
    this.span.end(this.nanos(), exit)
  }
}
