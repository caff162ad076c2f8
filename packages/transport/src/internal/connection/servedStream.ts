import type { VerifiedPeer } from "@agentweave/spiffe/PeerVerifier"
import type { SpiffeId } from "@agentweave/spiffe/SpiffeId"
import type { CloseReason } from "../../AuditEvent.js"
import type { StreamConnection } from "../../Connector.js"
import type { ConnectionError } from "../../TransportError.js"
import type { ByteStream } from "../../Wire.js"
import { lossOf } from "./streamEnded.js"

/** The connection that carries the bytes. */
interface Carrying extends Pick<StreamConnection, "id" | "peer" | "ownId" | "address"> {
  readonly closedBy: CloseReason
  readonly isFinishing: boolean
  readonly isOpen: boolean
  cut(reason: CloseReason): void
  whenGone(listener: () => void): void
  finish(stream: ByteStream): void
}

/** A connection that a peer made to us, whose bytes are used as they are. */
export class ServedStream implements StreamConnection {
  readonly id: string
  readonly peer: VerifiedPeer
  readonly ownId: SpiffeId
  readonly address: string
  readonly protocol: string | undefined
  readonly stream: ByteStream
  private readonly connection: Carrying

  constructor(connection: Carrying, stream: ByteStream, protocol: string | undefined) {
    this.connection = connection
    this.id = connection.id
    this.peer = connection.peer
    this.ownId = connection.ownId
    this.address = connection.address
    this.stream = stream
    this.protocol = protocol
  }

  isUsable(): boolean {
    return this.connection.isOpen
  }

  unsafeAbort(): void {
    this.connection.cut("Aborted")
  }

  onEnded(listener: (error: ConnectionError | undefined) => void): void {
    const { connection } = this
    connection.whenGone(() => listener(lossOf(this.address, connection.closedBy, connection.isFinishing)))
  }

  unsafeFinish(): void {
    this.connection.finish(this.stream)
  }
}
