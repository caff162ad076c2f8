import type { IncomingMessage, Server } from "node:http"
import type { Socket } from "node:net"
import type { SecureContext, TLSSocket } from "node:tls"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import type { PeerVerifier } from "@agentweave/spiffe/PeerVerifier"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import type { AuditEvent } from "@agentweave/transport/AuditEvent"
import type { AuditError } from "@agentweave/transport/AuditLog"
import * as Either from "effect/Either"
import { acceptTls, askOpenSsl } from "./accept.js"
import { fromHandshake, handshakeCut, tooSlow } from "./errors.js"
import { type HandshakeError, judge } from "./handshake.js"
import { InboundConnection } from "./inboundConnection.js"
import type { RequestSpan } from "./inboundRequest.js"
import { InboundRequests } from "./inboundRequests.js"
import { securedBy } from "./securedBy.js"
import type { Sweeper, Timed } from "./sweeper.js"

export interface InboundOptions {
  readonly authorize: PeerMatcher.PeerMatcher
  readonly verifier: PeerVerifier
  readonly sweeper: Sweeper
  readonly record: (event: AuditEvent) => AuditError | undefined
  /** The identity in use at this moment. */
  readonly context: () => X509Context
  /** What the next handshake uses: made from that identity. */
  readonly secureContext: () => SecureContext
  readonly handshakeTimeoutMillis: number
  /** Longest life of a connection in milliseconds; `Infinity` for none. */
  readonly maxAgeMillis: number
  /** How long a connection may be without its first request, in milliseconds. */
  readonly idleMillis: number
  /** What a request in flight has left on a connection that must end, in milliseconds. */
  readonly graceMillis: number
  /** A number in `[0, 1)` for the jitter of a connection's life. */
  readonly random: () => number
}

/**
 * A TCP connection. Its deadline is that of its handshake; it is kept by the sweeper as long as the connection is open, so
 * that the sweeper's sleeping fiber stays for the next: its start and end took a third of what the server adds to a handshake.
 */
interface Attempt extends Timed {
  readonly id: string
  readonly address: string
  readonly startedAt: number
  deadline: number
  reported: boolean
}

const jitter = 0.05

/**
 * Verifies and remembers the connections of one server. The gate runs before the HTTP parser sees a byte; a request whose connection is not in `connections` belongs to nobody and is destroyed.
 */
export class Inbound {
  readonly connections = new Map<Socket, InboundConnection>()
  /** The spans of requests in flight, once an app is served that is traced. */
  spans: WeakMap<IncomingMessage, RequestSpan> | undefined = undefined
  /** Connections whose handshake has not ended. */
  private readonly handshakes = new Set<TLSSocket>()
  private readonly options: InboundOptions
  private readonly requests: InboundRequests
  /** Attempts that neither failed nor were closed again. */
  private open = 0
  private closing = false
  /** The scope of the server and those of its apps wait, each for itself. */
  private readonly whenEmpty: Array<() => void> = []
  private nextId = 0

  constructor(options: InboundOptions) {
    this.options = options
    const { record, sweeper } = options
    this.requests = new InboundRequests((message) => this.of(message), {
      record,
      now: () => sweeper.now(),
      spans: () => this.spans
    })
  }

  /**
   * Takes the server's TCP connections, and gives it those that are verified TLS connections instead: its own listeners
   * begin to parse HTTP.
   */
  attach(server: Server): void {
    const listeners = server.listeners("connection")
    server.removeAllListeners("connection")
    server.on("connection", (tcp: Socket) =>
      this.onTcp(tcp, (socket) => {
        for (const listener of listeners) listener.call(server, socket)
      })
    )
    this.requests.attach(server)
  }

  private of(request: IncomingMessage): InboundConnection | undefined {
    const connection = this.connections.get(request.socket)
    if (connection === undefined) request.socket.destroy()
    return connection
  }

  private get now(): number {
    return this.options.sweeper.now()
  }

