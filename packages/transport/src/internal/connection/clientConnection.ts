import { IdentityError } from "@agentweave/spiffe/IdentityError"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import * as Effect from "effect/Effect"
import type { RuntimeFiber } from "effect/Fiber"
import * as Tracer from "effect/Tracer"
import type { Mutable } from "effect/Types"
import type { AuditEvent, CloseReason } from "../../AuditEvent.js"
import type { Connection, Exchange, RequestFailure } from "../../Connector.js"
import { CurrentAttempt } from "../../CurrentAttempt.js"
import type { TransportConfig } from "../../TransportConfig.js"
import { type HttpCarrier, type HttpWire, refusalHeader, type Supervision } from "../../Wire.js"
import { pathOf } from "../tracing.js"
import { requestEnded, timePassed } from "./lifetime.js"
import { type Established, type Owner, Supervised } from "./supervised.js"

type Resume = (result: Effect.Effect<HttpClientResponse, RequestFailure>) => void

let nextRequest = 0

type RequestStarted = Extract<AuditEvent, { _tag: "RequestStarted" }>
type RequestEnded = Extract<AuditEvent, { _tag: "RequestEnded" }>

const attemptOf = (fiber: RuntimeFiber<unknown, unknown>): number =>
  (fiber.currentContext.unsafeMap.get(CurrentAttempt.key) as number | undefined) ?? 1

const traceOf = (fiber: RuntimeFiber<unknown, unknown>): string | undefined =>
  (fiber.currentContext.unsafeMap.get(Tracer.ParentSpan.key) as Tracer.AnySpan | undefined)?.traceId

/** One exchange on its connection: it leaves its two events, and frees the connection when it settles. */
class SupervisedExchange implements Exchange {
  readonly request: HttpClientRequest
  readonly path: string
  readonly fiber: RuntimeFiber<unknown, unknown>
  private readonly inner: Exchange
  private readonly connection: ClientConnection
  private readonly startedAt: number
  private readonly id: string
  private readonly trace: string | undefined
  private readonly recordedPath: string
  private readonly attempt: number
  private status: number | undefined = undefined
  /** When it began, as the connection's owner counts. */
  readonly since: number

  constructor(inner: Exchange, connection: ClientConnection, startedAt: number) {
    this.request = inner.request
    this.path = inner.path
    this.fiber = inner.fiber
    this.inner = inner
    this.connection = connection
    this.startedAt = startedAt
    this.since = connection.tick()
    this.trace = inner.traceId ?? traceOf(inner.fiber)
    this.id = `r${++nextRequest}`
    this.recordedPath = pathOf(inner.path)
    this.attempt = attemptOf(inner.fiber)
  }

  get isAnswered(): boolean {
    return this.status !== undefined
  }

  // Both events are written out field by field: to spread what they have in common costs as much as to record them.
  started(): AuditEvent {
    const { attempt, connection, id, recordedPath, request, startedAt, trace } = this
    const event: Mutable<RequestStarted> = {
      _tag: "RequestStarted",
      time: startedAt,
      side: "Client",
      connectionId: connection.id,
      address: connection.address,
      requestId: id,
      peerId: connection.peer.spiffeId,
      method: request.method,
      path: recordedPath,
      attempt
    }
    if (trace !== undefined) event.traceId = trace
    return event
  }

  ended(now: number, error: string | undefined): AuditEvent {
    const { attempt, connection, id, recordedPath, request, startedAt, status, trace } = this
    const event: Mutable<RequestEnded> = {
      _tag: "RequestEnded",
      time: now,
      side: "Client",
      connectionId: connection.id,
      address: connection.address,
      requestId: id,
      peerId: connection.peer.spiffeId,
      method: request.method,
      path: recordedPath,
      attempt,
      durationMillis: now - startedAt
    }
    if (trace !== undefined) event.traceId = trace
    if (status !== undefined) event.status = status
    if (error !== undefined) event.error = error
    return event
  }

  onStatus(status: number): void {
    this.status = status
    this.inner.onStatus?.(status)
  }

