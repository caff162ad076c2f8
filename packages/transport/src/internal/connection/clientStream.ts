import type { CloseReason } from "../../AuditEvent.js"
import type { AuditError } from "../../AuditLog.js"
import type { OpenedStream, StreamRequest } from "../../Connector.js"
import type { ConnectionError } from "../../TransportError.js"
import type { ByteStream, StreamWire } from "../../Wire.js"
import { type Moment, timePassed } from "./lifetime.js"
import { lossOf } from "./streamEnded.js"
import { RecordedRequest } from "./streamRequest.js"
import { type Established, type Owner, SupervisedConnection } from "./supervisedConnection.js"

/** How long, in milliseconds, what was written may take to be sent once the connection is to end. */
const flushMillis = 1_000

/**
 * A connection that we asked for, whose bytes are used as they are. Nothing in them says where a connection can end without a
 * loss, so it ends at once for every reason.
 */
export class ClientStream extends SupervisedConnection implements OpenedStream {
  readonly stream: ByteStream
  readonly protocol: string | undefined
  override takesRequests = false
  private readonly onClose: (reason: CloseReason) => void
  private closedBy: CloseReason = "Error"
  private isFinishing = false
  private cutAt = Number.POSITIVE_INFINITY
  private request: RecordedRequest | undefined = undefined

  constructor(
    owner: Owner,
    options: Established & { readonly wire: StreamWire; readonly onClose: (reason: CloseReason) => void }
  ) {
    super(owner, options)
    this.onClose = options.onClose
    this.protocol = options.wire.tls.protocol
    this.stream = options.wire.stream()
  }

  isUsable(): boolean {
    if (!this.isOpen || !this.wire.isOpen) return false
    if (this.admits) return true
    // A certificate on it has ended before the sleeper woke: the wall clock was set.
    this.move(timePassed)
    return false
  }

  unsafeAbort(): void {
    this.cut("Aborted")
  }

  onEnded(listener: (error: ConnectionError | undefined) => void): void {
    this.whenGone(() => listener(this.errorOf(this.closedBy)))
  }

  unsafeRequestStarted(request: StreamRequest): AuditError | undefined {
    const { deadlines, record } = this.owner
    const recorded = new RecordedRequest(this, request, deadlines.wall())
    const unrecorded = record(recorded.started())
    if (unrecorded !== undefined) return unrecorded
    this.request = recorded
    this.requests++
    return undefined
  }

  protected override onLost(): void {
    const { address, isFinishing, owner, request, state } = this
    if (request === undefined) return
    const reason = state.phase === "Closed" ? state.reason : "Error"
    // The request has happened: what cannot be recorded of its end is counted by the sink.
    owner.record(request.ended(owner.deadlines.wall(), lossOf(address, reason, isFinishing)?._tag))
  }

  /** Ends it when what was written is sent. `onGone` is called when it is off the wire and on record. */
  finish(onGone: () => void): void {
    this.whenGone(onGone)
    if (this.state.phase === "Closed") return
    this.isFinishing = true
    this.cutAt = this.owner.deadlines.now() + flushMillis
    this.reschedule()
    this.stream.end(() => this.cut("Shutdown"))
  }

  private errorOf(reason: CloseReason): ConnectionError | undefined {
    return lossOf(this.address, reason, this.isFinishing)
  }

  protected override reschedule(): void {
    super.reschedule()
    this.setNext(this.cutAt)
  }

  override onDeadline(at: Moment): void {
    if (at.mono >= this.cutAt) this.cut("Shutdown")
    super.onDeadline(at)
  }

  get canAnnounce(): boolean {
    return false
  }

  protected announce(): void {}

  protected close(): void {
    this.wire.destroy(this.state.phase === "Closed" ? this.errorOf(this.state.reason) : undefined)
  }

  protected onClosed(reason: CloseReason): void {
    this.closedBy = reason
    this.onClose(reason)
  }
}
