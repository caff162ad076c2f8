import type { Socket as NetSocket } from "node:net"
import type { TLSSocket } from "node:tls"
import type { AcceptedStream, Attempt } from "@agentweave/transport/Acceptor"
import { type AcceptPeer, acceptPeer, serverHandshake } from "../server/acceptPeer.js"
import type { ServerContext } from "../server/serverContexts.js"
import { TlsStreamWire } from "./streamWire.js"

/** A client's connection that was accepted, and the socket it is on. */
export interface InboundStream {
  readonly connection: AcceptedStream
  readonly socket: TLSSocket
}

/**
 * The connections of a server whose bytes are used as they are. Each is given to the handler there is; those that are
 * accepted while there is none wait for one, as long as they last.
 */
export class InboundStreams {
  private readonly options: AcceptPeer
  private readonly waiting = new Set<InboundStream>()
  private handler: ((stream: InboundStream) => void) | undefined = undefined

  constructor(options: AcceptPeer) {
    this.options = options
  }

  /** A TCP connection has come in. */
  readonly onTcp = (tcp: NetSocket): void =>
    acceptPeer(tcp, this.options, (attempt, socket) => this.onSecure(attempt, socket))

  /** Gives all connections to a handler from now on. Returns what ends that. */
  handle(handler: (stream: InboundStream) => void): () => void {
    const before = this.handler
    this.handler = handler
    for (const stream of Array.from(this.waiting)) handler(stream)
    this.waiting.clear()
    return () => {
      this.handler = before
    }
  }

  private onSecure(attempt: Attempt<ServerContext>, socket: TLSSocket): void {
    const wire = new TlsStreamWire(socket, serverHandshake(socket, this.options.authorize))
    const verdict = attempt.secured(wire, {
      canAnnounce: () => false,
      announce: () => {},
      close: (_inOrder, cause) => wire.destroy(cause)
    })
    // Without a protocol that is known here a peer cannot be told that it is not authorised.
    if (verdict._tag !== "Serve") {
      socket.destroy()
      return
    }
    const stream = { connection: verdict.connection.asStream(wire), socket }
    if (this.handler !== undefined) {
      this.handler(stream)
      return
    }
    this.waiting.add(stream)
    socket.once("close", () => this.waiting.delete(stream))
  }
}
