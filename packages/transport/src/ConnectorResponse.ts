/**
 * The response a connector hands out, and the sink it feeds it through. Applications see the `HttpClientResponse` only.
 *
 * @since 0.1.0
 */
import type { Headers } from "@effect/platform/Headers"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import * as Effect from "effect/Effect"
import type { RuntimeFiber } from "effect/Fiber"
import * as Scope from "effect/Scope"
import { serviceOf, withFiber } from "./internal/fiber.js"
import { BodyResponse } from "./internal/http/response.js"
import { Body, type BodySource, type ResponseSink } from "./internal/http/responseBody.js"

export type {
  /**
   * Actions on the wire that the reader of a body has.
   *
   * @since 0.1.0
   * @category models
   */
  BodySource,
  /**
   * The body of a response as its connector writes it.
   *
   * @since 0.1.0
   * @category models
   */
  ResponseSink
}

/**
 * Bytes kept for a response that nobody reads yet, before the peer is made to wait. A smaller body is received whole
 * and frees its connection without being read.
 *
 * @since 0.1.0
 * @category constants
 */
export const highWaterMark: number = Body.highWaterMark

/**
 * The sink of one response.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { ConnectorResponse } from "@agentweave/transport"
 * import type { Socket } from "node:net"
 *
 * const bodyOf = (socket: Socket) => {
 *   const sink = ConnectorResponse.makeSink({ resume: () => socket.resume(), abort: () => socket.destroy() })
 *   socket.on("data", (chunk) => {
 *     if (!sink.push(chunk)) socket.pause()
 *   })
 *   socket.once("end", sink.end)
 *   return sink
 * }
 * ```
 */
export const makeSink = (source: BodySource): ResponseSink => new Body(source)

/**
 * The parts of a response, apart from its body.
 *
 * @since 0.1.0
 * @category models
 */
export interface ResponseOptions {
  readonly request: HttpClientRequest
  readonly status: number
  /** Evaluated once, when a header is first asked for. */
  readonly headers: () => Headers
  readonly setCookie: () => ReadonlyArray<string>
  readonly remoteAddress: string | undefined
  /** The most bytes of a body that is read as a whole. Default: no limit. */
  readonly maxResponseSize?: number | undefined
}

/**
 * The response over a sink made by {@link makeSink}. Make it when the request's fiber takes the result: if it is then
 * dropped before its body was read, the rest of the body is aborted. A body that was read as a whole can be read again, except
 * one of {@link highWaterMark} bytes or more that `arrayBuffer` has handed out: its memory is the caller's.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { ConnectorResponse } from "@agentweave/transport"
 * import { Headers, type HttpClientRequest } from "@effect/platform"
 *
 * const created = (request: HttpClientRequest.HttpClientRequest, sink: ConnectorResponse.ResponseSink) =>
 *   ConnectorResponse.makeResponse(sink, {
 *     request,
 *     status: 201,
 *     headers: () => Headers.fromInput({ "content-type": "application/json" }),
 *     setCookie: () => [],
 *     remoteAddress: "10.0.0.7"
 *   })
 * ```
 */
export const makeResponse = (sink: ResponseSink, options: ResponseOptions): HttpClientResponse =>
  new BodyResponse(
    sink as Body,
    options.request,
    options.status,
    options.headers,
    options.setCookie,
    options.remoteAddress,
    options.maxResponseSize ?? Number.POSITIVE_INFINITY
  )

/**
 * {@link makeResponse} as what the request's fiber is resumed with. When the fiber runs in a `Scope`, a body that is still
 * on its way when that scope ends is aborted then, read or not.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { type Connector, ConnectorResponse } from "@agentweave/transport"
 * import { Headers } from "@effect/platform"
 *
 * // In `HttpCarrier.start`, when the head of the response has come: resume(responseOf(exchange, sink, 200))
 * const responseOf = ({ request }: Connector.Exchange, sink: ConnectorResponse.ResponseSink, status: number) =>
 *   ConnectorResponse.respond(sink, {
 *     request,
 *     status,
 *     headers: () => Headers.empty,
 *     setCookie: () => [],
 *     remoteAddress: undefined
 *   })
 * ```
 */
export const respond = (sink: ResponseSink, options: ResponseOptions): Effect.Effect<HttpClientResponse> => {
  const body = sink as Body
  // Nothing is left to abort.
  if (!body.isOpen) return Effect.succeed(makeResponse(sink, options))
  return withFiber((fiber) => {
    const response = makeResponse(sink, options)
    const scope = body.isOpen ? scopeOf(fiber) : undefined
    return scope === undefined ? Effect.succeed(response) : Effect.as(body.tieTo(scope), response)
  })
}

const scopeOf = (fiber: RuntimeFiber<unknown, unknown>): Scope.Scope | undefined => serviceOf(fiber, Scope.Scope)