  onSettled(error?: string): void {
    this.connection.settled(this, error)
    this.inner.onSettled(error)
    this.connection.proceed()
  }
}

export interface ClientOptions extends Established {
  readonly wire: HttpWire
  readonly config: TransportConfig
  readonly onClose: (reason: CloseReason) => void
}

/** A connection that we asked for, and the exchanges on it, one at a time. */
export class ClientConnection extends Supervised implements Connection, Supervision {
  readonly config: TransportConfig
  private readonly onClose: (reason: CloseReason) => void
  private readonly carrier: HttpCarrier
  private exchangeDeadline = Number.POSITIVE_INFINITY
  /** Set while an exchange settles: the connection ends only once its owner knows that the exchange did. */
  private isSettling = false

  constructor(owner: Owner, options: ClientOptions) {
    super(owner, options)
    this.config = options.config
    this.onClose = options.onClose
    this.carrier = options.wire.carry(this)
  }

  isUsable(): boolean {
    if (this.inFlight > 0 || !this.isOpen || !this.wire.isOpen) return false
    if (this.admits) return true
    // A certificate on it has ended before the sleeper woke: the wall clock was set.
    this.move(timePassed)
    return false
  }

  unsafeStart(exchange: Exchange, resume: Resume): () => void {
    const supervised = new SupervisedExchange(exchange, this, this.owner.deadlines.wall())
    const unrecorded = this.owner.record(supervised.started())
    if (unrecorded !== undefined) {
      exchange.onSettled(unrecorded._tag)
      resume(Effect.fail(unrecorded))
      return () => {}
    }
    this.requests++
    this.inFlight = 1
    // A server that does not authorise us says so in place of its first response.
    return this.carrier.start(supervised, this.requests > 1 ? resume : (result) => resume(this.unlessRefused(result)))
  }

  private unlessRefused(
    result: Effect.Effect<HttpClientResponse, RequestFailure>
  ): Effect.Effect<HttpClientResponse, RequestFailure> {
    return Effect.flatMap(result, (response) =>
      response.status === 403 && response.headers[refusalHeader] !== undefined
        ? Effect.fail(
            new IdentityError({
              reason: "LocalCertificateRefused",
              description: `expected ${this.peer.spiffeId} at ${this.address} to authorise ${this.ownId}, it does not`
            })
          )
        : Effect.succeed(response)
    )
  }

  unsafeRetire(reason: CloseReason): void {
    this.end(reason)
  }

  tick(): number {
    return this.owner.tick()
  }

  now(): number {
    return this.owner.deadlines.now()
  }

  setDeadline(deadline: number): void {
    this.exchangeDeadline = deadline
    this.setNext(deadline)
  }

  protected override reschedule(): void {
    super.reschedule()
    this.setNext(this.exchangeDeadline)
  }

  abandon(reason: CloseReason): void {
    this.cut(reason)
  }

  override onDeadline(at: { readonly mono: number; readonly wall: number }): void {
    super.onDeadline(at)
    if (at.mono < this.exchangeDeadline) return
    this.setDeadline(Number.POSITIVE_INFINITY)
    this.carrier.onTimeout()
  }

  /** An exchange no longer occupies the connection. */
  settled(exchange: SupervisedExchange, error: string | undefined): void {
    this.inFlight = 0
    this.isSettling = true
    this.setDeadline(Number.POSITIVE_INFINITY)
    if (exchange.isAnswered) this.heardAt = this.tick()
    else if (error === "TimeoutError") this.owner.suspect(this, exchange.since)
    if (!this.isOpen) this.move(requestEnded)
    // The request has happened: what cannot be recorded of its end is counted by the sink.
    this.owner.record(exchange.ended(this.owner.deadlines.wall(), error))
  }

  /** Its owner knows. */
  proceed(): void {
    this.isSettling = false
    if (this.state.phase === "Closed") this.close()
  }

  get canAnnounce(): boolean {
    return false
  }

  protected announce(): void {}

  protected close(): void {
    if (this.isSettling) return
    this.wire.destroy()
  }

  protected onClosed(reason: CloseReason): void {
    this.carrier.onClosed(reason)
    this.onClose(reason)
  }
}
