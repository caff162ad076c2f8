import type { TLSSocket } from "node:tls"
import type { GoneReason, TlsDetails, TlsRefusal, Wire } from "@agentweave/transport/Wire"
import { codeOf } from "../errors.js"
import { isAskedForCertificate, linkedChain, type Presented, wholeChain } from "./peerChain.js"

/** Facts of a handshake that the socket's owner knows and Node's socket does not say alike on both sides. */
export interface Handshake {
  /** Why OpenSSL refuses the peer's chain, where it does. */
  readonly refusal: () => TlsRefusal | undefined
  readonly certificateRequested: () => boolean
}

/** The facts of a client's handshake, in which Node itself has asked OpenSSL. */
export const clientHandshake = (
  socket: TLSSocket,
  /** A server is accepted that does not ask for our certificate. */
  oneSided = false
): Handshake => ({
  refusal: () =>
    socket.authorized
      ? undefined
      : {
          reason: "UntrustedChain",
          description: `expected a chain that TLS accepts: ${socket.authorizationError}`
        },
  certificateRequested: () => oneSided || isAskedForCertificate(socket)
})

/**
 * A TLS socket whose handshake has ended, as a wire. A subclass looks at `socket.errored` when it is made: an error may have
 * come before. Its methods may throw: the gate takes a throw for a refusal.
 */
export abstract class TlsWire implements Wire {
  readonly socket: TLSSocket
  /** The peer ended the connection, in order. */
  peerEnded = false
  /** It ended otherwise. */
  broken = false
  private readonly handshake: Handshake
  private details: TlsDetails | undefined = undefined
  private listener: ((reason: GoneReason) => void) | undefined = undefined

  constructor(socket: TLSSocket, handshake: Handshake) {
    this.socket = socket
    this.handshake = handshake
    socket.on("error", (cause) => this.onError(cause))
    socket.once("end", () => {
      this.peerEnded = true
    })
    socket.once("close", () => this.gone())
  }

  get tls(): TlsDetails {
    this.details ??= this.describe()
    return this.details
  }

  private describe(): TlsDetails {
    const { handshake, socket } = this
    const { name, standardName } = socket.getCipher()
    return {
      version: socket.getProtocol() ?? "unknown",
      cipher: name,
      cipherSuite: standardName,
      resumed: socket.isSessionReused(),
      refusal: handshake.refusal(),
      certificateRequested: handshake.certificateRequested(),
      protocol: socket.alpnProtocol || undefined
    }
  }

  leaf(): Uint8Array | undefined {
    return (this.socket.getPeerCertificate() as Presented).raw
  }

  chain(): ReadonlyArray<Uint8Array> {
    return linkedChain(this.socket)
  }

  wholeChain(): ReadonlyArray<Uint8Array> {
    return wholeChain(this.socket)
  }

  get isOpen(): boolean {
    return !this.socket.destroyed
  }

  get bytesRead(): number {
    return this.socket.bytesRead
  }

  get bytesWritten(): number {
    return this.socket.bytesWritten
  }

  destroy(): void {
    this.socket.destroy()
  }

  onGone(listener: (reason: GoneReason) => void): void {
    this.listener = listener
    if (this.socket.closed) queueMicrotask(() => this.gone())
  }

  /** undici too reports errors here: of a peer that ended the connection, and (`UND_ERR_INFO`) of an end as agreed. */
  protected onError(cause: unknown): void {
    if (!this.peerEnded && codeOf(cause) !== "UND_ERR_INFO") this.broken = true
  }

  protected gone(): void {
    const { listener } = this
    this.listener = undefined
    listener?.(this.goneReason)
  }

  protected get goneReason(): GoneReason {
    return this.broken ? "Error" : "PeerClosed"
  }
}
