import * as Cookies from "@effect/platform/Cookies"
import type * as Headers from "@effect/platform/Headers"
import * as HttpClientError from "@effect/platform/HttpClientError"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as IncomingMessage from "@effect/platform/HttpIncomingMessage"
import * as UrlParams from "@effect/platform/UrlParams"
import * as Channel from "effect/Channel"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Inspectable from "effect/Inspectable"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { ResponseSink, Source } from "../ConnectorResponse.js"
import type { TransportError } from "../TransportError.js"

const empty = new Uint8Array(0)

const concat = (chunks: ReadonlyArray<Uint8Array>, size: number): Uint8Array => {
  const [first] = chunks
  if (first === undefined) return empty
  if (chunks.length === 1) return first
  const whole = new Uint8Array(size)
  let offset = 0
  for (const chunk of chunks) {
    whole.set(chunk, offset)
    offset += chunk.length
  }
  return whole
}

/**
 * A body on its way in: chunks not yet taken, how the wire ended, and who waits for more. Small bodies are complete
 * before their reader asks, so nothing is allocated for waiting.
 */
export class Body implements ResponseSink {
  static readonly highWaterMark = 64 * 1024

  private chunks: Array<Uint8Array> = []
  private size = 0
  private state: "Open" | "Ended" | "Failed" = "Open"
  private error: TransportError | undefined = undefined
  /** The whole body, once it was collected. */
  private bytes: Uint8Array | undefined = undefined
  /** The collectors that wait for the end. */
  private waiters: Array<() => void> | undefined = undefined
  /** The stream's reader that waits for more. */
  private reader: (() => void) | undefined = undefined
  /** Whether the reader is about to be woken. */
  private waking = false
  /** A collector wants everything: no backpressure. */
  private collecting = 0
  private paused = false
  private streamed = false
  private source: Source | undefined

  constructor(source: Source) {
    this.source = source
  }

  push(chunk: Uint8Array): boolean {
    if (this.state !== "Open") return true
    this.chunks.push(chunk)
    this.size += chunk.length
    if (this.reader !== undefined) this.wakeSoon()
    this.paused = this.collecting === 0 && this.size >= Body.highWaterMark
    return !this.paused
  }

  end(): void {
    this.settle("Ended")
  }

  fail(error: TransportError): void {
    if (this.state === "Open") this.error = error
    this.settle("Failed")
  }

  private settle(state: "Ended" | "Failed"): void {
    if (this.state !== "Open") return
    this.state = state
    this.source = undefined
    this.wake()
  }

  private wakeSoon(): void {
    const { source } = this
    if (source?.defer === undefined) {
      this.wakeReader()
      return
    }
    if (this.waking) return
    this.waking = true
    source.defer(() => {
      this.waking = false
      this.wakeReader()
    })
  }

  private wakeReader(): void {
    const { reader } = this
    this.reader = undefined
    reader?.()
  }

  private wake(): void {
    this.wakeReader()
    const { waiters } = this
    if (waiters === undefined) return
    this.waiters = undefined
    for (const waiter of waiters) waiter()
  }

  /** Nobody reads the rest. */
  abandon(): void {
    const source = this.source
    if (this.state !== "Open") return
    this.chunks = []
    this.size = 0
    this.settle("Failed")
    source?.abort()
  }

  /** Whether {@link collected} would succeed at once. */
  get isCollected(): boolean {
    return this.state === "Ended" && !this.streamed
  }

  get isOpen(): boolean {
    return this.state === "Open"
  }

  private get brokenOff(): string {
    return this.error === undefined ? "the body was abandoned by an earlier reader" : "the body broke off"
  }

  private readOn(): void {
    if (!this.paused) return
    this.paused = false
    this.source?.resume()
  }

  /** The collected bytes; only after `collected` succeeded. */
  whole(): Uint8Array {
    if (this.bytes === undefined) {
      this.bytes = concat(this.chunks, this.size)
      this.chunks = []
    }
    return this.bytes
  }

  /** Succeeds when the whole body is here. */
  collected(response: BodyResponse): Effect.Effect<void, HttpClientError.ResponseError> {
    return Effect.suspend(() => {
      if (this.streamed) return response.failure("the body was already read as a stream")
      switch (this.state) {
        case "Ended":
          return Effect.void
        case "Failed":
          return response.failure(this.brokenOff, this.error)
        case "Open":
          return Effect.async<void, HttpClientError.ResponseError>((resume) => {
            this.collecting++
            const waiter = () => resume(this.collected(response))
            const waiters = (this.waiters ??= [])
            waiters.push(waiter)
            this.readOn()
            return Effect.sync(() => {
              this.collecting--
              const at = this.waiters?.indexOf(waiter) ?? -1
              if (at >= 0) this.waiters?.splice(at, 1)
              if (this.collecting === 0) this.abandon()
            })
          })
      }
    })
  }

  /** Chunks as they come, to the end. A channel: what a stream of pulls makes for each chunk outlives the young generation. */
  private chunksOf(response: BodyResponse): Chunks {
    const more = Effect.async<void>((resume) => {
      this.reader = () => resume(Effect.void)
    })
    const loop: Chunks = Channel.suspend(() => {
      if (this.chunks.length > 0) {
        const chunks = Chunk.unsafeFromArray(this.chunks)
        this.chunks = []
        this.size = 0
        this.readOn()
        return Channel.flatMap(Channel.write(chunks), () => loop)
      }
      switch (this.state) {
        case "Ended":
          return Channel.void
        case "Failed":
          return Channel.fromEffect(response.failure(this.brokenOff, this.error))
        case "Open":
          return Channel.flatMap(Channel.fromEffect(more), () => loop)
      }
    })
    return loop
  }

