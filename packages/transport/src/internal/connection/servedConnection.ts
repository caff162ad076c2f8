import type { AuditEvent, CloseReason } from "../../AuditEvent.js"
import type { ByteStream, RequestEnd, RequestLine, Shell } from "../../Wire.js"
import { pathOf } from "../requestTelemetry.js"
import { newRequestId } from "./ids.js"
import { type Moment, requestEnded, requestStarted } from "./lifetime.js"
import { type Sending, SendProgress } from "./sendTimeout.js"
import { ServedStream } from "./servedStream.js"
import { lossOf } from "./streamEnded.js"
import { type Established, type Owner, SupervisedConnection } from "./supervisedConnection.js"

/** How long, in milliseconds, what was written may take to be sent, and the peer to end its own direction. */
const lingerMillis = 2_000

/** A request that is being served. */
export class ServedRequest {
  private readonly connection: ServedConnection
  private readonly startedAt: number
  private readonly common: Omit<Extract<AuditEvent, { _tag: "RequestStarted" }>, "_tag" | "time">
  private readonly status: RequestLine["status"]
  private isOver = false
  private isUpgraded = false

  constructor(connection: ServedConnection, { method, status, target, traceId }: RequestLine, startedAt: number) {
    this.connection = connection
    this.startedAt = startedAt
    this.status = status
    this.common = {
      side: "Server",
      connectionId: connection.id,
      address: connection.address,
      requestId: newRequestId("Server"),
      ...(traceId === undefined ? undefined : { traceId }),
      peerId: connection.peer.spiffeId,
      method,
      path: pathOf(target),
      attempt: 1
    }
  }

  started(): AuditEvent {
    return { _tag: "RequestStarted", time: this.startedAt, ...this.common }
  }

  /** The response is out, or will never be. Called once; more often is nothing. */
  ended({ error, status, traceId }: RequestEnd): void {
    if (this.isOver) return
    this.isOver = true
    this.connection.requestEnded(this, !this.isUpgraded, (now) => ({
      _tag: "RequestEnded",
      time: now,
      ...this.common,
      // A trace that began here was not known yet when the request came.
      ...(traceId === undefined || this.common.traceId !== undefined ? undefined : { traceId }),
      ...(status === undefined ? undefined : { status }),
      ...(error === undefined ? undefined : { error: this.connection.isStalled ? "SendTimeout" : error }),
      durationMillis: now - this.startedAt
    }))
  }

  /** The connection has become something else than HTTP, and is not kept open for this request any more. */
  upgraded(): void {
    if (this.isOver || this.isUpgraded) return
    this.isUpgraded = true
    this.connection.requestUpgraded()
  }

  /** The connection is lost. */
  lost(): void {
    this.ended({ status: this.status?.(), error: "Interrupted" })
  }
}

/** A connection that a peer made to us, and the requests on it. */
export class ServedConnection extends SupervisedConnection implements Sending {
  private readonly shell: Shell
  private readonly sending = new SendProgress()
  private readonly onEnded: () => void
  private readonly open = new Set<ServedRequest>()
  /** When an end that its transport has begun must be over, in monotonic milliseconds. */
  private cutAt = Number.POSITIVE_INFINITY
  /** Why it ended, once it has. */
  closedBy: CloseReason = "Error"
  /** How far it is, as a stream, with sending the rest before it ends; `Last`: nothing else keeps it. */
  private finishing: "No" | "Flushing" | "Flushed" | "Last" = "No"

  constructor(owner: Owner, options: Established & { readonly shell: Shell; readonly onEnded: () => void }) {
    super(owner, options)
    this.shell = options.shell
    this.onEnded = options.onEnded
  }

  /**
   * A request has arrived, and is on record; `undefined` where it may not be served: then it gets no answer, and the
   * connection ends once what is in flight has. The response must be known to the shell already.
   */
  requestStarted(line: RequestLine): ServedRequest | undefined {
    if (!this.admits) {
      // Its certificates may have ended before a sleeper woke.
      this.end("Expiry")
      return undefined
    }
    const { deadlines, record } = this.owner
    const request = new ServedRequest(this, line, deadlines.wall())
    if (record(request.started()) !== undefined) {
      this.cut("Error")
      return undefined
    }
    this.requests++
    this.inFlight++
    this.open.add(request)
    this.idleAt = Number.POSITIVE_INFINITY
    if (!this.isOpen) this.move(requestStarted)
    return request
  }

  /** The peer takes none of the bytes that are sent to it: nothing is left to wait for. */
  lookAtSending(): void {
    if (this.sending.isStalled(this.shell.sent?.())) this.cut("SendTimeout")
  }

  /** @internal Whether it has ended for that. */
  get isStalled(): boolean {
    return this.state.phase === "Closed" && this.state.reason === "SendTimeout"
  }

  /** Its transport has begun to end it in order. */
  closeWithin(millis: number): void {
    this.cutAt = Math.min(this.cutAt, this.owner.deadlines.now() + millis)
    this.reschedule()
  }

  protected override reschedule(): void {
    super.reschedule()
    this.setNext(this.cutAt)
  }

  override onDeadline(at: Moment): void {
    if (at.mono >= this.cutAt) this.cut(this.takesRequests ? "PeerClosed" : "Shutdown")
    super.onDeadline(at)
  }

  /** Its bytes are used as they are, by another protocol than HTTP: it waits for no request, and ends at once. */
  asStream(stream: ByteStream): ServedStream {
    this.takesRequests = false
    this.idleAt = Number.POSITIVE_INFINITY
    this.reschedule()
    return new ServedStream(this, stream, this.wire.tls.protocol)
  }

  get isFinishing(): boolean {
    return this.finishing !== "No"
  }

  /** @internal Ends it as a stream, in order: what was written is sent, and what still comes is waited for a while. */
  finish(stream: ByteStream): void {
    if (this.finishing !== "No" || this.state.phase === "Closed") return
    this.finishing = "Flushing"
    this.closeWithin(lingerMillis)
    stream.end(() => {
      const isLast = this.finishing === "Last"
      this.finishing = "Flushed"
      if (isLast) this.cut("Shutdown")
    })
  }

  override end(reason: CloseReason): void {
    if (reason === "Shutdown" && this.finishing === "Flushing") this.finishing = "Last"
    else if (this.finishing !== "Last") super.end(reason)
  }

  /** @internal */
  requestEnded(request: ServedRequest, isInFlight: boolean, event: (now: number) => AuditEvent): void {
    if (isInFlight) this.inFlight--
    this.open.delete(request)
    // The request has happened: what cannot be recorded of its end is counted by the sink.
    this.owner.record(event(this.owner.deadlines.wall()))
    if (!this.isOpen) this.move(requestEnded)
  }

  /** @internal */
  requestUpgraded(): void {
    this.inFlight--
    this.takesRequests = false
    if (!this.isOpen) this.move(requestEnded)
  }

  get canAnnounce(): boolean {
    return this.inFlight > 0 && this.shell.canAnnounce()
  }

  protected announce(): void {
    this.shell.announce()
  }

  protected close(inOrder: boolean): void {
    const { address, isFinishing, state, takesRequests } = this
    const isStreamsEnd = !takesRequests && state.phase === "Closed"
    this.shell.close(inOrder, isStreamsEnd ? lossOf(address, state.reason, isFinishing) : undefined)
  }

  protected override onLost(): void {
    for (const request of Array.from(this.open)) request.lost()
  }

  protected onClosed(reason: CloseReason): void {
    this.closedBy = reason
    this.onEnded()
  }
}
