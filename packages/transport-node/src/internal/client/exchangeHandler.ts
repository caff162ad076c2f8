import type { CloseReason } from "@agentweave/transport/AuditEvent"
import { BodyTimeout } from "@agentweave/transport/BodyTimeout"
import type { Exchange, ExchangeError } from "@agentweave/transport/Connector"
import * as ConnectorResponse from "@agentweave/transport/ConnectorResponse"
import {
  ConnectionError,
  type Outcome,
  TimeoutError,
  type TimeoutPhase,
  type TransportError
} from "@agentweave/transport/TransportError"
import * as Headers from "@effect/platform/Headers"
import * as HttpClientError from "@effect/platform/HttpClientError"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Dispatcher } from "undici"
import { codeOf, fromExchange, UnaskedBytes } from "../errors.js"
import { serviceOf } from "../fiber.js"

/** The connection, as an exchange needs it. */
export interface Carrier {
  readonly address: string
  readonly remoteAddress: string | undefined
  readonly timeoutMillis: number
  readonly bodyTimeoutMillis: number
  readonly maxResponseSize: number
  /** The peer ended the connection, in order. */
  readonly peerEnded: boolean
  /** This side has closed the connection. */
  readonly closedHere: boolean
  /** The connection ended otherwise. */
  readonly broken: boolean
  /** The first certificate alert seen on the socket, if any. */
  readonly alert: () => string | undefined
  /** Monotonic milliseconds. */
  readonly now: () => number
  /** A request is about to be written. */
  readonly requestStarts: () => void
  /** Moves the connection's deadline; `Infinity` while there is nothing to wait for. */
  readonly setDeadline: (deadline: number) => void
  /** The exchange is over: the connection is free, if it is still open. `error` is the tag of what it failed with. */
  readonly settled: (error?: string) => void
  /** The connection is in an unknown state and goes away. */
  readonly abandon: (reason: CloseReason) => void
}

const resolved = Promise.resolve()

const latin1 = (bytes: Buffer | string): string => (typeof bytes === "string" ? bytes : bytes.toString("latin1"))

const parseHeaders = (raw: ReadonlyArray<Buffer | string>): Headers.Headers => {
  // Without a prototype: a header may be called `constructor` or `__proto__`.
  const headers: Record<string, string> = Object.create(null)
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = latin1(raw[i] ?? "").toLowerCase()
    const value = latin1(raw[i + 1] ?? "")
    const before = headers[name]
    headers[name] = before === undefined ? value : `${before}, ${value}`
  }
  return Headers.unsafeFromRecord(headers)
}

const setCookies = (raw: ReadonlyArray<Buffer | string>): ReadonlyArray<string> => {
  const values: Array<string> = []
  for (let i = 0; i + 1 < raw.length; i += 2) {
    if (latin1(raw[i] ?? "").toLowerCase() === "set-cookie") values.push(latin1(raw[i + 1] ?? ""))
  }
  return values
}

/** The body's limit that the request has of its own, if it has one. */
const bodyTimeout = (fiber: Exchange["fiber"]): Duration.Duration | undefined => serviceOf(fiber, BodyTimeout)

/** A reader that has begun may pause this many times as long as a body waits for its first reader. */
const readerPauses = 10

/** Errors of undici before it writes a byte: the caller's request is at fault. */
const isRequestFault = (code: string): boolean =>
  code === "ERR_REFUSED_BODY" ||
  code === "UND_ERR_INVALID_ARG" ||
  code === "UND_ERR_NOT_SUPPORTED" ||
  code === "UND_ERR_REQ_CONTENT_LENGTH_MISMATCH"

interface Answer extends ConnectorResponse.ResponseOptions {
  readonly sink: ConnectorResponse.ResponseSink
}

/**
 * One exchange, as undici's dispatch handler. It resumes the fiber once, with the response or the failure, settles the
 * connection once, and drops its references when it is done.
 */