  private onTcp(tcp: Socket, toHttp: (socket: TLSSocket) => void): void {
    const { authorize, handshakeTimeoutMillis, record, secureContext, sweeper } = this.options
    const startedAt = this.now
    const attempt: Attempt = {
      id: `s${++this.nextId}`,
      address: `${tcp.remoteAddress}:${tcp.remotePort}`,
      startedAt,
      deadline: startedAt + handshakeTimeoutMillis,
      onDeadline: () => {
        const target = { matcher: authorize, address: attempt.address, timeoutMillis: handshakeTimeoutMillis }
        this.refuse(attempt, tooSlow(target))
        tcp.destroy()
      },
      reported: false
    }
    this.open++
    const unrecorded = record({
      _tag: "ConnectionAttempted",
      time: startedAt,
      ...this.common(attempt),
      expectedId: PeerMatcher.describe(authorize)
    })
    if (unrecorded !== undefined || this.closing) {
      this.refuse(attempt, unrecorded ?? handshakeCut(attempt.address))
      tcp.on("error", () => {})
      tcp.destroy()
      return
    }
    sweeper.add(attempt)
    const socket = acceptTls(tcp, {
      secureContext: secureContext(),
      onSecure: (socket) => {
        this.handshakes.delete(socket)
        attempt.deadline = Number.POSITIVE_INFINITY
        if (this.onSecure(attempt, socket)) toHttp(socket)
        else socket.destroy()
      },
      onFailure: (cause) => {
        this.refuse(attempt, this.handshakeError(attempt, cause))
        socket.destroy()
      }
    })
    this.handshakes.add(socket)
    socket.once("close", () => {
      this.handshakes.delete(socket)
      sweeper.remove(attempt)
    })
  }

  private handshakeError(attempt: Attempt, cause: Error | undefined): HandshakeError {
    if (cause === undefined) return handshakeCut(attempt.address)
    const { authorize: matcher, handshakeTimeoutMillis: timeoutMillis } = this.options
    return fromHandshake(cause, { matcher, address: attempt.address, timeoutMillis })
  }

  private common(attempt: Attempt) {
    return { side: "Server" as const, connectionId: attempt.id, address: attempt.address }
  }

  private refuse(attempt: Attempt, error: HandshakeError | AuditError): void {
    if (attempt.reported) return
    attempt.reported = true
    attempt.deadline = Number.POSITIVE_INFINITY
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
    if (this.open === 0) for (const onEmpty of this.whenEmpty.splice(0)) onEmpty()
  }

  /** Both verifiers, OpenSSL's and the gate; whether the connection passed them. */
  private onSecure(attempt: Attempt, socket: TLSSocket): boolean {
    const { authorize, context, graceMillis, maxAgeMillis, record, sweeper, verifier } = this.options
    socket.setNoDelay(true)
    const { bundles, svid } = context()
    const judged = judge(socket, {
      verifier,
      bundles,
      matcher: authorize,
      purpose: "ClientAuth",
      now: () => this.now,
      askOpenSsl
    })
    if (Either.isLeft(judged)) {
      this.refuse(attempt, judged.left)
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
      return false
    }
    attempt.reported = true
    // The age is jittered; the certificates' end is not, for it is the limit and not a habit.
    const life = {
      agesAt: now + maxAgeMillis * (1 - jitter * this.options.random()),
      expiresAt: Math.min(peer.notAfter, svid.notAfter),
      idleAt: now + this.options.idleMillis
    }
    const origin = { connectionId: attempt.id, address: attempt.address, peerId: peer.spiffeId, ownId: svid.spiffeId }
    const connection = new InboundConnection(socket, peer, origin, life, sweeper, graceMillis)
    this.connections.set(socket, connection)
    sweeper.add(connection)
    socket.once("close", () => {
      this.connections.delete(socket)
      sweeper.remove(connection)
      connection.lose()
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
    for (const socket of this.handshakes) socket.destroy()
    for (const connection of this.connections.values()) connection.retire("Shutdown")
    if (this.open === 0) onEmpty()
    else this.whenEmpty.push(onEmpty)
  }
}
