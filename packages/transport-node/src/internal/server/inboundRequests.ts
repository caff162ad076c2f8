import type { Server, ServerOptions, ServerResponse } from "node:http"
import type { Socket } from "node:net"
import type { Spans } from "./answer.js"
import type { InboundConnection } from "./inboundConnection.js"
import { InboundMessage, PinnedMessage } from "./inboundMessage.js"
import { InboundResponse, PinnedResponse } from "./inboundResponse.js"
import { normalizeOrRefuse } from "./requestTarget.js"
import { UpgradeAnswer } from "./upgrade.js"

type Emit = (event: string, ...args: ReadonlyArray<unknown>) => boolean

/** How a server makes requests and responses, so that all of them come by here. */
export const httpOptions = {
  IncomingMessage: InboundMessage,
  ServerResponse: InboundResponse,
  // Node would refuse a request without one by itself, off the record.
  requireHostHeader: false
} satisfies ServerOptions<typeof InboundMessage, typeof InboundResponse>

/** Answers in place of a handler. */
const refuse = (response: ServerResponse, status: number): void => {
  response.writeHead(status, { "content-length": 0 })
  response.end()
}

/** The same for the listeners of frameworks, which may change the classes of both. */
export const listenerOptions = { ...httpOptions, IncomingMessage: PinnedMessage, ServerResponse: PinnedResponse }

const ignore = (): void => {}

/** The answer to what cannot be read as a request, or has not come in time; `undefined` where the connection has failed. */
const statusOf = ({ code = "" }: NodeJS.ErrnoException): number | undefined => {
  switch (code) {
    case "HPE_HEADER_OVERFLOW":
      return 431
    case "HPE_CHUNK_EXTENSIONS_OVERFLOW":
      return 413
    case "ERR_HTTP_REQUEST_TIMEOUT":
      return 408
    default:
      return code.startsWith("HPE_") ? 400 : undefined
  }
}

/**
 * Every request of a server, whatever Node calls it: a request, an upgrade, one with an expectation, a `CONNECT`. Each is
 * on record before anything is done with it, and its end too. Node calls every listener of an event, whatever one before
 * it did. So what may not be served is not refused in a listener: the event itself is withheld.
 */
export class InboundRequests {
  private readonly of: (socket: Socket) => InboundConnection | undefined
  private readonly spans: Spans

  constructor(of: (socket: Socket) => InboundConnection | undefined, spans: Spans) {
    this.of = of
    this.spans = spans
  }

  attach(server: Server): void {
    // By default Node drops the fields behind the thousandth without a word. The size of a head is limited as it is.
    server.maxHeadersCount = 0
    // Node has answers of its own for these, off the record, unless somebody listens.
    for (const event of ["checkContinue", "checkExpectation", "connect"]) server.on(event, ignore)
    // Node would answer it at once, in place of a request in flight before it.
    server.on("clientError", (error: NodeJS.ErrnoException, socket: Socket) => {
      const status = statusOf(error)
      if (status === undefined) socket.destroy(error)
      else this.of(socket)?.onUnreadable(status)
    })
    const emit: Emit = server.emit.bind(server)
    server.emit = (event: string, ...args: ReadonlyArray<unknown>) =>
      this.passes(event, args, emit) && emit(event, ...args)
  }

  /** Whether an event goes on to its listeners; `emit` makes another of it. */
  private passes(event: string, args: ReadonlyArray<unknown>, emit: Emit): boolean {
    switch (event) {
      case "request":
        return this.onRequest(args[0] as InboundMessage, args[1] as InboundResponse)
      case "checkContinue":
        this.onContinue(args[0] as InboundMessage, args[1] as InboundResponse, emit)
        return false
      case "checkExpectation":
        this.onRequest(args[0] as InboundMessage, args[1] as InboundResponse, 417)
        return false
      case "connect":
        // There is no tunnel here (RFC 9110 section 9.3.6).
        this.onLast(args[0] as InboundMessage, ignore, 501)
        return false
      case "upgrade":
        this.onLast(args[0] as InboundMessage, () => emit("upgrade", ...args))
        return false
      default:
        return true
    }
  }

  /** Puts a request on record. Whether it goes on to a handler, which no request does that is to be answered with `status`. */
  private onRequest(message: InboundMessage, response: InboundResponse, status?: number): boolean {
    const connection = this.of(message.socket)
    if (connection === undefined) return false
    message.carrier = connection
    const refusal = normalizeOrRefuse(message)
    const request = connection.begin(message, response.answer, this.spans, response)
    if (request === undefined) return false
    response.once("close", () => connection.end(request))
    // Node (20 to 26) loses what comes in the same packet behind an `Upgrade` that is not used.
    if (refusal !== undefined || message.hadUpgrade === true || !response.shouldKeepAlive) connection.endWith(response)
    const answer = status ?? refusal
    if (answer !== undefined) refuse(response, answer)
    return answer === undefined
  }

  private onContinue(message: InboundMessage, response: InboundResponse, emit: Emit): void {
    if (!this.onRequest(message, response)) return
    response.writeContinue()
    emit("request", message, response)
  }

  /**
   * Serves a request for whose sake Node has taken the connection away from HTTP: its answer is the last one there, unless
   * it is `101`. It waits for its turn behind the requests before it.
   */
  private onLast(message: InboundMessage, serve: () => void, status?: number): void {
    const connection = this.of(message.socket)
    connection?.whenIdle(() => {
      const { socket } = connection
      // A connection that must end cannot go on as another protocol.
      if (connection.accepted?.isOpen !== true) {
        socket.destroy()
        return
      }
      const refusal = status ?? normalizeOrRefuse(message)
      const answer = new UpgradeAnswer(socket, (status) => {
        if (request !== undefined) connection.onUpgradeAnswer(request, status)
      })
      const request = connection.begin(message, answer, this.spans)
      if (request === undefined) return
      if (refusal === undefined) return serve()
      const response = new InboundResponse(message)
      response.assignSocket(socket)
      response.once("finish", () => connection.linger())
      connection.endWith(response)
      refuse(response, refusal)
    })
  }
}
