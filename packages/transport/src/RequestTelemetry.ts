/**
 * Requests on record: for authors of connectors. What a connection carries becomes `RequestStarted` and `RequestEnded`
 * events, and with them metrics.
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

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  readonly record: (event: AuditEvent) => AuditError | undefined
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

let nextRequest = 0

const attemptOf = (fiber: RuntimeFiber<unknown, unknown>): number =>
  (fiber.currentContext.unsafeMap.get(CurrentAttempt.key) as number | undefined) ?? 1

const traceOf = (fiber: RuntimeFiber<unknown, unknown>): string | undefined =>
  (fiber.currentContext.unsafeMap.get(Tracer.ParentSpan.key) as Tracer.AnySpan | undefined)?.traceId

/** The path without its query: a query may hold what is nobody's business. */
const withoutQuery = (path: string): string => {
  const query = path.indexOf("?")
  return query === -1 ? path : path.slice(0, query)
}

/** An exchange that leaves its two events. */
class ObservedExchange implements Exchange {
  readonly request: Exchange["request"]
  readonly path: string
  readonly fiber: Exchange["fiber"]
  private readonly inner: Exchange
  private readonly connection: Connection
  private readonly options: Options
  private readonly startedAt: number
  private readonly requestId = `r${++nextRequest}`
  private status: number | undefined = undefined

  constructor(inner: Exchange, connection: Connection, options: Options) {
    this.request = inner.request
    this.path = inner.path
    this.fiber = inner.fiber
    this.inner = inner
    this.connection = connection
    this.options = options
    this.startedAt = options.now()
  }

  private common(time: number) {
    const { connection, fiber, inner } = this
    const traceId = inner.traceId ?? traceOf(fiber)
    return {
      time,
      side: "Client" as const,
      connectionId: connection.id,
      address: connection.address,
      requestId: this.requestId,
      ...(traceId === undefined ? undefined : { traceId }),
      peerId: connection.peer.spiffeId,
      method: inner.request.method,
      path: withoutQuery(inner.path),
      attempt: attemptOf(fiber)
    }
  }

  begin(): AuditError | undefined {
    return this.options.record({ _tag: "RequestStarted", ...this.common(this.startedAt) })
  }

  readonly onStatus = (status: number): void => {
    this.status = status
    this.inner.onStatus?.(status)
  }

  readonly onSettled = (error?: string): void => {
    const now = this.options.now()
    // The request has happened: what cannot be recorded of its end is counted by the sink.
    this.options.record({
      _tag: "RequestEnded",
      ...this.common(now),
      ...(this.status === undefined ? undefined : { status: this.status }),
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
