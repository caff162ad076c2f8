import type { TLSSocket } from "node:tls"
import type { StreamConnection } from "@agentweave/transport/Connector"
import type { TransportError } from "@agentweave/transport/TransportError"
import type { ByteStream, GoneReason, StreamWire } from "@agentweave/transport/Wire"
import { type Handshake, TlsWire } from "../tls/tlsWire.js"

type Done = (cause?: unknown) => void

/** Gives Node's socket to a library, which expects that it ends when its peer does, as Node's sockets do by default. */
export const handOver = (socket: TLSSocket): TLSSocket => {
  socket.allowHalfOpen = false
  if (socket.readableEnded) socket.end()
  return socket
}

/** Node's socket under a connection that is used as a stream; `undefined` where it is on no socket, as in a test. */
export const tlsSocketOf = ({ stream }: StreamConnection): TLSSocket | undefined =>
  stream instanceof TlsStreamWire ? handOver(stream.socket) : undefined

/** A TLS socket whose bytes are used as they are. Each side ends its own direction. */
export class TlsStreamWire extends TlsWire implements StreamWire, ByteStream {
  private endedHere = false

  constructor(socket: TLSSocket, handshake: Handshake) {
    super(socket, handshake)
    socket.allowHalfOpen = true
    if (socket.errored !== null) this.onError(socket.errored)
  }

  stream(): ByteStream {
    return this
  }

  read({ onData, onEnd }: Parameters<ByteStream["read"]>[0]): () => void {
    const { socket } = this
    socket.on("data", onData)
    socket.once("end", onEnd)
    if (socket.readableEnded) queueMicrotask(onEnd)
    else socket.resume()
    return () => {
      socket.off("data", onData)
      socket.off("end", onEnd)
      socket.pause()
    }
  }

  pause(): void {
    this.socket.pause()
  }

  resume(): void {
    this.socket.resume()
  }

  write(chunk: Uint8Array | string, done: Done): void {
    this.socket.write(chunk, (cause) => done(cause ?? undefined))
  }

  end(done: Done): void {
    if (!this.peerEnded) this.endedHere = true
    this.socket.end(() => done())
  }

  override destroy(cause?: TransportError): void {
    this.socket.destroy(cause)
  }

  protected override get goneReason(): GoneReason {
    return this.endedHere && !this.broken ? "Shutdown" : super.goneReason
  }
}
