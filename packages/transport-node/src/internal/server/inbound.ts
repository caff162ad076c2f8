import type { IncomingMessage, Server } from "node:http"
import type { Socket } from "node:net"
import type { TLSSocket } from "node:tls"
import type { PeerMatcher } from "@agentweave/spiffe/PeerMatcher"
import type { Attempt } from "@agentweave/transport/Acceptor"
import type { GoneReason } from "@agentweave/transport/Wire"
import { TlsWire } from "../tls/tlsWire.js"
import { type AcceptPeer, acceptPeer, serverHandshake } from "./acceptPeer.js"
import type { ServerSpan } from "./answer.js"
import { answerForbidden } from "./forbidden.js"
import { InboundConnection } from "./inboundConnection.js"
import { InboundRequests } from "./inboundRequests.js"
import type { ServerContext } from "./serverContexts.js"

/** A client's connection that is used for HTTP. */
class InboundWire extends TlsWire {
  private idled = false

  constructor(socket: TLSSocket, authorize: PeerMatcher) {
    super(socket, serverHandshake(socket, authorize))
    if (socket.errored !== null) this.onError(socket.errored)
    // Node ends a connection so that has been idle since its last response.
    socket.on("timeout", () => {
      this.idled = true
    })
  }

  protected override get goneReason(): GoneReason {
    return this.idled ? "Idle" : super.goneReason
  }
}

/**
 * Carries out what the acceptor decides about the connections of one server. No HTTP parser sees a byte of a connection that
 * is not served; a request whose connection is not in `connections` belongs to none and is destroyed.
 */
export class Inbound {
  readonly connections = new Map<Socket, InboundConnection>()
  /** The spans of requests in flight, once an app is served that is traced. */
  spans: WeakMap<IncomingMessage, ServerSpan> | undefined = undefined
  private readonly options: AcceptPeer
  private readonly requests: InboundRequests

  constructor(options: AcceptPeer) {
    this.options = options
    this.requests = new InboundRequests(
      (socket) => this.of(socket),
      () => this.spans
    )
  }

  /**
   * Takes the server's TCP connections, and gives it those that are verified TLS connections instead: its own listeners
   * begin to parse HTTP.
   */
  attach(server: Server): void {
    const listeners = server.listeners("connection")
    server.removeAllListeners("connection")
    server.on("connection", (tcp: Socket) =>
      acceptPeer(tcp, this.options, (attempt, socket) =>
        this.onSecure(attempt, tcp, socket, (socket) => {
          for (const listener of listeners) listener.call(server, socket)
        })
      )
    )
    this.requests.attach(server)
    // `server.close()` calls it, and Node (20 to 26) takes a connection for idle whose last response is still being sent. The
    // acceptor ends the idle ones.
    server.closeIdleConnections = () => {}
  }

  private of(socket: Socket): InboundConnection | undefined {
    const connection = this.connections.get(socket)
    if (connection === undefined) socket.destroy()
    return connection
  }

  private onSecure(
    attempt: Attempt<ServerContext>,
    tcp: Socket,
    socket: TLSSocket,
    toHttp: (socket: TLSSocket) => void
  ): void {
    // Before the wire: what is in flight is told first that the connection is lost.
    const connection = new InboundConnection(tcp, socket)
    const verdict = attempt.secured(new InboundWire(socket, this.options.authorize), connection)
    if (verdict._tag === "Tell") {
      answerForbidden(socket)
      return
    }
    if (verdict._tag === "Close") {
      socket.destroy()
      return
    }
    connection.accepted = verdict.connection
    this.connections.set(socket, connection)
    socket.once("close", () => this.connections.delete(socket))
    toHttp(socket)
  }
}
