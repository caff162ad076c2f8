import type { IncomingMessage, ServerResponse } from "node:http"
import type { AuditEvent } from "@agentweave/transport/AuditEvent"
import type { AuditError } from "@agentweave/transport/AuditLog"

/** The connection a request came on, as its events name it. */
export interface Origin {
  readonly connectionId: string
  readonly address: string
  readonly peerId: string
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
  options: { readonly record: (event: AuditEvent) => AuditError | undefined; readonly now: () => number }
): boolean => {
  const startedAt = options.now()
  const url = request.url ?? ""
  const query = url.indexOf("?")
  const traceId = traceOf(request.headers["traceparent"])
  const common = {
    side: "Server" as const,
    connectionId: origin.connectionId,
    address: origin.address,
    requestId: `q${++nextRequest}`,
    ...(traceId === undefined ? undefined : { traceId }),
    peerId: origin.peerId,
    method: request.method ?? "",
    path: query === -1 ? url : url.slice(0, query),
    attempt: 1
  }
  if (options.record({ _tag: "RequestStarted", time: startedAt, ...common }) !== undefined) {
    request.socket.destroy()
    return false
  }
  response.once("close", () => {
    const now = options.now()
    options.record({
      _tag: "RequestEnded",
      time: now,
      ...common,
      ...(response.headersSent ? { status: response.statusCode } : undefined),
      ...(response.writableFinished ? undefined : { error: "Interrupted" }),
      durationMillis: now - startedAt
    })
  })
  return true
}
