/**
 * Requests on record: for authors of connectors and servers. What a connection carries becomes `RequestStarted` and
 * `RequestEnded` events, and with them metrics; and what a span of a request may hold is decided here.
 *
 * @since 0.1.0
 */
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import * as Effect from "effect/Effect"
import type { RuntimeFiber } from "effect/Fiber"
import * as Tracer from "effect/Tracer"
import type { AuditEvent, CloseReason } from "./AuditEvent.js"
import type { AuditError } from "./AuditLog.js"
import type { Connection, Exchange, RequestFailure } from "./Connector.js"
import { CurrentAttempt } from "./CurrentAttempt.js"
import * as tracing from "./internal/tracing.js"

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  readonly record: (event: AuditEvent) => AuditError | undefined
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/**
 * The tracer that a fiber's requests are to be traced with: `undefined` where there is none but Effect's own, which keeps
 * its spans to itself, or where tracing is off.
 *
 * @since 0.1.0
 * @category tracing
 */
export const tracerOf: (fiber: RuntimeFiber<unknown, unknown>) => Tracer.Tracer | undefined = tracing.tracerOf

/**
 * Puts those headers of a request on its span that `CapturedHeaders` lists, under OpenTelemetry's names; never
 * `authorization`, `cookie` and the like.
 *
 * @since 0.1.0
 * @category tracing
 */
export const captureHeaders: (
  span: Tracer.Span,
  names: ReadonlyArray<string> | undefined,
  headers: { readonly [name: string]: string | ReadonlyArray<string> | undefined }
) => void = tracing.captureHeaders

/**
 * A request target without its query, and without the authority of an absolute one (RFC 9112 section 3.2.2): either may
 * hold what is nobody's business.
 *
 * @since 0.1.0
 * @category tracing
 */
export const pathOf: (target: string) => string = tracing.pathOf

/**
 * What an error is called in a span: its tag or its name, and nothing of its content.
 *
 * @since 0.1.0
 * @category tracing
 */
export const nameOf: (error: unknown) => string = tracing.nameOf

let nextRequest = 0

const attemptOf = (fiber: RuntimeFiber<unknown, unknown>): number =>
  (fiber.currentContext.unsafeMap.get(CurrentAttempt.key) as number | undefined) ?? 1

const traceOf = (fiber: RuntimeFiber<unknown, unknown>): string | undefined =>
  (fiber.currentContext.unsafeMap.get(Tracer.ParentSpan.key) as Tracer.AnySpan | undefined)?.traceId

/** An exchange that leaves its two events. */
class ObservedExchange implements Exchange {
  readonly request: Exchange["request"]
  readonly path: string
  readonly fiber: Exchange["fiber"]
  private readonly inner: Exchange
  private readonly options: Options
  private readonly startedAt: number
  /** What both events say. */
  private readonly common: Omit<Extract<AuditEvent, { _tag: "RequestStarted" }>, "_tag" | "time">
  private status: number | undefined = undefined

  constructor(inner: Exchange, connection: Connection, options: Options) {
    this.request = inner.request
    this.path = inner.path
    this.fiber = inner.fiber
    this.inner = inner
    this.options = options
    this.startedAt = options.now()
    const trace = inner.traceId ?? traceOf(inner.fiber)
    this.common = {
      side: "Client",
      connectionId: connection.id,
      address: connection.address,
      requestId: `r${++nextRequest}`,
      ...(trace === undefined ? undefined : { traceId: trace }),
      peerId: connection.peer.spiffeId,
      method: inner.request.method,
      path: pathOf(inner.path),
      attempt: attemptOf(inner.fiber)
    }
  }

  begin(): AuditError | undefined {
    return this.options.record({ _tag: "RequestStarted", time: this.startedAt, ...this.common })
  }

  readonly onStatus = (status: number): void => {
    this.status = status
    this.inner.onStatus?.(status)
  }

  readonly onSettled = (error?: string): void => {
    const { status } = this
    const now = this.options.now()
    // The request has happened: what cannot be recorded of its end is counted by the sink.
    this.options.record({
      _tag: "RequestEnded",
      time: now,
      ...this.common,
      ...(status === undefined ? undefined : { status }),
      ...(error === undefined ? undefined : { error }),
      durationMillis: now - this.startedAt
    })
    this.inner.onSettled(error)
  }
}

class ObservedConnection implements Connection {
  readonly id: string
  readonly peer: Connection["peer"]
  readonly ownId: Connection["ownId"]
  readonly address: string
  private readonly inner: Connection
  private readonly options: Options

  constructor(inner: Connection, options: Options) {
    this.id = inner.id
    this.peer = inner.peer
    this.ownId = inner.ownId
    this.address = inner.address
    this.inner = inner
    this.options = options
  }

  isUsable(): boolean {
    return this.inner.isUsable()
  }

  unsafeStart(
    exchange: Exchange,
    resume: (result: Effect.Effect<HttpClientResponse, RequestFailure>) => void
  ): () => void {
    const observed = new ObservedExchange(exchange, this, this.options)
    const unrecorded = observed.begin()
    if (unrecorded === undefined) return this.inner.unsafeStart(observed, resume)
    exchange.onSettled(unrecorded._tag)
    resume(Effect.fail(unrecorded))
    return () => {}
  }

  unsafeRetire(reason: CloseReason): void {
    this.inner.unsafeRetire(reason)
  }
}

/**
 * The connection, with every exchange on it put on record. A request whose start cannot be recorded, under a sink that
 * fails closed, is not sent and fails with `AuditError`.
 *
 * @since 0.1.0
 * @category combinators
 */
export const observe = (connection: Connection, options: Options): Connection =>
  new ObservedConnection(connection, options)
