import type { IncomingMessage, Server, ServerResponse } from "node:http"
import type { Socket } from "node:net"
import type { TLSSocket } from "node:tls"
import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import type { PeerVerificationError } from "@agentweave/spiffe/PeerVerificationError"
import type { PeerVerifier, VerifiedPeer } from "@agentweave/spiffe/PeerVerifier"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import type { AuditEvent, CloseReason } from "@agentweave/transport/AuditEvent"
import type { AuditError } from "@agentweave/transport/AuditLog"
import type { ConnectionError } from "@agentweave/transport/TransportError"
import * as Either from "effect/Either"
import { fromHandshake } from "./errors.js"
import { judge } from "./handshake.js"
import type { Sweeper, Timed } from "./sweeper.js"

export interface InboundOptions {
  readonly authorize: PeerMatcher.PeerMatcher
  readonly verifier: PeerVerifier
  readonly sweeper: Sweeper
  readonly record: (event: AuditEvent) => AuditError | undefined
  /** The identity in use at this moment. */
  readonly context: () => X509Context
  /** Longest life of a connection in milliseconds; `Infinity` for none. */
  readonly maxAgeMillis: number
  /** A number in `[0, 1)` for the jitter of a connection's life. */
  readonly random: () => number
}

interface Attempt {
  readonly id: string
  readonly address: string
  readonly startedAt: number
  reported: boolean
}

const jitter = 0.05

/** One accepted connection: its verified peer, the response in flight, and its end. */
export class InboundConnection implements Timed {
  requests = 0
  private response: ServerResponse | undefined = undefined
  private retired: CloseReason | undefined = undefined
  private broken = false
  readonly socket: TLSSocket
  readonly peer: VerifiedPeer
  deadline: number
  private readonly expiryReason: CloseReason

  constructor(socket: TLSSocket, peer: VerifiedPeer, expiresAt: number, expiryReason: CloseReason) {
    this.socket = socket
    this.peer = peer
    this.deadline = expiresAt
    this.expiryReason = expiryReason
    socket.on("error", () => {
      this.broken = true
    })
  }

  get closeReason(): CloseReason {
    return this.retired ?? (this.broken ? "Error" : "PeerClosed")
  }

  /** Whether a request that has just arrived may be served. */
  admit(response: ServerResponse): boolean {
    if (this.retired !== undefined) return false
    this.requests++
    this.response = response
    return true
  }

  onDeadline(): void {
    this.deadline = Number.POSITIVE_INFINITY
    this.retire(this.expiryReason)
  }

  /** Serves no further request; ends once the response in flight is out, at once when there is none. */
  retire(reason: CloseReason): void {
    if (this.retired !== undefined) return
    this.retired = reason
    const { response, socket } = this
    if (response === undefined || response.writableFinished || response.destroyed) {
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
  private readonly attempts = new WeakMap<Socket, Attempt>()
  private readonly options: InboundOptions
  private nextId = 0

  constructor(options: InboundOptions) {
    this.options = options
  }

  attach(server: Server): void {
    server.prependListener("connection", (socket: Socket) => this.onTcp(socket))
    server.prependListener("secureConnection", (socket: TLSSocket) => this.onSecure(socket))
    server.on("tlsClientError", (cause: Error, socket: TLSSocket) => this.onHandshakeError(cause, socket))
    server.prependListener("request", (request: IncomingMessage, response: ServerResponse) => {
      if (this.connections.get(request.socket)?.admit(response) !== true) request.socket.destroy()
    })
    server.prependListener("upgrade", (request: IncomingMessage) => {
      if (!this.connections.has(request.socket)) request.socket.destroy()
    })
    server.prependListener("connect", (request: IncomingMessage) => request.socket.destroy())
  }

  private get now(): number {
    return this.options.sweeper.now()
  }

  private onTcp(socket: Socket): void {
    const attempt: Attempt = {
      id: `s${++this.nextId}`,
      address: `${socket.remoteAddress}:${socket.remotePort}`,
      startedAt: this.now,
      reported: false
    }
    this.attempts.set(socket, attempt)
    const unrecorded = this.options.record({
      _tag: "ConnectionAttempted",
      time: attempt.startedAt,
      ...this.common(attempt),
      expectedId: PeerMatcher.describe(this.options.authorize)
    })
    if (unrecorded !== undefined) {
      socket.destroy()
      return
    }
  }

  /** The TCP connection's attempt; `_parent` is where Node keeps it (node:tls, 20 and 22). */
  private attemptOf(socket: TLSSocket): Attempt {
    const parent = (socket as { readonly _parent?: Socket })._parent
    return (
      (parent && this.attempts.get(parent)) ?? {
        id: `s${++this.nextId}`,
        address: `${socket.remoteAddress}:${socket.remotePort}`,
        startedAt: this.now,
        reported: false
      }
    )
  }

  private common(attempt: Attempt) {
    return { side: "Server" as const, connectionId: attempt.id, address: attempt.address }
  }

  private refuse(attempt: Attempt, error: PeerVerificationError | IdentityError | ConnectionError): void {
    if (attempt.reported) return
    attempt.reported = true
    this.options.record({
      _tag: "ConnectionRefused",
      time: this.now,
      ...this.common(attempt),
      expectedId: PeerMatcher.describe(this.options.authorize),
      actualId: error._tag === "PeerVerificationError" ? error.actualId : null,
      error: error._tag,
      reason: error.reason,
      description: error.message,
      durationMillis: this.now - attempt.startedAt
    })
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
    this.refuse(attempt, fromHandshake(raw, this.options.authorize, attempt.address))
    socket.destroy()
  }

  private onSecure(socket: TLSSocket): void {
    const { authorize, context, record, sweeper, verifier } = this.options
    const attempt = this.attemptOf(socket)
    socket.setNoDelay(true)
    const { bundles, svid } = context()
    const judged = judge(socket, { verifier, bundles, matcher: authorize, purpose: "ClientAuth", now: () => this.now })
    if (Either.isLeft(judged)) {
      this.refuse(attempt, judged.left)
      socket.on("error", () => {})
      socket.destroy()
      return
    }
    const peer = judged.right
    const now = this.now
    attempt.reported = true
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
      socket.on("error", () => {})
      socket.destroy()
      return
    }
    const remaining = Math.min(peer.notAfter, svid.notAfter) - now
    const { maxAgeMillis } = this.options
    const aged = maxAgeMillis < remaining
    // The age is jittered; the certificates' end is not, for it is the limit and not a habit.
    const life = aged ? maxAgeMillis * (1 - jitter * this.options.random()) : remaining
    const connection = new InboundConnection(socket, peer, now + life, aged ? "Age" : "Expiry")
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
    })
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
      if (Either.isLeft(judged)) connection.retire("Distrust")
    }
  }

  retireAll(reason: CloseReason): void {
    for (const connection of this.connections.values()) connection.retire(reason)
  }
}
