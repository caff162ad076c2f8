/**
 * A connection without a wire: exchanges run a handler, and everything a socket could do to them can be done.
 */
import type { PeerVerifier, SpiffeId } from "@agentweave/spiffe"
import { type AuditEvent, BodyTimeout, type Connector, ConnectorResponse, TransportError } from "@agentweave/transport"
import * as Cookies from "@effect/platform/Cookies"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import type { HttpServerResponse } from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { Handler } from "../TestMessage.js"
import type { RunFork } from "./background.js"
import { makeRequest, responseBody } from "./testMessage.js"

type Resume = (result: Effect.Effect<HttpClientResponse, Connector.RequestFailure>) => void

export interface Options {
  readonly id: string
  readonly address: string
  readonly peer: PeerVerifier.VerifiedPeer
  readonly caller: PeerVerifier.VerifiedPeer
  readonly timeout: Duration.Duration
  readonly bodyTimeout: Duration.Duration
  readonly maxResponseSize: number
  readonly handler: () => Handler
  /** Runs an effect now, on the test's clock. */
  readonly run: RunFork
  /** Called once, when the connection has ended. */
  readonly onClosed: (connection: TestConnection, reason: AuditEvent.CloseReason) => void
}

export class TestConnection implements Connector.Connection {
  readonly id: string
  readonly address: string
  readonly peer: PeerVerifier.VerifiedPeer
  readonly ownId: SpiffeId.SpiffeId
  readonly options: Options
  requests = 0
  bytesRead = 0
  bytesWritten = 0
  private current: TestExchange | undefined = undefined
  private retired: AuditEvent.CloseReason | undefined = undefined
  private closed = false

  constructor(options: Options) {
    this.options = options
    this.id = options.id
    this.address = options.address
    this.peer = options.peer
    this.ownId = options.caller.spiffeId
  }

  isUsable(): boolean {
    return !this.closed && this.retired === undefined && this.current === undefined
  }

  unsafeStart(exchange: Connector.Exchange, resume: Resume): () => void {
    this.requests++
    const started = new TestExchange(this, exchange, resume)
    this.current = started
    if (this.closed) started.breakOff()
    else started.start()
    return () => started.abort()
  }

  unsafeRetire(reason: AuditEvent.CloseReason): void {
    if (this.closed) return
    this.retired ??= reason
    if (this.current === undefined) this.close(reason)
  }

  /** The connection ends now; what is in flight fails. */
  breakOff(reason: AuditEvent.CloseReason): void {
    const { current } = this
    this.retired ??= reason
    if (current === undefined) this.close(this.retired)
    else current.breakOff()
  }

  /** The exchange is over. With a reason the connection is of no more use, and ends once its owner knows the exchange did. */
  settle(reason: AuditEvent.CloseReason | undefined, onSettled: () => void): void {
    this.current = undefined
    this.retired ??= reason
    onSettled()
    if (this.retired !== undefined) this.close(this.retired)
  }

  close(reason: AuditEvent.CloseReason): void {
    if (this.closed) return
    this.closed = true
    this.options.onClosed(this, reason)
  }
}

/** What an exchange failed with, as it stands in the audit log. */
const tagOf = (cause: Cause.Cause<Connector.RequestFailure>): string =>
  Option.match(Cause.failureOption(cause), { onNone: () => "Defect", onSome: ({ _tag }) => _tag })

class TestExchange implements ConnectorResponse.Source {
  private readonly connection: TestConnection
  private readonly exchange: Connector.Exchange
  private readonly resumeFiber: Resume
  private sink: ConnectorResponse.ResponseSink | undefined = undefined
  private fiber: Fiber.RuntimeFiber<void> | undefined = undefined
  private readOn: (() => void) | undefined = undefined
  private resumed = false
  private done = false

  constructor(connection: TestConnection, exchange: Connector.Exchange, resume: Resume) {
    this.connection = connection
    this.exchange = exchange
    this.resumeFiber = resume
  }

  start(): void {
    const conversation = Effect.catchAllCause(this.converse(), (cause) => Effect.sync(() => this.failWith(cause)))
    this.fiber = this.connection.options.run(conversation)
  }

  private converse(): Effect.Effect<void, Connector.RequestFailure> {
    const { address, caller, handler, id, peer, timeout } = this.connection.options
    const { path, request } = this.exchange
    const count = (bytes: number) => {
      this.connection.bytesWritten += bytes
    }
    const seen = makeRequest(request, this.exchange.fiber.currentContext, count, {
      path,
      peer: peer.spiffeId,
      caller,
      address,
      connectionId: id
    })
    return Effect.suspend(() => handler()(seen)).pipe(
      Effect.timeoutFail({ duration: timeout, onTimeout: () => this.timeout("Headers") }),
      Effect.flatMap((response) => this.answer(response))
    )
  }

