import type { IncomingMessage, Server, ServerResponse } from "node:http"
import type { Socket } from "node:net"
import type { TLSSocket } from "node:tls"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import type { PeerVerifier, VerifiedPeer } from "@agentweave/spiffe/PeerVerifier"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import type { AuditEvent, CloseReason } from "@agentweave/transport/AuditEvent"
import type { AuditError } from "@agentweave/transport/AuditLog"
import * as Either from "effect/Either"
import { fromHandshake } from "./errors.js"
import { type HandshakeError, judge } from "./handshake.js"
import { type Origin, observe, type RequestSpan } from "./inboundRequest.js"
import type { Sweeper, Timed } from "./sweeper.js"

export interface InboundOptions {
  readonly authorize: PeerMatcher.PeerMatcher
  readonly verifier: PeerVerifier
  readonly sweeper: Sweeper
  readonly record: (event: AuditEvent) => AuditError | undefined
  /** The identity in use at this moment. */
  readonly context: () => X509Context
  readonly handshakeTimeoutMillis: number
  /** Longest life of a connection in milliseconds; `Infinity` for none. */
  readonly maxAgeMillis: number
  /** What a request in flight has left on a connection that must end, in milliseconds. */
  readonly graceMillis: number
  /** A number in `[0, 1)` for the jitter of a connection's life. */
  readonly random: () => number
}

/**
 * A TCP connection. It has no deadline, but it counts: as long as one is there the sweeper keeps its sleeping fiber for
 * the next, whose start and end took a third of what the server adds to a handshake.
 */
interface Attempt extends Timed {
  readonly id: string
  readonly address: string
  readonly startedAt: number
  reported: boolean
}

const jitter = 0.05

/**
 * How long, in milliseconds, a connection that must end waits for one more request. A client may have sent it before it
 * can know of the end, and would never learn whether it was served. Nothing presses where the reason is mere age.
 */
const farewellMillis = 500
const farewellOfAgeMillis = 5000

/** The TCP connection below; `_parent` is where Node keeps it (node:tls, 20 and 22). */
const parentOf = (socket: TLSSocket): Socket | undefined => (socket as { readonly _parent?: Socket })._parent

/** When a connection's own life is limited, milliseconds since the epoch. */
interface Life {
  /** Its age; requests in flight then take as long as they need. */
  readonly agesAt: number
  /** The earliest notAfter of the certificates on it. */
  readonly expiresAt: number
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
    this.deadline = Math.min(life.agesAt, life.expiresAt - farewellMillis)
    socket.on("error", () => {
      this.broken = true
    })
  }

  get closeReason(): CloseReason {
    return this.retired ?? (this.broken ? "Error" : "PeerClosed")
  }

  /** Whether a request that has just arrived may be served. One that came behind the last response gets no answer. */
  admit(response: ServerResponse): boolean {
    // The clock is asked although there is a deadline: a sleeper may be late, a certificate's end is not.
    if (this.sweeper.now() >= this.life.expiresAt) this.retire("Expiry")
    if (this.retired !== undefined) {
      if (!this.isBusy) this.socket.destroy()
      return false
    }
    this.requests++
    this.response = response
    if (this.leaving !== undefined) this.retire(this.leaving)
    return true
  }

  /** Whether the connection may become something else than HTTP. */
  admitUpgrade(): boolean {
    if (this.retired !== undefined || this.leaving !== undefined) {
      this.socket.destroy()
      return false
    }
    this.requests++
    // What it becomes has no requests to wait for.
    this.response = undefined
    return true
  }

  private get isBusy(): boolean {
    return this.response !== undefined && !this.response.writableFinished && !this.response.destroyed
  }

  onDeadline(now: number): void {
    if (now >= this.cutAt) {
      this.deadline = Number.POSITIVE_INFINITY
      this.socket.destroy()
    } else if (now >= this.life.expiresAt) this.retire("Expiry")
    else if (this.leaving !== undefined) this.retire(this.leaving)
    else this.leave(now >= this.life.agesAt ? "Age" : "Expiry")
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
    if (response === undefined || !this.isBusy) {
      socket.destroy()
      return
    }
    if (!response.headersSent) response.setHeader("connection", "close")
    response.once("close", () => socket.end(() => socket.destroy()))
  }
}

