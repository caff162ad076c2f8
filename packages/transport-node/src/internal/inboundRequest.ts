import type { IncomingMessage } from "node:http"
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

/** The response to a request, as far as its record and its span tell of it: Node's, or what is known of another. */
export interface Answer {
  readonly headersSent: boolean
  readonly statusCode: number
  /** It was sent to its end. */
  readonly isWhole: boolean
  /** The name of the error it was cut for. */
  readonly failure?: string | undefined
}

/** The span of a request in flight, where there is a tracer. */
export interface RequestSpan {
  readonly traceId: string
  /** The response is out, or its connection gone. */
  readonly onClose: (answer: Answer) => void
}

export interface RecordOptions {
  readonly record: (event: AuditEvent) => AuditError | undefined
  readonly now: () => number
  /** The spans of requests in flight; absent without a tracer. */
  readonly spans: () => WeakMap<IncomingMessage, RequestSpan> | undefined
}

let nextRequest = 0

/** The trace of a `traceparent` header (W3C Trace Context section 3.2), if it has one. */
const traceOf = (header: string | Array<string> | undefined): string | undefined =>
  typeof header === "string" && /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-/.test(header) ? header.slice(3, 35) : undefined

/** A request on record: its start once, and its end once, when the response is out or the connection gone. */
export class InboundRequest {
  private readonly message: IncomingMessage
  private readonly answer: Answer
  private readonly options: RecordOptions
  private readonly startedAt: number
  private readonly common: Omit<Extract<AuditEvent, { _tag: "RequestStarted" }>, "_tag" | "time">
  private ended = false

  constructor(origin: Origin, message: IncomingMessage, answer: Answer, options: RecordOptions) {
    this.message = message
    this.answer = answer
    this.options = options
    this.startedAt = options.now()
    const traceId = traceOf(message.headers["traceparent"])
    this.common = {
      side: "Server",
      connectionId: origin.connectionId,
      address: origin.address,
      requestId: `q${++nextRequest}`,
      ...(traceId === undefined ? undefined : { traceId }),
      peerId: origin.peerId,
      method: message.method ?? "",
      path: pathOf(message.url ?? ""),
      attempt: 1
    }
  }

  /** Records the start. A request whose start cannot be recorded is not served. */
  begin(): AuditError | undefined {
    return this.options.record({ _tag: "RequestStarted", time: this.startedAt, ...this.common })
  }

  end(): void {
    if (this.ended) return
    this.ended = true
    const { answer, common, options, startedAt } = this
    const now = options.now()
    const span = options.spans()?.get(this.message)
    span?.onClose(answer)
    options.record({
      _tag: "RequestEnded",
      time: now,
      ...common,
      // A trace that began here was not known yet when the request came.
      ...(span === undefined || common.traceId !== undefined ? undefined : { traceId: span.traceId }),
      ...(answer.headersSent ? { status: answer.statusCode } : undefined),
      ...(answer.isWhole ? undefined : { error: answer.failure ?? "Interrupted" }),
      durationMillis: now - startedAt
    })
  }
}