export class ExchangeHandler implements Dispatcher.DispatchHandler, ConnectorResponse.BodySource {
  private carrier: Carrier
  private exchange: Exchange | undefined
  private resumeFiber: ((result: Effect.Effect<HttpClientResponse, ExchangeError>) => void) | undefined
  private sink: ConnectorResponse.ResponseSink | undefined = undefined
  private resumeWire: (() => void) | undefined = undefined
  private abortWire: ((cause?: Error) => void) | undefined = undefined
  private written = false
  private responseStarted = false
  private aborted = false
  /** The response was received to its end. */
  private complete = false
  private done = false
  /** The parts of the response, until the fiber is given it. */
  private answer: Answer | undefined = undefined
  private scheduled = false
  /** The longest silence in the response's body, in milliseconds. */
  private bodyMillis: number
  /** Whether the next piece of the body waits for its reader. */
  private paused = false
  /** Whether the exchange waits for the next piece of its request's body, and not for the peer. */
  isUploadWaiting: (() => boolean) | undefined = undefined
  /** Called once when the exchange is over, for what still works on it. */
  onFinished: (() => void) | undefined = undefined

  constructor(
    carrier: Carrier,
    exchange: Exchange,
    resume: (result: Effect.Effect<HttpClientResponse, ExchangeError>) => void
  ) {
    this.carrier = carrier
    this.bodyMillis = carrier.bodyTimeoutMillis
    this.exchange = exchange
    this.resumeFiber = resume
  }

  /** undici is about to write the request. */
  onConnect(abort: (cause?: Error) => void): void {
    this.written = true
    this.abortWire = abort
    if (this.done || this.aborted) abort()
    else this.carrier.requestStarts()
  }

  onResponseStarted(): void {
    this.responseStarted = true
  }

  onHeaders(status: number, raw: Array<Buffer>, resume: () => void): boolean {
    const exchange = this.exchange
    if (status < 200 || exchange === undefined) return true
    const headers = () => parseHeaders(raw)
    exchange.onStatus?.(status, headers)
    const sink = ConnectorResponse.makeSink(this)
    this.sink = sink
    this.resumeWire = resume
    const own = bodyTimeout(exchange.fiber)
    if (own !== undefined) this.bodyMillis = Duration.toMillis(own)
    const { maxResponseSize, remoteAddress } = this.carrier
    this.answer = {
      sink,
      request: exchange.request,
      status,
      headers,
      setCookie: () => setCookies(raw),
      remoteAddress,
      maxResponseSize
    }
    // Neither has content, whatever its headers say (RFC 9112 section 6.3). undici (7.30) ends the exchange as failed when a
    // `Content-Length` stands in one, which a 304 may carry (RFC 9110 section 8.6): by then it is complete.
    if (status === 204 || status === 304) this.complete = true
    this.schedule()
    return true
  }

  onData(chunk: Buffer): boolean {
    const { sink } = this
    if (sink === undefined || sink.push(chunk)) {
      // Most responses are complete by the time their first piece is passed on, and need no limit.
      this.schedule()
      return true
    }
    this.paused = true
    this.setLimit(this.readerMillis)
    return false
  }

  /** A piece of the request's body was written. */
  onBodySent(): void {
    this.progress()
  }

  onComplete(): void {
    // To undici (7.30) a reset is an end like any other, for a body that only the connection's end delimits.
    if (this.carrier.broken) {
      this.onError(new Error("the connection was reset"))
      return
    }
    this.complete = true
    this.schedule()
  }

  /**
   * undici reports from within its parser, before it has moved on to the next request and before it has acted on
   * `Connection: close`. So what it reported is passed on in the microtask after: first the connection is free, then the
   * body is whole, then the fiber goes on and finds both.
   */
  private schedule(): void {
    if (this.scheduled) return
    this.scheduled = true
    // `queueMicrotask` would make a resource for async hooks each time.
    void resolved.then(this.passOn)
  }

  private readonly passOn = (): void => {
    this.scheduled = false
    if (this.complete) this.completed()
    else if (!this.paused) this.progress()
    const { answer } = this
    if (answer !== undefined) this.settleFiber(ConnectorResponse.respond(answer.sink, answer))
  }

  private completed(): void {
    const sink = this.sink
    this.finish()
    sink?.end()
  }

