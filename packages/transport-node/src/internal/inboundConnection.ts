import type { ServerResponse } from "node:http"
import type { TLSSocket } from "node:tls"
import type { VerifiedPeer } from "@agentweave/spiffe/PeerVerifier"
import type { CloseReason } from "@agentweave/transport/AuditEvent"
import type { InboundRequest, Origin } from "./inboundRequest.js"
import type { Sweeper, Timed } from "./sweeper.js"

/**
 * How long, in milliseconds, a connection that must end waits for one more request. A client may have sent it before it
 * can know of the end, and would never learn whether it was served. Nothing presses where the reason is mere age.
 */
const farewellMillis = 500
const farewellOfAgeMillis = 5000

/**
 * How long, in milliseconds, what a client still sends of a body is read and discarded after the answer. A connection that
 * is closed with bytes unread is reset, and the answer may be lost with it (RFC 9112 section 9.6).
 */
const lingerMillis = 2000

/**
 * How many requests of one connection are in flight at most. A client that pipelines more is told with the last of them
 * that the connection ends, and may ask again for what was not answered (RFC 9112 section 9.3.2).
 */
const mostInFlight = 100

/** When a connection's own life is limited, milliseconds since the epoch. */
interface Life {
  /** Its age; requests in flight then take as long as they need. */
  readonly agesAt: number
  /** The earliest notAfter of the certificates on it. */
  readonly expiresAt: number
  /** When it ends if no request has come. */
  readonly idleAt: number
}

/** One accepted connection: its verified peer, the response in flight, and its end. */
export class InboundConnection implements Timed {
  requests = 0
  deadline: number
  readonly socket: TLSSocket
  readonly peer: VerifiedPeer
  readonly origin: Origin
  private readonly life: Life
  private readonly sweeper: Sweeper
  private readonly graceMillis: number
  private response: ServerResponse | undefined = undefined
  /** Requests that have begun and not ended, and what answers them; a handshake of a WebSocket has no such object. */
  private readonly inFlight = new Map<InboundRequest, ServerResponse | undefined>()
  /** What waits for all requests in flight to end. */
  private onIdle: (() => void) | undefined = undefined
  /** The handshake of a WebSocket waits for its answer. */
  private isUpgrading = false
  /** The response in flight is the last one. */
  private isEnding = false
  /** Why the next request is the last one. */
  private leaving: CloseReason | undefined = undefined
  private retired: CloseReason | undefined = undefined
  private cutAt = Number.POSITIVE_INFINITY
  private broken = false

  constructor(
    socket: TLSSocket,
    peer: VerifiedPeer,
    origin: Origin,
    life: Life,
    sweeper: Sweeper,
    graceMillis: number
  ) {
    this.socket = socket
    this.peer = peer
    this.origin = origin
    this.life = life
    this.sweeper = sweeper
    this.graceMillis = graceMillis
    this.deadline = Math.min(this.endsAt, life.idleAt)
    socket.on("error", () => {
      this.broken = true
    })
    // Node ends a connection so that has been idle since its last response.
    socket.on("timeout", () => {
      this.retired ??= "Idle"
    })
  }

  /** When it ends of itself. */
  private get endsAt(): number {
    return Math.min(this.life.agesAt, this.life.expiresAt - farewellMillis)
  }

  get closeReason(): CloseReason {
    return this.retired ?? (this.broken ? "Error" : "PeerClosed")
  }

  /** Whether a request that has just arrived may be served. One that came behind the last response gets no answer. */
  admit(response: ServerResponse): boolean {
    // The clock is asked although there is a deadline: a sleeper may be late, a certificate's end is not.
    if (this.sweeper.now() >= this.life.expiresAt) this.retire("Expiry")
    if (this.inFlight.size >= mostInFlight) this.endInOrder()
    if (this.retired !== undefined || this.isEnding) {
      if (!this.isBusy) this.socket.destroy()
      // What is still to come is not read.
      else this.socket.pause()
      return false
    }
    this.requests++
    this.response = response
    if (this.leaving !== undefined) this.retire(this.leaving)
    return true
  }

  /** Ends the connection, in order, with a response: what comes behind its request is not served. */
  endWith(response: ServerResponse): void {
    this.isEnding = true
    if (!response.headersSent) response.shouldKeepAlive = false
  }

