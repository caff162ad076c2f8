import { type IncomingMessage, type ServerResponse, STATUS_CODES } from "node:http"
import type { Socket } from "node:net"
import type { TLSSocket } from "node:tls"
import type { AcceptedConnection } from "@agentweave/transport/Acceptor"
import type { Shell } from "@agentweave/transport/Wire"
import { type Answer, InboundRequest, type Spans } from "./answer.js"

/**
 * How long, in milliseconds, what a client still sends is read and discarded after the last answer. A connection that is
 * closed with bytes unread is reset, and the answer may be lost with it (RFC 9112 section 9.6).
 */
const lingerMillis = 2000

/**
 * How many requests of one connection are in flight at most. A client that pipelines more is told with the last of them
 * that the connection ends, and may ask again for what was not answered (RFC 9112 section 9.3.2).
 */
const mostInFlight = 100

const ignore = (): void => {}

/** The part of Node's TCP handle that says how many bytes the operating system has not taken yet (Node 20 to 26). */
interface TcpHandle {
  readonly writeQueueSize?: number
}

/**
 * Bytes that wait for the operating system. No public call tells it of a socket beneath TLS: `bytesWritten` and `writableLength`
 * change when the last byte of what was written at once has been taken, which may be all of a large body.
 */
const queuedBytes = (tcp: Socket): number => {
  const { _handle: handle } = tcp as { readonly _handle?: TcpHandle | null }
  return handle?.writeQueueSize ?? 0
}

/** A response without a body, after which the connection ends. */
const lastResponse = (status: number): string =>
  `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`

/** One accepted connection as HTTP: the responses in flight, and what ends them. Its life is decided by the acceptor. */
export class InboundConnection implements Shell {
  readonly socket: TLSSocket
  private readonly tcp: Socket
  /** Set when the peer is verified, before HTTP hears of the connection. */
  accepted: AcceptedConnection | undefined = undefined
  /** The response to the request that came last; a handshake of a WebSocket has no such object. */
  private response: ServerResponse | undefined = undefined
  /** Requests that have begun and not ended, and what answers them. */
  private readonly inFlight = new Map<InboundRequest, ServerResponse | undefined>()
  /** Callbacks that wait for all requests in flight to end. */
  private onIdle: (() => void) | undefined = undefined
  /** The answer to the last request in flight, whose body cannot be read, once those before it are answered. */
  private refusal: number | undefined = undefined
  /** The response in flight is the last one. */
  private isEnding = false
  private isLingering = false

  constructor(tcp: Socket, socket: TLSSocket) {
    this.tcp = tcp
    this.socket = socket
    socket.once("close", () => this.lose())
    // Node calls this when the last response is out.
    socket.destroySoon = () => this.linger()
  }

  /** How many of the bytes to send the operating system has taken. */
  sent(): number | undefined {
    const { socket, tcp } = this
    return socket.writableLength === 0 ? undefined : tcp.bytesWritten - queuedBytes(tcp)
  }

  canAnnounce(): boolean {
    return this.response !== undefined && !this.response.headersSent && !this.response.destroyed
  }

  announce(): void {
    this.response?.setHeader("connection", "close")
  }

  close(inOrder: boolean): void {
    if (inOrder) this.socket.end(() => this.socket.destroy())
    else this.socket.destroy()
  }

  /** A request has arrived: it is on record and may be served, or gets no answer. */
  begin(message: IncomingMessage, answer: Answer, spans: Spans, response?: ServerResponse): InboundRequest | undefined {
    const { accepted } = this
    if (this.inFlight.size >= mostInFlight) this.endInOrder()
    if (accepted === undefined || this.isEnding) return this.pass()
    const before = this.response
    this.response = response
    const begun = InboundRequest.begin(accepted, message, answer, spans)
    if (begun !== undefined) {
      this.inFlight.set(begun, response)
      return begun
    }
    this.response = before
    return this.pass()
  }

  /** A request behind the last response gets no answer, and what is still to come is not read. */
  private pass(): undefined {
    if (this.inFlight.size === 0) this.socket.destroy()
    else this.socket.pause()
  }

  /** The request in flight is answered before its body has come: the connection ends with the answer. */
  onBodyGivenUp(): void {
    this.endInOrder()
  }

  /** Ends the connection when every request in flight has been answered. */
  private endInOrder(): void {
    if (!this.isEnding && this.response !== undefined) this.endWith(this.response)
  }

  /**
   * The next bytes cannot be read as HTTP, or have not come in time; `status` is the answer to them. It is not the answer to a
   * request before them: those in flight are answered first, and the connection ends with the last of these answers
   * (RFC 9112 section 9.3.2).
   */
  onUnreadable(status: number): void {
    if (this.isLingering || this.refusal !== undefined) return
    const { inFlight, response, socket } = this
    if (inFlight.size === 0) {
      socket.write(lastResponse(status))
      this.linger()
    } else if (response === undefined || response.req.complete || response.writableEnded) {
      this.endInOrder()
    } else {
      // It is in the body of the request that came last.
      this.isEnding = true
      this.refusal = status
      this.refuseBody()
    }
  }

  /** Answers a request whose body cannot be read, when its turn has come; its handler ends with the connection. */
  private refuseBody(): void {
    const { inFlight, refusal, response, socket } = this
    const [request] = inFlight.keys()
    if (refusal === undefined || request === undefined || inFlight.size > 1) return
    if (response?.headersSent === true) {
      // The response on its way to the client is not whole.
      socket.destroy()
      return
    }
    request.answeredWith(refusal)
    socket.write(lastResponse(refusal))
    this.linger()
  }

  /** The last response is out. Bytes that still come are read and discarded for a while, and reach no parser. */
  linger(): void {
    const { accepted, socket } = this
    if (this.isLingering || socket.destroyed) return
    this.isLingering = true
    socket.end()
    socket.removeAllListeners("data")
    socket.on("data", ignore)
    socket.resume()
    accepted?.closeWithin(lingerMillis)
  }

  /** Ends the connection, in order, with a response: what comes behind its request is not served. */
  endWith(response: ServerResponse): void {
    this.isEnding = true
    if (!response.headersSent) response.shouldKeepAlive = false
    response.once("close", () => this.linger())
  }

  /** The answer to the handshake of a WebSocket: what the connection did not become ends with it. */
  onUpgradeAnswer(request: InboundRequest, status: number): void {
    if (status === 101) request.upgraded()
    else this.socket.once("finish", () => this.linger())
  }

  end(request: InboundRequest): void {
    this.inFlight.delete(request)
    request.end()
    if (this.inFlight.size > 0) {
      this.refuseBody()
      return
    }
    const { onIdle } = this
    this.onIdle = undefined
    onIdle?.()
  }

  /** Runs the task when every request in flight has ended; at once where there is none. */
  whenIdle(task: () => void): void {
    if (this.inFlight.size === 0) task()
    else this.onIdle = task
  }

  /**
   * The connection is gone, and with it every request in flight. Node tells only the response whose turn it was to be sent;
   * the others are told here, so that nobody goes on to make them.
   */
  private lose(): void {
    this.onIdle = undefined
    this.refusal = undefined
    for (const [request, response] of Array.from(this.inFlight)) {
      this.end(request)
      if (response === undefined || response.socket !== null || response.writableFinished) continue
      response.destroy()
      response.emit("close")
    }
  }
}