/**
 * Verifies and remembers the connections of one https server. The gate runs before the HTTP parser sees a byte; a
 * request whose connection is not in `connections` belongs to nobody and is destroyed.
 */
export class Inbound {
  readonly connections = new Map<Socket, InboundConnection>()
  /** The spans of requests in flight, once an app is served that is traced. */
  spans: WeakMap<IncomingMessage, RequestSpan> | undefined = undefined
  private readonly attempts = new WeakMap<Socket, Attempt>()
  /** TCP connections whose handshake has not ended. */
  private readonly handshakes = new Set<Socket>()
  private readonly options: InboundOptions
  /** Attempts that neither failed nor were closed again. */
  private open = 0
  private closing = false
  private onEmpty: (() => void) | undefined = undefined
  private nextId = 0

  constructor(options: InboundOptions) {
    this.options = options
  }

  /**
   * Node calls every listener of an event, whatever one before it did. So what may not be served is not refused in a
   * listener: the event itself is withheld, and neither the HTTP parser nor a handler hears of it.
   */
  attach(server: Server): void {
    server.prependListener("connection", (socket: Socket) => this.onTcp(socket))
    server.on("tlsClientError", (cause: Error, socket: TLSSocket) => this.onHandshakeError(cause, socket))
    const emit: (event: string, ...args: ReadonlyArray<unknown>) => boolean = server.emit.bind(server)
    server.emit = (event: string, ...args: ReadonlyArray<unknown>) => this.passes(event, args) && emit(event, ...args)
  }

  private passes(event: string, args: ReadonlyArray<unknown>): boolean {
    switch (event) {
      case "secureConnection":
        return this.onSecure(args[0] as TLSSocket)
      case "request":
        return this.onRequest(args[0] as IncomingMessage, args[1] as ServerResponse)
      case "upgrade":
        return this.of(args[0] as IncomingMessage)?.admitUpgrade() === true
      default:
        return true
    }
  }

  private onRequest(request: IncomingMessage, response: ServerResponse): boolean {
    const connection = this.of(request)
    if (connection?.admit(response) !== true) return false
    const { record } = this.options
    return observe(connection.origin, request, response, { record, now: () => this.now, spans: this.spans })
  }

  private of(request: IncomingMessage): InboundConnection | undefined {
    const connection = this.connections.get(request.socket)
    if (connection === undefined) request.socket.destroy()
    return connection
  }

  private get now(): number {
    return this.options.sweeper.now()
  }

  private onTcp(socket: Socket): void {
    const attempt = this.newAttempt(socket)
    this.attempts.set(socket, attempt)
    this.options.sweeper.add(attempt)
    this.open++
    this.handshakes.add(socket)
    socket.once("close", () => {
      this.handshakes.delete(socket)
      this.options.sweeper.remove(attempt)
    })
    const unrecorded = this.options.record({
      _tag: "ConnectionAttempted",
      time: attempt.startedAt,
      ...this.common(attempt),
      expectedId: PeerMatcher.describe(this.options.authorize)
    })
    if (unrecorded !== undefined || this.closing) socket.destroy()
  }

  private attemptOf(socket: TLSSocket): Attempt {
    const parent = parentOf(socket)
    return (parent && this.attempts.get(parent)) ?? this.newAttempt(socket)
  }

  private newAttempt(socket: Socket): Attempt {
    return {
      id: `s${++this.nextId}`,
      address: `${socket.remoteAddress}:${socket.remotePort}`,
      startedAt: this.now,
      reported: false,
      deadline: Number.POSITIVE_INFINITY,
      onDeadline: () => {}
    }
  }

  private common(attempt: Attempt) {
    return { side: "Server" as const, connectionId: attempt.id, address: attempt.address }
  }

  private refuse(attempt: Attempt, error: HandshakeError | AuditError): void {
    if (attempt.reported) return
    attempt.reported = true
    this.options.record({
      _tag: "ConnectionRefused",
      time: this.now,
      ...this.common(attempt),
      expectedId: PeerMatcher.describe(this.options.authorize),
      actualId: error._tag === "PeerVerificationError" ? error.actualId : null,
      error: error._tag,
      reason: error._tag === "TimeoutError" ? error.phase : error.reason,
      description: error.message,
      durationMillis: this.now - attempt.startedAt
    })
    this.gone()
  }

  private gone(): void {
    this.open--
    if (this.open === 0) this.onEmpty?.()
  }