  private answer(response: HttpServerResponse): Effect.Effect<void, Connector.RequestFailure> {
    return Effect.suspend(() => {
      const sink = ConnectorResponse.makeSink(this)
      this.sink = sink
      const { request } = this.exchange
      const body = responseBody(request, response)
      this.exchange.onStatus?.(response.status)
      this.settleFiber(
        ConnectorResponse.respond(sink, {
          request,
          status: response.status,
          headers: () => response.headers,
          setCookie: () => Cookies.toSetCookieHeaders(response.cookies),
          remoteAddress: undefined,
          maxResponseSize: this.connection.options.maxResponseSize
        })
      )
      if (!(body instanceof Uint8Array)) return this.stream(body, sink)
      // Known whole: it is there before the fiber that asked goes on, as a small answer on a wire often is.
      this.push(body)
      this.finish()
      sink.end()
      return Effect.void
    })
  }

  private stream(body: Stream.Stream<Uint8Array, unknown>, sink: ConnectorResponse.ResponseSink) {
    return body.pipe(
      Stream.mapError((cause) =>
        TransportError.isTransportError(cause) ? cause : this.broken("the answer's body failed", cause)
      ),
      this.bodyLimited,
      Stream.runForEach((bytes) => (this.push(bytes) ? Effect.void : this.awaitReader)),
      Effect.zipRight(
        Effect.sync(() => {
          this.finish()
          sink.end()
        })
      )
    )
  }

  private push(bytes: Uint8Array): boolean {
    this.connection.bytesRead += bytes.length
    return this.sink?.push(bytes) ?? true
  }

  /** The longest silence in the answer's body: the request's own, or its channel's. */
  private get bodyTimeout(): Duration.Duration {
    const own = Context.get(this.exchange.fiber.currentContext, BodyTimeout.BodyTimeout)
    return own ?? this.connection.options.bodyTimeout
  }

  private readonly bodyLimited = <E>(body: Stream.Stream<Uint8Array, E>) => {
    const limit = this.bodyTimeout
    return Duration.isFinite(limit) ? Stream.timeoutFail(body, () => this.timeout("Body", limit), limit) : body
  }

  private get awaitReader(): Effect.Effect<void, TransportError.TimeoutError> {
    const room = Effect.async<void>((resume) => {
      this.readOn = () => resume(Effect.void)
    })
    // As on a socket: a reader that has begun may pause ten times as long.
    const limit = Duration.times(this.bodyTimeout, this.sink?.isBeingRead() ? 10 : 1)
    return Duration.isFinite(limit)
      ? Effect.timeoutFail(room, { duration: limit, onTimeout: () => this.timeout("Read", limit) })
      : room
  }

  private timeout(phase: "Headers" | "Body" | "Read", limit = this.connection.options.timeout) {
    const { address } = this.connection.options
    return new TransportError.TimeoutError({ phase, outcome: "Unknown", limit, target: address })
  }

  private broken(description: string, cause?: unknown) {
    return new TransportError.ConnectionError({
      reason: this.sink === undefined ? "Closed" : "Lost",
      outcome: "Unknown",
      address: this.connection.address,
      description,
      cause
    })
  }

  /** The handler failed, or its answer did: whatever it was, the connection is in no state to be used again. */
  private failWith(cause: Cause.Cause<Connector.RequestFailure>): void {
    if (this.done) return
    if (Cause.isInterruptedOnly(cause)) {
      this.connection.breakOff("Shutdown")
      return
    }
    const { sink } = this
    const error = Option.filter(Cause.failureOption(cause), TransportError.isTransportError)
    this.finish(tagOf(cause), "Error")
    sink?.fail(Option.getOrElse(error, () => this.broken("the answer's body failed", Cause.squash(cause))))
    this.settleFiber(Effect.failCause(cause))
  }

  /** The connection is gone. */
  breakOff(): void {
    if (this.done) return
    const { sink } = this
    const error = this.broken("expected the connection to last until the response is whole, it was closed")
    this.finish(error._tag)
    this.interrupt()
    sink?.fail(error)
    this.settleFiber(Effect.fail(error))
  }

  /** The reader took what there was. */
  resume(): void {
    const { readOn } = this
    this.readOn = undefined
    readOn?.()
  }

  abort(): void {
    if (this.done) return
    this.resumed = true
    this.finish("Interrupted", "Aborted")
    this.interrupt()
  }

  private interrupt(): void {
    this.fiber?.unsafeInterruptAsFork(FiberId.none)
  }

  private settleFiber(result: Effect.Effect<HttpClientResponse, Connector.RequestFailure>): void {
    if (this.resumed) return
    this.resumed = true
    this.resumeFiber(result)
  }

  /** The exchange is over, by `error` if there was one, and where a reason is given the connection with it. */
  private finish(error?: string, reason?: AuditEvent.CloseReason): void {
    if (this.done) return
    this.done = true
    this.connection.settle(reason, () => this.exchange.onSettled(error))
  }
}