  stream(response: BodyResponse): Stream.Stream<Uint8Array, HttpClientError.ResponseError> {
    return Stream.suspend(() => {
      if (this.bytes !== undefined) return Stream.make(this.bytes)
      if (this.streamed) return Stream.fromEffect(response.failure("the body was already read as a stream"))
      this.streamed = true
      return Stream.ensuring(
        Stream.fromChannel(this.chunksOf(response)),
        Effect.sync(() => this.abandon())
      )
    })
  }
}

type Chunks = Channel.Channel<Chunk.Chunk<Uint8Array>, unknown, HttpClientError.ResponseError>

/** A response dropped before its body was whole: the rest of the body is aborted, so that its connection comes back. */
const dropped = new FinalizationRegistry<Body>((body) => body.abandon())

const decoder = new TextDecoder()

const parseJson = (body: Body): unknown => {
  const text = decoder.decode(body.whole())
  return text === "" ? null : JSON.parse(text)
}

export class BodyResponse extends Inspectable.Class implements HttpClientResponse.HttpClientResponse {
  readonly [IncomingMessage.TypeId]: IncomingMessage.TypeId = IncomingMessage.TypeId
  readonly [HttpClientResponse.TypeId]: HttpClientResponse.TypeId = HttpClientResponse.TypeId
  readonly request: HttpClientRequest
  readonly status: number
  private readonly body: Body
  private readonly getHeaders: () => Headers.Headers
  private readonly getSetCookie: () => ReadonlyArray<string>
  private readonly address: string | undefined
  private cachedHeaders: Headers.Headers | undefined = undefined

  constructor(
    body: Body,
    request: HttpClientRequest,
    status: number,
    headers: () => Headers.Headers,
    setCookie: () => ReadonlyArray<string>,
    address: string | undefined
  ) {
    super()
    this.body = body
    this.request = request
    this.status = status
    this.getHeaders = headers
    this.getSetCookie = setCookie
    this.address = address
    if (body.isOpen) dropped.register(this, body, body)
  }

  failure(description: string, cause?: unknown): Effect.Effect<never, HttpClientError.ResponseError> {
    return Effect.fail(
      new HttpClientError.ResponseError({
        request: this.request,
        response: this,
        reason: "Decode",
        description,
        ...(cause === undefined ? undefined : { cause })
      })
    )
  }

  get headers(): Headers.Headers {
    return (this.cachedHeaders ??= this.getHeaders())
  }

  get cookies(): Cookies.Cookies {
    return Cookies.fromSetCookie(this.getSetCookie())
  }

  get remoteAddress(): Option.Option<string> {
    return Option.fromNullable(this.address)
  }

  private decode<A>(read: (body: Body) => A): Effect.Effect<A, HttpClientError.ResponseError> {
    try {
      return Effect.succeed(read(this.body))
    } catch (cause) {
      return Effect.fail(
        new HttpClientError.ResponseError({ request: this.request, response: this, reason: "Decode", cause })
      )
    }
  }

  /** Runs `read` on the whole body. The reader keeps the response alive, and from here on answers for the body. */
  private read<A>(read: (body: Body) => A): Effect.Effect<A, HttpClientError.ResponseError> {
    return Effect.suspend(() => {
      if (this.body.isCollected) return this.decode(read)
      dropped.unregister(this.body)
      return Effect.flatMap(this.body.collected(this), () => this.decode(read))
    })
  }

  get json(): Effect.Effect<unknown, HttpClientError.ResponseError> {
    return this.read(parseJson)
  }

  get text(): Effect.Effect<string, HttpClientError.ResponseError> {
    return this.read((body) => decoder.decode(body.whole()))
  }

  get urlParamsBody(): Effect.Effect<UrlParams.UrlParams, HttpClientError.ResponseError> {
    return this.read((body) => UrlParams.fromInput(new URLSearchParams(decoder.decode(body.whole()))))
  }

  get arrayBuffer(): Effect.Effect<ArrayBuffer, HttpClientError.ResponseError> {
    return this.read((body) => new Uint8Array(body.whole()).buffer)
  }

  get formData(): Effect.Effect<FormData, HttpClientError.ResponseError> {
    return Effect.flatMap(
      this.read((body) => new Uint8Array(body.whole())),
      (bytes) =>
        Effect.tryPromise({
          try: () =>
            new Response(bytes, { headers: { "content-type": this.headers["content-type"] ?? "" } }).formData(),
          catch: (cause) =>
            new HttpClientError.ResponseError({ request: this.request, response: this, reason: "Decode", cause })
        })
    )
  }

  get stream(): Stream.Stream<Uint8Array, HttpClientError.ResponseError> {
    return Stream.suspend(() => {
      dropped.unregister(this.body)
      return this.body.stream(this)
    })
  }

  toJSON(): unknown {
    return IncomingMessage.inspect(this, {
      _id: "@effect/platform/HttpClientResponse",
      request: this.request.toJSON(),
      status: this.status
    })
  }
}