  /**
   * Node reports every handshake that did not succeed here, once. Where TLS refused the chain it reports a reset, and the
   * reason stands on the socket.
   */
  private onHandshakeError(cause: Error, socket: TLSSocket): void {
    const attempt = this.attemptOf(socket)
    const { authorizationError } = socket as { readonly authorizationError?: unknown }
    const code = typeof authorizationError === "string" ? authorizationError : undefined
    const raw = code === undefined ? cause : Object.assign(new Error("its certificate was not accepted"), { code })
    const { authorize: matcher, handshakeTimeoutMillis: timeoutMillis } = this.options
    this.refuse(attempt, fromHandshake(raw, { matcher, address: attempt.address, timeoutMillis }))
    socket.destroy()
  }

  /** The gate; whether the connection passed it. */
  private onSecure(socket: TLSSocket): boolean {
    const { authorize, context, graceMillis, maxAgeMillis, record, sweeper, verifier } = this.options
    const attempt = this.attemptOf(socket)
    const parent = parentOf(socket)
    if (parent !== undefined) this.handshakes.delete(parent)
    socket.setNoDelay(true)
    const { bundles, svid } = context()
    const judged = judge(socket, { verifier, bundles, matcher: authorize, purpose: "ClientAuth", now: () => this.now })
    if (Either.isLeft(judged)) {
      this.refuse(attempt, judged.left)
      socket.on("error", () => {})
      socket.destroy()
      return false
    }
    const peer = judged.right
    const now = this.now
    const unrecorded = record({
      _tag: "ConnectionEstablished",
      time: now,
      ...this.common(attempt),
      peerId: peer.spiffeId,
      peerSerialNumber: peer.serialNumber,
      peerFingerprint: peer.fingerprint,
      ownId: svid.spiffeId,
      ownSerialNumber: svid.serialNumber,
      ownFingerprint: svid.fingerprint,
      bundleGeneration: peer.bundleGeneration,
      tlsVersion: socket.getProtocol() ?? "unknown",
      cipher: socket.getCipher().name,
      durationMillis: now - attempt.startedAt
    })
    if (unrecorded !== undefined) {
      // What was attempted has an end on record, as far as the log takes it.
      this.refuse(attempt, unrecorded)
      socket.on("error", () => {})
      socket.destroy()
      return false
    }
    attempt.reported = true
    // The age is jittered; the certificates' end is not, for it is the limit and not a habit.
    const life = {
      agesAt: now + maxAgeMillis * (1 - jitter * this.options.random()),
      expiresAt: Math.min(peer.notAfter, svid.notAfter)
    }
    const origin = { connectionId: attempt.id, address: attempt.address, peerId: peer.spiffeId, ownId: svid.spiffeId }
    const connection = new InboundConnection(socket, peer, origin, life, sweeper, graceMillis)
    this.connections.set(socket, connection)
    sweeper.add(connection)
    socket.once("close", () => {
      this.connections.delete(socket)
      sweeper.remove(connection)
      const closedAt = this.now
      record({
        _tag: "ConnectionClosed",
        time: closedAt,
        ...this.common(attempt),
        peerId: peer.spiffeId,
        reason: connection.closeReason,
        requests: connection.requests,
        bytesRead: socket.bytesRead,
        bytesWritten: socket.bytesWritten,
        durationMillis: closedAt - now
      })
      this.gone()
    })
    return true
  }

  /** Runs the gate again over every live connection, after a bundle changed. */
  reverify(): void {
    const { authorize, context, verifier } = this.options
    const { bundles } = context()
    for (const connection of this.connections.values()) {
      const judged = verifier.verify({
        chain: connection.peer.chain,
        bundles,
        matcher: authorize,
        purpose: "ClientAuth",
        now: this.now
      })
      if (Either.isLeft(judged)) connection.leave("Distrust")
    }
  }

  /**
   * The listener is closing: nobody new, the idle go at once, requests in flight have `graceMillis` left. `onEmpty` is
   * called when every connection is off the wire and on record.
   */
  shutdown(onEmpty: () => void): void {
    this.closing = true
    this.onEmpty = onEmpty
    for (const socket of this.handshakes) socket.destroy()
    for (const connection of this.connections.values()) connection.retire("Shutdown")
    if (this.open === 0) onEmpty()
  }
}
