import type { Wire } from "@agentweave/transport"

/** The TLS of a connection without a socket. */
export interface MemoryTls {
  /** The certificates the peer presents, the leaf first. */
  readonly certificates: ReadonlyArray<Uint8Array>
  readonly tlsVersion: string
  readonly certificateRequested: boolean
  /** The application protocol that both sides agree on. */
  readonly protocol?: string | undefined
}

type Reason = Extract<Wire.GoneReason, "PeerClosed" | "Error" | "Shutdown">

/** Two ends in one process, whatever the connection is used for. */
export abstract class MemoryConnection implements Wire.Wire {
  readonly tls: Wire.TlsDetails
  bytesRead = 0
  bytesWritten = 0
  isOpen = true
  private readonly certificates: ReadonlyArray<Uint8Array>
  private isGone = false
  private listener: ((reason: Reason) => void) | undefined = undefined

  constructor({ certificateRequested, certificates, protocol, tlsVersion }: MemoryTls) {
    this.certificates = certificates
    this.tls = {
      version: tlsVersion,
      cipher: "in memory",
      cipherSuite: "in memory",
      resumed: false,
      certificateRequested,
      protocol
    }
  }

  readonly leaf = () => this.certificates[0]
  readonly chain = () => this.certificates

  readonly destroy = (): void => this.end("Error")

  readonly onGone = (listener: (reason: Reason) => void): void => {
    this.listener = listener
  }

  /** The peer closes it. */
  readonly leave = (): void => this.end("PeerClosed")

  /** It ends now; what is in flight fails first. */
  protected end(reason: Reason): void {
    if (this.isGone) return
    this.isGone = true
    this.isOpen = false
    this.breakOff(reason)
    const { listener } = this
    this.listener = undefined
    listener?.(reason)
  }

  /** Fails what is in flight. */
  protected abstract breakOff(reason: Reason): void
}
