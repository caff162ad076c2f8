import type { IncomingMessage } from "node:http"
import type { TLSSocket } from "node:tls"
import type { AcceptedConnection } from "@agentweave/transport/Acceptor"
import { CapturedHeaders } from "@agentweave/transport/CapturedHeaders"
import * as RequestTelemetry from "@agentweave/transport/RequestTelemetry"
import type { Default } from "@effect/platform/HttpApp"
import { currentTracerDisabledWhen, type HttpMiddleware } from "@effect/platform/HttpMiddleware"
import { clientAbortFiberId } from "@effect/platform/HttpServerError"
import { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import { isServerResponse } from "@effect/platform/HttpServerResponse"
import * as TraceContext from "@effect/platform/HttpTraceContext"
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { RuntimeFiber } from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as HashSet from "effect/HashSet"
import * as Option from "effect/Option"
import type * as Predicate from "effect/Predicate"
import * as Tracer from "effect/Tracer"
import { clockOf, fiberRefOf, serviceOf, withFiber } from "../fiber.js"
import type { Answer, ServerSpan } from "./answer.js"
import type { Inbound } from "./inbound.js"

/** IDs of W3C Trace Context section 3.2.2.3, and of B3: nothing else of a header gets into a span. */
const isId = (id: string): boolean => /^(?:[0-9a-f]{16}|[0-9a-f]{32})$/i.test(id) && !/^0+$/.test(id)

/** The caller's span, by `traceparent` or B3 headers. */
const parentOf = (request: HttpServerRequest): Option.Option<Tracer.ExternalSpan> =>
  Option.filter(TraceContext.fromHeaders(request.headers), ({ spanId, traceId }) => isId(traceId) && isId(spanId))

/** The name of what a handler failed with; `undefined` where its caller went away. */
const failureOf = (cause: Cause.Cause<unknown>): string | undefined => {
  const error = Chunk.head(Cause.failures(cause))
  // The platform carries the response it makes of a failure as a defect.
  const defect = () => Chunk.findFirst(Cause.defects(cause), (defect) => !isServerResponse(defect))
  const first = Option.orElse(error, defect)
  if (Option.isSome(first)) return RequestTelemetry.nameOf(first.value)
  return HashSet.has(Cause.interruptors(cause), clientAbortFiberId) ? undefined : "Interrupted"
}

/**
 * The span of one request, from its arrival until both its handler has ended and its response is out or its connection
 * gone, with the attributes of OpenTelemetry's semantic conventions for HTTP servers and TLS.
 */
class InboundSpan implements ServerSpan {
  readonly span: Tracer.Span
  private readonly clock: Clock.Clock
  private exit: Exit.Exit<unknown, unknown> | undefined = undefined
  private answer: Answer | undefined = undefined

  constructor(
    tracer: Tracer.Tracer,
    fiber: RuntimeFiber<unknown, unknown>,
    request: HttpServerRequest,
    message: IncomingMessage,
    { id, ownId, peer }: AcceptedConnection,
    socket: TLSSocket
  ) {
    this.clock = clockOf(fiber)
    const { method } = request
    const known = RequestTelemetry.methodOf(method)
    const name = known === method ? method : "HTTP"
    const span = tracer.span(name, parentOf(request), fiber.currentContext, [], this.nanos(), "server")
    this.span = span
    span.attribute("http.request.method", known)
    if (known !== method) span.attribute("http.request.method_original", method)
    span.attribute("url.scheme", "https")
    span.attribute("url.path", RequestTelemetry.pathOf(message.url ?? ""))
    if (socket.localAddress !== undefined) span.attribute("server.address", socket.localAddress)
    if (socket.localPort !== undefined) span.attribute("server.port", socket.localPort)
    if (socket.remoteAddress !== undefined) span.attribute("client.address", socket.remoteAddress)
    if (socket.remotePort !== undefined) span.attribute("client.port", socket.remotePort)
    span.attribute("network.protocol.version", message.httpVersion)
    tlsAttributes(span, socket)
    span.attribute("spiffe.peer.id", peer.spiffeId)
    span.attribute("spiffe.self.id", ownId)
    span.attribute("transport.connection.id", id)
    const captured = serviceOf(fiber, CapturedHeaders)
    RequestTelemetry.captureHeaders(span, captured, message.headers)
  }

  get traceId(): string {
    return this.span.traceId
  }

  private nanos(): bigint {
    return this.clock.unsafeCurrentTimeNanos()
  }

  onClose({ failure, headersSent, isWhole, statusCode }: Answer): void {
    this.answer = { failure, headersSent, isWhole, statusCode }
    this.endWhenOver()
  }

  onExit(exit: Exit.Exit<unknown, unknown>): void {
    this.exit = exit
    this.endWhenOver()
  }

  private endWhenOver(): void {
    const { answer, exit, span } = this
    if (exit === undefined || answer === undefined) return
    const { headersSent, isWhole, statusCode } = answer
    if (headersSent) span.attribute("http.response.status_code", statusCode)
    const failure = answer.failure ?? (Exit.isFailure(exit) ? failureOf(exit.cause) : undefined)
    if (!isWhole && failure === undefined) {
      span.attribute("error.type", "Interrupted")
      this.end(Exit.interrupt(FiberId.none))
    } else if (!isWhole || RequestTelemetry.isServerErrorStatus(statusCode)) {
      const type = failure ?? String(statusCode)
      span.attribute("error.type", type)
      this.end(Exit.fail(type))
    }
    // A 4xx is the caller's error and none of ours.
    else this.end(Exit.void)
  }

  private end(exit: Exit.Exit<unknown, unknown>): void {
    this.span.end(this.nanos(), exit)
  }
}

const tlsAttributes = (span: Tracer.Span, socket: TLSSocket): void => {
  const version = socket.getProtocol()
  if (version === null) return
  span.attribute("tls.protocol.name", "tls")
  span.attribute("tls.protocol.version", version.replace(/^TLSv/, ""))
  span.attribute("tls.cipher", socket.getCipher().standardName)
}

/** An app whose requests run inside their spans. */
const traced =
  (
    inbound: Inbound,
    spans: WeakMap<IncomingMessage, ServerSpan>,
    tracer: Tracer.Tracer,
    isDisabled: Predicate.Predicate<HttpServerRequest>
  ) =>
  <E, R>(app: Default<E, R>): Default<E, R | HttpServerRequest> =>
    withFiber((fiber) => {
      const request = Context.unsafeGet(fiber.currentContext, HttpServerRequest)
      const message = NodeHttpServerRequest.toIncomingMessage(request)
      const connection = inbound.connections.get(message.socket)
      if (connection?.accepted === undefined || isDisabled(request)) return app
      const span = new InboundSpan(tracer, fiber, request, message, connection.accepted, connection.socket)
      spans.set(message, span)
      return Effect.onExit(Effect.provideService(app, Tracer.ParentSpan, span.span), (exit) =>
        Effect.sync(() => span.onExit(exit))
      )
    })

/**
 * The middleware an app is served with, and under it the platform's own spans are turned off: they hold the query and
 * the values of headers. Whether there is a tracer is asked once, here, so that without one a request costs nothing more.
 */
export const serveTraced = <A, E, R>(
  inbound: Inbound,
  middleware: HttpMiddleware | undefined,
  serve: (middleware: HttpMiddleware | undefined) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  withFiber((fiber) => {
    const tracer = RequestTelemetry.tracerOf(fiber)
    const isDisabled = fiberRefOf(fiber, currentTracerDisabledWhen)
    let outermost = middleware
    if (tracer !== undefined) {
      inbound.spans ??= new WeakMap()
      const inSpan = traced(inbound, inbound.spans, tracer, isDisabled)
      outermost = middleware === undefined ? inSpan : (app) => inSpan(middleware(app))
    }
    return Effect.locally(serve(outermost), currentTracerDisabledWhen, () => true)
  })
