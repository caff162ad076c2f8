import type { TLSSocket } from "node:tls"
import type { CloseReason } from "@agentweave/transport/AuditEvent"
import type { Exchange, ExchangeError } from "@agentweave/transport/Connector"
import {
  addressOf,
  type GoneReason,
  type HttpCarrier,
  type HttpWire,
  type Supervision
} from "@agentweave/transport/Wire"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import * as Duration from "effect/Duration"
import type { Effect } from "effect/Effect"
import { Client } from "undici"
import { certificateAlert, codeOf, UnaskedBytes } from "../errors.js"
import { clientHandshake, TlsWire } from "../tls/tlsWire.js"
import { type Carrier, ExchangeHandler } from "./exchangeHandler.js"
import { withoutInformational } from "./informational.js"
import { toUndici } from "./requestBody.js"

/** No request can be started any more. Its code is not undici's own: those make undici connect again for ever. */
class ConnectionGone extends Error {
  readonly code = "ERR_CONNECTION_GONE"
}

/**
 * A client over one socket that can never make another: the connect function hands the socket out once, and only while
 * nothing has been received on it. Bytes that come before the first request answer no request (RFC 9112 section 9.2), and
 * undici (7.30) would take them for the first response.
 */
const clientOver = (socket: TLSSocket, host: string, port: number): Client => {
  let handedOut = false
  return new Client(`https://${addressOf(host, port)}`, {
    // Answered later: undici (7.30) is not done with asking when a synchronous answer comes, and hangs. After the turn of
    // the event loop in which the handshake ended, what the peer sent together with its handshake has been received.
    connect: (_options, callback) => {
      setImmediate(() => {
        if (handedOut || socket.destroyed) callback(new ConnectionGone("the connection is closed"), null)
        else if (socket.readableLength > 0) callback(new UnaskedBytes(socket.readableLength), null)
        else {
          handedOut = true
          callback(null, socket)
        }
      })
    },
    pipelining: 1,
    headersTimeout: 0,
    bodyTimeout: 0,
    keepAliveTimeout: 2 ** 31 - 1,
    keepAliveMaxTimeout: 2 ** 31 - 1,
    // How long before the end that the peer's `Keep-Alive` names an idle connection ends: by default two seconds, which
    // would leave nothing of a hint of one or two.
    keepAliveTimeoutThreshold: 500,
    allowH2: false
  })
}

/** undici (7.30) ends an idle connection before the time that the peer's `Keep-Alive` names. */
const isIdleTimeout = (cause: unknown): boolean =>
  cause instanceof Error && codeOf(cause) === "UND_ERR_INFO" && cause.message === "socket idle timeout"

/** The inputs of a wire. */
export interface SocketOptions {
  readonly socket: TLSSocket
  readonly host: string
  readonly port: number
  /** A server is accepted that does not ask for our certificate. */
  readonly oneSided: boolean
}

/** A socket whose handshake has ended, and the undici `Client` that its first request puts over it. */
export class SocketWire extends TlsWire implements HttpWire, HttpCarrier, Carrier {
  readonly remoteAddress: string | undefined
  address = ""
  timeoutMillis = 0
  bodyTimeoutMillis = 0
  maxResponseSize = 0
  closedHere = false
  private readonly host: string
  private readonly port: number
  private connection: Supervision | undefined = undefined
  private client: Client | undefined = undefined
  private awaitResponse: (() => void) | undefined = undefined
  private current: ExchangeHandler | undefined = undefined
  private exchange: Exchange | undefined = undefined
  private firstAlert: string | undefined = undefined
  /** The end that the peer's `Keep-Alive` has named has come. */
  private idled = false

  constructor({ host, oneSided, port, socket }: SocketOptions) {
    super(socket, clientHandshake(socket, oneSided))
    this.host = host
    this.port = port
    this.remoteAddress = socket.remoteAddress
    if (socket.errored !== null) this.onError(socket.errored)
  }

  carry(connection: Supervision): HttpCarrier {
    const { bodyTimeout, maxResponseSize, timeout } = connection.config
    this.connection = connection
    this.address = connection.address
    this.timeoutMillis = Duration.toMillis(timeout)
    this.bodyTimeoutMillis = Duration.toMillis(bodyTimeout ?? timeout)
    this.maxResponseSize = maxResponseSize
    return this
  }

  protected override onError(cause: unknown): void {
    super.onError(cause)
    this.firstAlert ??= certificateAlert(cause)
    if (isIdleTimeout(cause)) this.idled = true
  }

  start(exchange: Exchange, resume: (result: Effect<HttpClientResponse, ExchangeError>) => void): () => void {
    const handler = new ExchangeHandler(this, exchange, resume)
    this.current = handler
    this.exchange = exchange
    this.setDeadline(this.now() + this.timeoutMillis)
    const { request } = exchange
    const upload = toUndici(request.body, exchange.fiber, (cause) => handler.onRequestBodyFailure(cause))
    if (upload.refusal !== undefined) {
      handler.onError(upload.refusal)
      return () => {}
    }
    handler.onFinished = upload.cancel
    handler.isUploadWaiting = upload.isWaiting
    this.client ??= this.open()
    this.client.dispatch(
      {
        path: exchange.path,
        method: request.method,
        headers:
          upload.contentType === undefined || request.headers["content-type"] !== undefined
            ? request.headers
            : { ...request.headers, "content-type": upload.contentType },
        // HEAD is the last request of its connection: undici's default, kept. A peer that wrongly sends a body with the
        // response may send it at any time, also after the next request was written, and would answer that one with it.
        body: upload.body,
        // Fixed: undici would otherwise take it from a `Host` header set by the caller, and connect anew.
        servername: "verified"
      } as never,
      handler
    )
    return () => handler.abort()
  }

  private open(): Client {
    this.awaitResponse = withoutInformational(this.socket)
    return clientOver(this.socket, this.host, this.port)
  }

  onTimeout(): void {
    this.current?.onTimeout()
  }

  onClosed(): void {}

  /** A request is about to be written. */
  requestStarts(): void {
    this.awaitResponse?.()
  }

  setDeadline(deadline: number): void {
    this.connection?.setDeadline(deadline)
  }

  now(): number {
    return this.connection?.now() ?? 0
  }

  alert(): string | undefined {
    return this.firstAlert
  }

  settled(error?: string): void {
    const { exchange } = this
    this.exchange = undefined
    this.current = undefined
    exchange?.onSettled(error)
  }

  abandon(reason: CloseReason): void {
    this.connection?.abandon(reason)
  }

  override destroy(): void {
    this.closedHere = true
    super.destroy()
    this.endClient()
  }

  /** undici hears of it after this, and tells the exchange in flight: that ends first, on record too. */
  protected override gone(): void {
    this.endClient()
    if (this.current === undefined) super.gone()
    else setImmediate(() => super.gone())
  }

  protected override get goneReason(): GoneReason {
    return this.idled ? "Idle" : super.goneReason
  }

  private endClient(): void {
    if (this.client?.destroyed === false) this.client.destroy(null).catch(() => {})
  }
}
