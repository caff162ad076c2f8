import type { IncomingMessage } from "node:http"
import type { AcceptedConnection, AcceptedRequest } from "@agentweave/transport/Acceptor"

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
export interface ServerSpan {
  readonly traceId: string
  /** The response is out, or its connection gone. */
  readonly onClose: (answer: Answer) => void
}

/** The spans of requests in flight; absent without a tracer. */
export type Spans = () => WeakMap<IncomingMessage, ServerSpan> | undefined

/** The trace of a `traceparent` header (W3C Trace Context section 3.2), if it has one. */
const traceOf = (header: string | Array<string> | undefined): string | undefined =>
  typeof header === "string" && /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-/.test(header) ? header.slice(3, 35) : undefined

/** A request that is being served, and its answer. */
export class InboundRequest {
  private readonly accepted: AcceptedRequest
  private readonly message: IncomingMessage
  private readonly answer: Answer
  private readonly spans: Spans
  private ended = false
  /** The status of an answer that is not the one its handler makes. */
  private status: number | undefined = undefined

  private constructor(accepted: AcceptedRequest, message: IncomingMessage, answer: Answer, spans: Spans) {
    this.accepted = accepted
    this.message = message
    this.answer = answer
    this.spans = spans
  }

  /** `undefined` where it may not be served, or its start cannot be recorded. */
  static begin(
    connection: AcceptedConnection,
    message: IncomingMessage,
    answer: Answer,
    spans: Spans
  ): InboundRequest | undefined {
    const accepted = connection.requestStarted({
      method: message.method ?? "",
      target: message.url ?? "",
      traceId: traceOf(message.headers["traceparent"])
    })
    return accepted === undefined ? undefined : new InboundRequest(accepted, message, answer, spans)
  }

  /** The connection has become a WebSocket. */
  upgraded(): void {
    this.accepted.upgraded()
  }

  /** It is answered with this status in place of what its handler would have made of it. */
  answeredWith(status: number): void {
    this.status = status
  }

  end(): void {
    if (this.ended) return
    this.ended = true
    const { accepted, answer } = this
    const span = this.spans()?.get(this.message)
    span?.onClose(answer)
    accepted.ended({
      traceId: span?.traceId,
      status: this.status ?? (answer.headersSent ? answer.statusCode : undefined),
      error: answer.isWhole ? undefined : (answer.failure ?? "Interrupted")
    })
  }
}
