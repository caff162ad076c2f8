/**
 * A connection without a wire: exchanges run a handler, and everything a socket could do to them can be done.
 */
import type { PeerVerifier } from "@agentweave/spiffe"
import type { RunFork } from "@agentweave/spiffe/Background"
import type { AuditEvent, Wire } from "@agentweave/transport"
import type { Handler } from "../../TestMessage.js"
import { MemoryExchange } from "./memoryExchange.js"
import { MemoryConnection, type MemoryTls } from "./memoryTls.js"

export interface Options extends MemoryTls {
  /** Whether the peer serves us; otherwise it says that it does not. */
  readonly isAuthorized: boolean
  readonly caller: PeerVerifier.VerifiedPeer
  readonly handler: () => Handler
  /** Runs an effect now, on the test's clock. */
  readonly run: RunFork
  /** The connection is established. The answer is called with why it ended, once it has. */
  readonly onEstablished: (wire: MemoryWire, connection: Wire.Supervision) => (reason: AuditEvent.CloseReason) => void
}

/** Two ends in one process, which exchanges go between. */
export class MemoryWire extends MemoryConnection implements Wire.HttpWire {
  readonly options: Options
  private current: MemoryExchange | undefined = undefined

  constructor(options: Options) {
    super(options)
    this.options = options
  }

  protected breakOff(): void {
    this.current?.breakOff()
  }

  readonly carry = (connection: Wire.Supervision): Wire.HttpCarrier => ({
    start: (exchange, resume) => {
      const started = new MemoryExchange(this, connection, exchange, resume)
      this.current = started
      if (this.isOpen) started.start()
      else started.breakOff()
      return () => started.abort()
    },
    // Its exchanges wait on the test's clock by themselves.
    onTimeout: () => {},
    onClosed: this.options.onEstablished(this, connection)
  })

  /** The exchange on it is over; the wire may be of no more use. */
  settled(isReusable: boolean): void {
    this.current = undefined
    if (!isReusable) this.isOpen = false
  }
}