  /** The request in flight is answered before its body has come: the connection ends with the answer. */
  onBodyGivenUp(): void {
    const { response, socket } = this
    if (response === undefined) return
    this.endWith(response)
    // What Node calls when the last response is out.
    socket.destroySoon = () => {
      socket.end()
      this.cutAt = Math.min(this.cutAt, this.sweeper.now() + lingerMillis)
      this.deadline = Math.min(this.deadline, this.cutAt)
      this.sweeper.touch(this.deadline)
    }
  }

  /** Ends the connection when every request in flight has been answered. */
  private endInOrder(): void {
    const { isEnding, response, socket } = this
    if (isEnding || response === undefined) return
    this.endWith(response)
    response.once("close", () => socket.end(() => socket.destroy()))
  }

  /** Whether the handshake of a WebSocket, the last that comes as HTTP, may be served. */
  admitUpgrade(): boolean {
    if (this.retired !== undefined || this.leaving !== undefined || this.isEnding) {
      this.socket.destroy()
      return false
    }
    this.requests++
    this.response = undefined
    this.isUpgrading = true
    return true
  }

  /** What the connection became has no requests to wait for. What it did not become ends with this answer. */
  onUpgradeAnswer(status: number): void {
    this.isUpgrading = false
    const { socket } = this
    if (status !== 101) socket.once("finish", () => socket.destroy())
    else if (this.retired !== undefined) socket.destroy()
  }

  /** A request begins, unless that cannot be recorded: then the connection ends. */
  begin(request: InboundRequest, response?: ServerResponse): boolean {
    if (request.begin() !== undefined) {
      this.socket.destroy()
      return false
    }
    this.inFlight.set(request, response)
    return true
  }

  end(request: InboundRequest): void {
    this.inFlight.delete(request)
    request.end()
    if (this.inFlight.size > 0) return
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
  lose(): void {
    this.onIdle = undefined
    for (const [request, response] of Array.from(this.inFlight)) {
      this.end(request)
      if (response === undefined || response.socket !== null || response.writableFinished) continue
      response.destroy()
      response.emit("close")
    }
  }

  private get isBusy(): boolean {
    if (this.isUpgrading) return true
    return this.response !== undefined && !this.response.writableFinished && !this.response.destroyed
  }

  onDeadline(now: number): void {
    if (now >= this.cutAt) {
      this.deadline = Number.POSITIVE_INFINITY
      this.socket.destroy()
    } else if (now >= this.life.expiresAt) this.retire("Expiry")
    else if (this.leaving !== undefined) this.retire(this.leaving)
    else if (now < this.endsAt) {
      // It was to look for a first request.
      if (this.requests === 0) this.retire("Idle")
      else this.deadline = this.endsAt
    } else this.leave(now >= this.life.agesAt ? "Age" : "Expiry")
  }

  /**
   * Serves at most one more request, and tells the client with its response that it was the last: `retire`, with time for
   * what is on its way. A distrusted peer that was served nothing yet is not waited for.
   */
  leave(reason: CloseReason): void {
    if (this.retired !== undefined) return
    if (this.isBusy ? reason !== "Expiry" : reason === "Distrust" && this.response === undefined) {
      this.retire(reason)
      return
    }
    // A second reason does not give more time.
    const before = this.leaving === undefined ? this.life.expiresAt : this.deadline
    this.leaving = reason
    this.deadline = Math.min(this.sweeper.now() + (reason === "Age" ? farewellOfAgeMillis : farewellMillis), before)
    this.sweeper.touch(this.deadline)
  }

  /**
   * Serves no further request; ends once the response in flight is out, at once when there is none. Where the reason is
   * not mere age, that response has `graceMillis` left.
   */
  retire(reason: CloseReason): void {
    if (reason !== "Age") this.cutAt = Math.min(this.cutAt, this.sweeper.now() + this.graceMillis)
    this.deadline = Number.isFinite(this.cutAt) ? this.cutAt : this.life.expiresAt
    this.sweeper.touch(this.deadline)
    if (this.retired !== undefined) return
    this.retired = reason
    const { response, socket } = this
    if (!this.isBusy) {
      socket.destroy()
      return
    }
    // The answer to a handshake is the last one anyway.
    if (response === undefined) return
    if (!response.headersSent) response.setHeader("connection", "close")
    response.once("close", () => socket.end(() => socket.destroy()))
  }
}
