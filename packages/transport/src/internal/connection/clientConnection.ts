import { IdentityError } from "@agentweave/spiffe/IdentityError"
import type { Headers } from "@effect/platform/Headers"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import * as Effect from "effect/Effect"
import type { RuntimeFiber } from "effect/Fiber"
import * as Tracer from "effect/Tracer"
import type { Mutable } from "effect/Types"
import type { AuditEvent, CloseReason } from "../../AuditEvent.js"
import type { Connection, Exchange, ExchangeError } from "../../Connector.js"
import { CurrentAttempt } from "../../CurrentAttempt.js"
import type { TransportConfig } from "../../TransportConfig.js"
import { ConnectionError } from "../../TransportError.js"
import { type HttpCarrier, type HttpWire, refusalHeader, type Supervision } from "../../Wire.js"
import { serviceOf } from "../fiber.js"
import { pathOf } from "../requestTelemetry.js"
import { newRequestId } from "./ids.js"
import { requestEnded, timePassed } from "./lifetime.js"
import { type Established, type Owner, SupervisedConnection } from "./supervisedConnection.js"

type Resume = (result: Effect.Effect<HttpClientResponse, ExchangeError>) => void

type RequestStarted = Extract<AuditEvent, { _tag: "RequestStarted" }>
type RequestEnded = Extract<AuditEvent, { _tag: "RequestEnded" }>

const attemptOf = (fiber: RuntimeFiber<unknown, unknown>): number => serviceOf(fiber, CurrentAttempt) ?? 1

const traceOf = (fiber: RuntimeFiber<unknown, unknown>): string | undefined =>
  serviceOf(fiber, Tracer.ParentSpan)?.traceId

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
  /** Our peer has told us in place of a response that it does not authorise us. */
  isRefused = false
  /** It ended while this side had no reason to end the connection. */
  endedOpen = false
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
    this.id = newRequestId("Client")
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

  onStatus(status: number, headers: () => Headers): void {
    this.status = status
    // A server that does not authorise us says so in place of its first response.
    this.isRefused = status === 403 && this.connection.requests === 1 && headers()[refusalHeader] !== undefined
    this.inner.onStatus?.(status, headers)
  }

  onSettled(failed?: string): void {
    const error = this.isRefused ? (failed ?? "IdentityError") : failed
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
export class ClientConnection extends SupervisedConnection implements Connection, Supervision {
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
    if (this.requests > 1) return this.carrier.start(supervised, resume)
    return this.carrier.start(supervised, (result) => resume(this.firstResult(supervised, result)))
  }

  /** The first request learns from a peer that does not want us why there is no response. */
  private firstResult(
    exchange: SupervisedExchange,
    result: Effect.Effect<HttpClientResponse, ExchangeError>
  ): Effect.Effect<HttpClientResponse, ExchangeError> {
    if (exchange.isRefused) return Effect.zipRight(result, Effect.fail(this.unauthorised()))
    if (exchange.isAnswered) return result
    return Effect.mapError(result, (error) =>
      error._tag === "ConnectionError" && error.reason === "Closed" && exchange.endedOpen
        ? this.closedUnheard(error)
        : error
    )
  }

  private unauthorised(): IdentityError {
    return new IdentityError({
      reason: "LocalCertificateRefused",
      description: `expected ${this.peer.spiffeId} at ${this.address} to authorise ${this.ownId}, it does not`
    })
  }

  /** The peer has closed a connection that it never said anything on. Once may happen. */
  private closedUnheard(error: ConnectionError): ConnectionError {
    const { address, heardAt, owner } = this
    if (!owner.freshCloses.closed(address, heardAt, this.tick())) return error
    return new ConnectionError({
      reason: "MaybeRefused",
      outcome: error.outcome,
      address,
      description:
        `expected ${this.peer.spiffeId} to answer, it closed two new connections in a row without a word: ` +
        `the certificate of ${this.ownId} may have been refused`,
      cause: error
    })
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
    exchange.endedOpen = this.isOpen || this.wasLeft
    if (exchange.isAnswered) {
      this.heardAt = this.tick()
      this.owner.freshCloses.answered(this.address)
    } else if (error === "TimeoutError") this.owner.suspect(this, exchange.since)
    if (!this.isOpen) this.move(requestEnded)
    // The request has happened: what cannot be recorded of its end is counted by the sink.
    this.owner.record(exchange.ended(this.owner.deadlines.wall(), error))
  }

  /** Its owner knows. */
  proceed(): void {
    this.isSettling = false
    if (this.state.phase === "Closed") this.close()
  }

  /** The peer has ended the connection, or it broke. */
  private get wasLeft(): boolean {
    const { state } = this
    return state.phase === "Closed" && (state.reason === "PeerClosed" || state.reason === "Error")
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
