import type { IncomingMessage, ServerResponse } from "node:http"
import type { AuditEvent } from "@agentweave/transport/AuditEvent"
import type { AuditError } from "@agentweave/transport/AuditLog"
import { pathOf } from "@agentweave/transport/RequestTelemetry"

/** The connection a request came on, as its events name it. */
export interface Origin {
  readonly connectionId: string
  readonly address: string
  readonly peerId: string
  /** Of the SVID we presented on it. */
  readonly ownId: string
}

/** The span of a request in flight, where there is a tracer. */
export interface RequestSpan {
  readonly traceId: string
  /** The response is out, or its connection gone. */
  readonly onClose: (response: ServerResponse) => void
}

let nextRequest = 0

/** The trace of a `traceparent` header (W3C Trace Context section 3.2), if it has one. */
const traceOf = (header: string | Array<string> | undefined): string | undefined =>
  typeof header === "string" && /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-/.test(header) ? header.slice(3, 35) : undefined

/**
 * Puts a request on record: its start now, its end when the response is out or the connection gone. `false` when its start
 * cannot be recorded: then it is not served.
 */
export const observe = (
  origin: Origin,
  request: IncomingMessage,
  response: ServerResponse,
  options: {
    readonly record: (event: AuditEvent) => AuditError | undefined
    readonly now: () => number
    /** Where whoever traces the request puts its span; absent without a tracer. */
    readonly spans: WeakMap<IncomingMessage, RequestSpan> | undefined
  }
): boolean => {
  const startedAt = options.now()
  const traceId = traceOf(request.headers["traceparent"])
  const common = {
    side: "Server" as const,
    connectionId: origin.connectionId,
    address: origin.address,
    requestId: `q${++nextRequest}`,
    ...(traceId === undefined ? undefined : { traceId }),
    peerId: origin.peerId,
    method: request.method ?? "",
    path: pathOf(request.url ?? ""),
    attempt: 1
  }
  if (options.record({ _tag: "RequestStarted", time: startedAt, ...common }) !== undefined) {
    request.socket.destroy()
    return false
  }
  response.once("close", () => {
    const now = options.now()
    const span = options.spans?.get(request)
    span?.onClose(response)
    options.record({
      _tag: "RequestEnded",
      time: now,
      ...common,
      // A trace that began here was not known yet when the request came.
      ...(span === undefined || traceId !== undefined ? undefined : { traceId: span.traceId }),
      ...(response.headersSent ? { status: response.statusCode } : undefined),
      ...(response.writableFinished ? undefined : { error: "Interrupted" }),
      durationMillis: now - startedAt
    })
  })
  return true
}
