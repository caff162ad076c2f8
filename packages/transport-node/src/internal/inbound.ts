import type { IncomingMessage, Server, ServerResponse } from "node:http"
import type { Socket } from "node:net"
import type { TLSSocket } from "node:tls"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import type { PeerVerifier } from "@agentweave/spiffe/PeerVerifier"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import type { AuditEvent } from "@agentweave/transport/AuditEvent"
import type { AuditError } from "@agentweave/transport/AuditLog"
import * as Either from "effect/Either"
import { fromHandshake } from "./errors.js"
import { type HandshakeError, judge } from "./handshake.js"
import { InboundConnection } from "./inboundConnection.js"
import { observe, type RequestSpan } from "./inboundRequest.js"
import { securedBy } from "./securedBy.js"
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

/** The TCP connection below; `_parent` is where Node keeps it (node:tls, 20 and 22). */
const parentOf = (socket: TLSSocket): Socket | undefined => (socket as { readonly _parent?: Socket })._parent

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
      ...securedBy(socket, peer, svid),
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
