import type { AuditEvent, CloseReason } from "../../AuditEvent.js"
import type { RequestEnd, RequestLine, Shell } from "../../Wire.js"
import { pathOf } from "../tracing.js"
import { requestEnded, requestStarted } from "./lifetime.js"
import { type Established, type Owner, Supervised } from "./supervised.js"

let nextRequest = 0

/** A request that is being served. */
export class ServedRequest {
  private readonly connection: ServedConnection
  private readonly startedAt: number
  private readonly common: Omit<Extract<AuditEvent, { _tag: "RequestStarted" }>, "_tag" | "time">
  private readonly status: RequestLine["status"]
  private isOver = false

  constructor(connection: ServedConnection, { method, status, target, traceId }: RequestLine, startedAt: number) {
    this.connection = connection
    this.startedAt = startedAt
    this.status = status
    this.common = {
      side: "Server",
      connectionId: connection.id,
      address: connection.address,
      requestId: `q${++nextRequest}`,
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
    this.connection.requestEnded(this, (now) => ({
      _tag: "RequestEnded",
      time: now,
      ...this.common,
      // A trace that began here was not known yet when the request came.
      ...(traceId === undefined || this.common.traceId !== undefined ? undefined : { traceId }),
      ...(status === undefined ? undefined : { status }),
      ...(error === undefined ? undefined : { error }),
      durationMillis: now - this.startedAt
    }))
  }

  /** The connection is lost. */
  lost(): void {
    this.ended({ status: this.status?.(), error: "Interrupted" })
  }
}

/** A connection that a peer made to us, and the requests on it. */
export class ServedConnection extends Supervised {
  private readonly shell: Shell
  private readonly onEnded: () => void
  private readonly open = new Set<ServedRequest>()

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

  /** @internal */
  requestEnded(request: ServedRequest, event: (now: number) => AuditEvent): void {
    this.inFlight--
    this.open.delete(request)
    // The request has happened: what cannot be recorded of its end is counted by the sink.
    this.owner.record(event(this.owner.deadlines.wall()))
    if (!this.isOpen) this.move(requestEnded)
  }

  get canAnnounce(): boolean {
    return this.inFlight > 0 && this.shell.canAnnounce()
  }

  protected announce(): void {
    this.shell.announce()
  }

  protected close(inOrder: boolean): void {
    this.shell.close(inOrder)
  }

  protected override onLost(): void {
    for (const request of Array.from(this.open)) request.lost()
  }

  protected onClosed(_reason: CloseReason): void {
    this.onEnded()
  }
}
