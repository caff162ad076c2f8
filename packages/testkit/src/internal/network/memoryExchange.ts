/** The peer's side of one exchange: its handler or its refusal, the limits of time and of length, and the end on record. */
import {
  type AuditEvent,
  BodyTimeout,
  type Connector,
  ConnectorResponse,
  TransportError,
  Wire
} from "@agentweave/transport"
import * as Cookies from "@effect/platform/Cookies"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { makeRequest, responseBody } from "./httpMessages.js"
import type { MemoryWire } from "./memoryWire.js"

type Resume = (result: Effect.Effect<HttpClientResponse, Connector.ExchangeError>) => void

/** A secure server's answer to a client that it does not authorise. */
const forbidden = HttpServerResponse.empty({ status: 403, headers: { [Wire.refusalHeader]: "UnexpectedPeer" } })

/** The name of an exchange's error, as it stands in the audit log. */
const tagOf = (cause: Cause.Cause<Connector.ExchangeError>): string =>
  Option.match(Cause.failureOption(cause), { onNone: () => "Defect", onSome: ({ _tag }) => _tag })

export class MemoryExchange implements ConnectorResponse.BodySource {
  private readonly wire: MemoryWire
  private readonly connection: Wire.Supervision
  private readonly exchange: Connector.Exchange
  private readonly resumeFiber: Resume
  private sink: ConnectorResponse.ResponseSink | undefined = undefined
  private fiber: Fiber.RuntimeFiber<void> | undefined = undefined
  private readOn: (() => void) | undefined = undefined
  private resumed = false
  private done = false

  constructor(wire: MemoryWire, connection: Wire.Supervision, exchange: Connector.Exchange, resume: Resume) {
    this.wire = wire
    this.connection = connection
    this.exchange = exchange
    this.resumeFiber = resume
  }

  start(): void {
    const conversation = Effect.catchAllCause(this.converse(), (cause) => Effect.sync(() => this.failWith(cause)))
    this.fiber = this.wire.options.run(conversation)
  }

  private converse(): Effect.Effect<void, Connector.ExchangeError> {
    const { address, config, id, peer } = this.connection
    const { caller, handler, isAuthorized } = this.wire.options
    const { timeout } = config
    const { path, request } = this.exchange
    const count = (bytes: number) => {
      this.wire.bytesWritten += bytes
    }
    const seen = makeRequest(request, this.exchange.fiber.currentContext, count, {
      path,
      peer: peer.spiffeId,
      caller,
      address,
      connectionId: id
    })
    if (!isAuthorized) return this.answer(forbidden)
    return Effect.suspend(() => handler()(seen)).pipe(
      Effect.timeoutFail({ duration: timeout, onTimeout: () => this.timeout("Headers") }),
      Effect.flatMap((response) => this.answer(response))
    )
  }

  private answer(response: HttpServerResponse.HttpServerResponse): Effect.Effect<void, Connector.ExchangeError> {
    return Effect.suspend(() => {
      const sink = ConnectorResponse.makeSink(this)
      this.sink = sink
      const { request } = this.exchange
      const body = responseBody(request, response)
      this.exchange.onStatus?.(response.status, () => response.headers)
      this.settleFiber(
        ConnectorResponse.respond(sink, {
          request,
          status: response.status,
          headers: () => response.headers,
          setCookie: () => Cookies.toSetCookieHeaders(response.cookies),
          remoteAddress: undefined,
          maxResponseSize: this.connection.config.maxResponseSize
        })
      )
      if (!(body instanceof Uint8Array)) return this.stream(this.lengthChecked(body, response), sink)
      // Known whole: it is there before the fiber that asked goes on, as a small answer on a wire often is.
      this.push(body)
      this.finish()
      sink.end()
      return Effect.void
    })
  }

  /** As on a socket: a body that is not of its declared length is no whole answer. */
  private lengthChecked<E>(
    body: Stream.Stream<Uint8Array, E>,
    { headers }: HttpServerResponse.HttpServerResponse
  ): Stream.Stream<Uint8Array, E | TransportError.ConnectionError> {
    const declared = headers["content-length"]
    if (declared === undefined) return body
    let length = 0
    const mismatch = () => this.broken(`expected a body of ${declared} bytes as its content-length says, got ${length}`)
    return body.pipe(
      Stream.mapEffect((bytes) => {
        length += bytes.length
        return length > Number(declared) ? Effect.fail(mismatch()) : Effect.succeed(bytes)
      }),
      Stream.concat(Stream.suspend(() => (length === Number(declared) ? Stream.empty : Stream.fail(mismatch()))))
    )
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
    this.wire.bytesRead += bytes.length
    return this.sink?.push(bytes) ?? true
  }

  /** The longest silence in the answer's body: the request's own, or its channel's. */
  private get bodyTimeout(): Duration.Duration {
    const own = Context.get(this.exchange.fiber.currentContext, BodyTimeout.BodyTimeout)
    const { bodyTimeout, timeout } = this.connection.config
    return own ?? bodyTimeout ?? timeout
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

  private timeout(phase: "Headers" | "Body" | "Read", limit = this.connection.config.timeout) {
    const { address } = this.connection
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
  private failWith(cause: Cause.Cause<Connector.ExchangeError>): void {
    if (this.done) return
    if (Cause.isInterruptedOnly(cause)) {
      this.connection.abandon("Shutdown")
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

  private settleFiber(result: Effect.Effect<HttpClientResponse, Connector.ExchangeError>): void {
    if (this.resumed) return
    this.resumed = true
    this.resumeFiber(result)
  }

  /** The exchange is over, by `error` if there was one, and where a reason is given the connection with it. */
  private finish(error?: string, reason?: AuditEvent.CloseReason): void {
    if (this.done) return
    this.done = true
    // As on a socket: HEAD is the last request of its connection, and so is the one that is told of a refusal.
    const isLast = this.exchange.request.method === "HEAD" || !this.wire.options.isAuthorized
    this.wire.settled(reason === undefined && !isLast)
    this.exchange.onSettled(error)
    if (reason !== undefined) this.connection.abandon(reason)
    else if (isLast) this.wire.leave()
  }
}