  onError(cause: Error): void {
    if (cause instanceof UnaskedBytes) this.carrier.abandon("Error")
    if (this.done || this.aborted || this.complete) return
    const exchange = this.exchange
    const code = codeOf(cause)
    if (exchange !== undefined && !this.responseStarted && isRequestFault(code)) {
      const { request } = exchange
      this.finish("RequestError")
      this.settleFiber(
        Effect.fail(new HttpClientError.RequestError({ request, reason: "Encode", description: cause.message, cause }))
      )
      return
    }
    this.fail(
      fromExchange(cause, {
        address: this.carrier.address,
        outcome: this.outcome,
        alert: this.carrier.alert(),
        peerEnded: this.carrier.peerEnded,
        closedHere: this.carrier.closedHere,
        responseStarted: this.responseStarted
      })
    )
  }

  /** The body of the request failed: its error is the request's. */
  onRequestBodyFailure(cause: unknown): void {
    const exchange = this.exchange
    if (this.done || this.complete || exchange === undefined) return
    const { request } = exchange
    const { outcome, sink } = this
    const description = "expected a request body that can be read to its end, it failed"
    this.abortExchange("RequestError")
    // The peer may have begun to answer: who reads the response learns why it ends.
    sink?.fail(new ConnectionError({ reason: "Lost", outcome, address: this.carrier.address, description, cause }))
    this.settleFiber(Effect.fail(new HttpClientError.RequestError({ request, reason: "Encode", description, cause })))
  }

  /** No progress for as long as is allowed. */
  onTimeout(): void {
    if (this.done || this.complete) return
    const error = this.outOfTime()
    const sink = this.sink
    this.abortExchange(error._tag)
    sink?.fail(error)
    this.settleFiber(Effect.fail(error))
  }

  private outOfTime(): TimeoutError {
    const { address, timeoutMillis } = this.carrier
    const [phase, millis]: [TimeoutPhase, number] = this.paused
      ? ["Read", this.readerMillis]
      : this.sink !== undefined
        ? ["Body", this.bodyMillis]
        : [this.isUploadWaiting?.() === true ? "RequestBody" : "Headers", timeoutMillis]
    return new TimeoutError({ phase, outcome: this.outcome, limit: Duration.millis(millis), target: address })
  }

  /** The reader has room again. */
  resume(): void {
    this.paused = false
    this.progress()
    this.resumeWire?.()
  }

  /** After all that this turn of the event loop reads from the socket. */
  defer(task: () => void): void {
    setImmediate(task)
  }

  /** The reader or the fiber gave up. */
  abort(): void {
    this.resumeFiber = undefined
    this.abortExchange("Interrupted")
  }

  private get outcome(): Outcome {
    return this.written ? "Unknown" : "NotSent"
  }

  private get readerMillis(): number {
    return this.bodyMillis * (this.sink?.isBeingRead() === true ? readerPauses : 1)
  }

  private progress(): void {
    this.setLimit(this.sink === undefined ? this.carrier.timeoutMillis : this.bodyMillis)
  }

  private setLimit(millis: number): void {
    if (!this.done) this.carrier.setDeadline(this.carrier.now() + millis)
  }

  private fail(error: TransportError): void {
    const sink = this.sink
    this.finish(error._tag)
    sink?.fail(error)
    this.settleFiber(Effect.fail(error))
  }

  private abortExchange(error: string): void {
    const abortWire = this.abortWire
    if (this.done) return
    if (this.complete) {
      this.completed()
      return
    }
    this.aborted = true
    abortWire?.()
    this.carrier.abandon("Aborted")
    this.finish(error)
  }

  private settleFiber(result: Effect.Effect<HttpClientResponse, ExchangeError>): void {
    const resume = this.resumeFiber
    this.resumeFiber = undefined
    this.answer = undefined
    resume?.(result)
  }

  private finish(error?: string): void {
    if (this.done) return
    this.done = true
    this.exchange = undefined
    this.sink = undefined
    this.resumeWire = undefined
    this.abortWire = undefined
    this.isUploadWaiting = undefined
    const { onFinished } = this
    this.onFinished = undefined
    onFinished?.()
    this.carrier.settled(error)
  }
}
