/**
 * A connection without a wire whose bytes are used as they are: a handler of the test is at its other end.
 */
import type { PeerVerifier } from "@agentweave/spiffe"
import type { RunFork } from "@agentweave/spiffe/Background"
import { type Connector, SecureSocket, TransportError, type Wire } from "@agentweave/transport"
import * as Effect from "effect/Effect"
import type { StreamHandler } from "../../TestMessage.js"
import { MemoryConnection, type MemoryTls } from "./memoryTls.js"
import { Pipe } from "./pipe.js"

export interface Options extends MemoryTls {
  readonly isAuthorized: boolean
  readonly caller: PeerVerifier.VerifiedPeer
  readonly handler: () => StreamHandler
  readonly run: RunFork
}

type Done = (cause?: unknown) => void

/** One end of a connection. */
class End implements Wire.ByteStream {
  protected readonly incoming: Pipe
  protected readonly outgoing: Pipe
  constructor(incoming: Pipe, outgoing: Pipe) {
    this.incoming = incoming
    this.outgoing = outgoing
  }
  read(reader: Parameters<Wire.ByteStream["read"]>[0]): () => void {
    return this.incoming.read(reader)
  }
  pause(): void {
    this.incoming.pause()
  }
  resume(): void {
    this.incoming.resume()
  }
  write(chunk: Uint8Array | string, done: Done): void {
    this.outgoing.write(chunk, done)
  }
  end(done: Done): void {
    this.outgoing.end(done)
  }
}

/** The end of the client. */
export class ClientEnd extends End {
  /** Ended by the client, before the peer ended its own direction. */
  endedFirst = false
  readonly wire: MemoryStream
  constructor(wire: MemoryStream, incoming: Pipe, outgoing: Pipe) {
    super(incoming, outgoing)
    this.wire = wire
  }
  override end(done: Done): void {
    if (!this.incoming.isRead) this.endedFirst = true
    super.end(done)
  }
}

const lost = (address: string): TransportError.ConnectionError =>
  new TransportError.ConnectionError({
    reason: "Lost",
    outcome: "Unknown",
    address,
    description: "expected the stream to end in order, the connection was lost"
  })

/** Two ends in one process, which bytes go between. */
export class MemoryStream extends MemoryConnection implements Wire.StreamWire {
  private readonly options: Options
  private readonly toPeer: Pipe
  private readonly toClient: Pipe
  private readonly client: ClientEnd
  private readonly whenGone: Array<() => void> = []

  constructor(options: Options) {
    super(options)
    this.options = options
    const onRead = () => {
      if (this.toPeer.isRead && this.toClient.isRead) this.end(this.client.endedFirst ? "Shutdown" : "PeerClosed")
    }
    this.toPeer = new Pipe((count) => {
      this.bytesWritten += count
    }, onRead)
    this.toClient = new Pipe((count) => {
      this.bytesRead += count
    }, onRead)
    this.client = new ClientEnd(this, this.toClient, this.toPeer)
  }

  readonly stream = (): Wire.ByteStream => this.client

  /** The peer begins to answer. */
  serve(connection: Connector.StreamConnection): void {
    const { handler, isAuthorized, run } = this.options
    if (!isAuthorized) {
      // As a server does that speaks no protocol in which it could say why.
      this.leave()
      return
    }
    const served = Effect.flatMap(SecureSocket.fromConnection(this.peersEnd(connection)), (socket) => handler()(socket))
    run(
      Effect.matchCause(served, {
        onFailure: () => this.destroy(),
        onSuccess: () => this.toClient.end(() => {})
      })
    )
  }

  /** The connection as the peer has it. */
  private peersEnd({ id, ownId, peer, protocol }: Connector.StreamConnection): Connector.StreamConnection {
    return {
      id,
      peer: this.options.caller,
      ownId: peer.spiffeId,
      address: ownId,
      protocol,
      stream: new End(this.toPeer, this.toClient),
      isUsable: () => this.isOpen,
      unsafeAbort: () => this.destroy(),
      onEnded: (listener) => {
        const publish = () => listener(this.toPeer.isEnded ? undefined : lost(ownId))
        if (this.isOpen) this.whenGone.push(publish)
        else publish()
      }
    }
  }

  protected breakOff(reason: Wire.GoneReason): void {
    if (reason === "PeerClosed") this.toClient.end(() => {})
    this.toClient.breakOff()
    this.toPeer.breakOff()
    for (const publish of this.whenGone) publish()
  }
}
