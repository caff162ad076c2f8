import type { TLSSocket } from "node:tls"
import type { VerifiedPeer } from "@agentweave/spiffe/PeerVerifier"
import type { SpiffeId } from "@agentweave/spiffe/SpiffeId"
import type { CloseReason } from "@agentweave/transport/AuditEvent"
import type { Connection, Exchange, RequestFailure } from "@agentweave/transport/Connector"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import type { Effect } from "effect/Effect"
import { Client } from "undici"
import { certificateAlert, codeOf, UnaskedBytes } from "./errors.js"
import { type Carrier, ExchangeHandler } from "./exchange.js"
import { withoutInformational } from "./informational.js"
import { toUndici } from "./requestBody.js"
import type { Sweeper, Timed } from "./sweeper.js"

export interface ClosedReport {
  readonly reason: CloseReason
  readonly requests: number
  readonly bytesRead: number
  readonly bytesWritten: number
}

export interface ConnectionOptions {
  readonly id: string
  readonly socket: TLSSocket
  readonly host: string
  readonly port: number
  readonly address: string
  readonly peer: VerifiedPeer
  readonly ownId: SpiffeId
  readonly timeoutMillis: number
  readonly bodyTimeoutMillis: number
  readonly maxResponseSize: number
  /** When the connection is old enough to take no new exchange, milliseconds since the epoch; `Infinity` for never. */
  readonly agesAt: number
  /** When the certificates on it have had their time, milliseconds since the epoch. */
  readonly expiresAt: number
  readonly sweeper: Sweeper
  readonly onClosed: (report: ClosedReport) => void
}

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
  return new Client(`https://${host.includes(":") ? `[${host}]` : host}:${port}`, {
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

/** One verified socket, and the undici `Client` that its first request puts over it. */
export class NodeConnection implements Connection, Carrier, Timed {
  readonly id: string
  readonly address: string
  readonly remoteAddress: string | undefined
  readonly timeoutMillis: number
  readonly bodyTimeoutMillis: number
  readonly maxResponseSize: number
  readonly ownId: SpiffeId
  readonly peer: VerifiedPeer
  deadline: number
  private readonly socket: TLSSocket
  private readonly host: string
  private readonly port: number
  private client: Client | undefined = undefined
  private awaitResponse: (() => void) | undefined = undefined
  private readonly sweeper: Sweeper
  private readonly onClosed: (report: ClosedReport) => void
  private readonly agesAt: number
  private readonly expiresAt: number
  /** When an exchange still in flight on an expired or distrusted connection is cut. */
  private cutAt = Number.POSITIVE_INFINITY
  /** The next of the three above. */
  private lifeDeadline: number
  private exchangeDeadline = Number.POSITIVE_INFINITY
  private current: ExchangeHandler | undefined = undefined
  private onSettled: ((error?: string) => void) | undefined = undefined
  private retired: CloseReason | undefined = undefined
  private firstAlert: string | undefined = undefined
  peerEnded = false
  broken = false
  private closed = false
  private onGone: Array<() => void> | undefined = undefined
  private requests = 0

  constructor(options: ConnectionOptions) {
    this.id = options.id
    this.address = options.address
    this.remoteAddress = options.socket.remoteAddress
    this.timeoutMillis = options.timeoutMillis
    this.bodyTimeoutMillis = options.bodyTimeoutMillis
    this.maxResponseSize = options.maxResponseSize
    this.ownId = options.ownId
    this.peer = options.peer
    this.socket = options.socket
    this.sweeper = options.sweeper
    this.onClosed = options.onClosed
    this.agesAt = options.agesAt
    this.expiresAt = options.expiresAt
    this.lifeDeadline = Math.min(options.agesAt, options.expiresAt)
    this.deadline = this.lifeDeadline
    this.host = options.host
    this.port = options.port
    const { socket } = options
    socket.on("error", (cause) => this.onSocketError(cause))
    // What happened between the handshake and now.
    if (socket.errored !== null) this.onSocketError(socket.errored)
    socket.once("end", () => {
      this.peerEnded = true
    })
    socket.once("close", () => this.end())
    if (socket.closed) queueMicrotask(() => this.end())
    this.sweeper.add(this)
  }

  /** undici too reports errors here: of a peer that ended the connection, and (`UND_ERR_INFO`) of an end as agreed. */
  private onSocketError(cause: unknown): void {
    this.firstAlert ??= certificateAlert(cause)
    if (isIdleTimeout(cause)) this.retired ??= "Idle"
    if (!this.peerEnded && codeOf(cause) !== "UND_ERR_INFO") this.broken = true
  }

  isUsable(): boolean {
    return this.current === undefined && this.retired === undefined && !this.closed && !this.socket.destroyed
  }

  unsafeStart(exchange: Exchange, resume: (result: Effect<HttpClientResponse, RequestFailure>) => void): () => void {
    const handler = new ExchangeHandler(this, exchange, resume)
    this.current = handler
    this.onSettled = exchange.onSettled
    this.requests++
    this.setDeadline(this.sweeper.now() + this.timeoutMillis)
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

  /** A request is about to be written. */
  requestStarts(): void {
    this.awaitResponse?.()
  }

  unsafeRetire(reason: CloseReason): void {
    if (this.closed) return
    this.retired ??= reason
    if (this.current === undefined) {
      this.destroy()
      return
    }
    // What is in flight has its chance to end. Where no credentials stand behind it any more, that is one timeout.
    if (reason === "Expiry" || reason === "Distrust") {
      this.cutAt = Math.min(this.cutAt, this.sweeper.now() + this.timeoutMillis)
    }
    this.lifeDeadline = Number.isFinite(this.cutAt) ? this.cutAt : this.expiresAt
    this.setDeadline(this.exchangeDeadline)
  }

  /** Ends at once, whatever is in flight. `onGone` is called when it is off the wire and on record. */
  unsafeDestroy(reason: CloseReason, onGone?: () => void): void {
    if (this.closed) {
      onGone?.()
      return
    }
    if (onGone !== undefined) (this.onGone ??= []).push(onGone)
    this.destroy(reason)
  }

  onDeadline(now: number): void {
    if (now >= this.cutAt) this.destroy()
    else if (now >= this.expiresAt) this.unsafeRetire("Expiry")
    else if (now >= this.agesAt) this.unsafeRetire("Age")
    if (now >= this.exchangeDeadline) this.current?.onTimeout()
  }

  setDeadline(deadline: number): void {
    this.exchangeDeadline = deadline
    this.deadline = Math.min(deadline, this.lifeDeadline)
    this.sweeper.touch(this.deadline)
  }

  now(): number {
    return this.sweeper.now()
  }

  alert(): string | undefined {
    return this.firstAlert
  }

  settled(error?: string): void {
    const { onSettled } = this
    this.onSettled = undefined
    this.current = undefined
    this.setDeadline(Number.POSITIVE_INFINITY)
    if (this.retired !== undefined) this.destroy()
    onSettled?.(error)
  }

  destroy(reason?: CloseReason): void {
    this.retired ??= reason
    // Nothing is left to wait for but the socket's close.
    this.lifeDeadline = Number.POSITIVE_INFINITY
    this.setDeadline(Number.POSITIVE_INFINITY)
    this.socket.destroy()
    this.client?.destroy(null).catch(() => {})
  }

  private end(): void {
    if (this.closed) return
    this.closed = true
    this.sweeper.remove(this)
    if (this.client?.destroyed === false) this.client.destroy(null).catch(() => {})
    this.onClosed({
      reason: this.retired ?? (this.broken ? "Error" : "PeerClosed"),
      requests: this.requests,
      bytesRead: this.socket.bytesRead,
      bytesWritten: this.socket.bytesWritten
    })
    for (const onGone of this.onGone ?? []) onGone()
  }
}
