import type * as HttpClientError from "@effect/platform/HttpClientError"
import * as Channel from "effect/Channel"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { ResponseTooLargeError } from "../../ResponseTooLargeError.js"
import type { TransportError } from "../../TransportError.js"
import { async } from "../fiber.js"

const empty = new Uint8Array(0)

const concat = (chunks: ReadonlyArray<Uint8Array>, size: number): Uint8Array => {
  const whole = new Uint8Array(size)
  let offset = 0
  for (const chunk of chunks) {
    whole.set(chunk, offset)
    offset += chunk.length
  }
  return whole
}

/** Actions on the wire that the reader of a body has. */
export interface BodySource {
  /** Read on: the reader has taken what was buffered. Called only after `push` answered `false`. */
  readonly resume: () => void
  /**
   * Runs a task when what the wire has for now has been pushed: a stream's reader that is woken for each piece costs more
   * than the pieces. Absent: at once.
   */
  readonly defer?: (task: () => void) => void
  /** Nobody will read the rest: end the exchange. Not called after `end` or `fail`. */
  readonly abort: () => void
}

/** The body of a response as its connector writes it. */
export interface ResponseSink {
  /** Takes a piece of the body; `false` asks to stop reading from the wire until `BodySource.resume` is called. */
  readonly push: (chunk: Uint8Array) => boolean
  /** Whether a reader has begun to take the body. */
  readonly isBeingRead: () => boolean
  /** The body is whole. */
  readonly end: () => void
  /** The body broke off. Readers get a `ResponseError` with the error as its cause. */
  readonly fail: (error: TransportError) => void
}

/** A reader of the body: the error it fails with, and the response it reads. */
export interface Reader {
  /** The length the response states, if it states one. */
  readonly statedLength: () => number | undefined
  readonly failure: (description: string, cause?: unknown) => Effect.Effect<never, HttpClientError.ResponseError>
}

/** Why a body that was not received whole cannot be read. */
interface Broken {
  readonly description: string
  readonly cause?: TransportError | ResponseTooLargeError
}

const abandoned: Broken = { description: "the body was abandoned by an earlier reader" }

/** The bodies of responses whose request was made in this scope, as long as they are being received. */
const bodiesOf = new WeakMap<Scope.Scope, Set<Body>>()

/**
 * A body on its way in: chunks not yet taken, how the wire ended, and who waits for more. Small bodies are complete
 * before their reader asks, so nothing is allocated for waiting.
 */
export class Body implements ResponseSink {
  static readonly highWaterMark = 64 * 1024
  private chunks: Array<Uint8Array> = []
  /** Bytes in `chunks`. */
  private size = 0
  private state: "Open" | "Ended" | "Failed" = "Open"
  private broken = abandoned
  /** The whole body, once it was collected, and whether nobody else holds its memory. */
  private bytes: Uint8Array | undefined = undefined
  private isOwned = false
  /** A large one was handed out, and is kept here no longer than for those that wait for it too. */
  private isHandedOut = false
  /** The collectors that have waited and not read yet. */
  private unread = 0
  /** The collectors that wait for the end. */
  private waiters: Array<() => void> | undefined = undefined
  /** The stream's reader that waits for more. */
  private reader: (() => void) | undefined = undefined
  /** Whether the reader is about to be woken. */
  private waking = false
  /** A collector wants everything: no backpressure. */
  private collecting = 0
  /** The most bytes that the collectors take. */
  private limit = Number.POSITIVE_INFINITY
  private paused = false
  private streamed = false
  private source: BodySource | undefined
  /** The other bodies of its request's scope. */
  private siblings: Set<Body> | undefined = undefined

  constructor(source: BodySource) {
    this.source = source
  }

  push(chunk: Uint8Array): boolean {
    if (this.state !== "Open") return true
    this.size += chunk.length
    if (this.collecting > 0) {
      this.collect(chunk)
      return true
    }
    this.chunks.push(chunk)
    if (this.reader !== undefined) this.wakeSoon()
    this.paused = this.size >= Body.highWaterMark
    return !this.paused
  }

  private collect(chunk: Uint8Array): void {
    if (this.size > this.limit) {
      this.refuse()
      return
    }
    this.chunks.push(chunk)
  }

  end(): void {
    this.settle("Ended")
  }

  fail(cause: TransportError): void {
    this.breakOff({ description: `the body broke off: ${cause.message}`, cause })
  }

  private breakOff(broken: Broken): void {
    if (this.state !== "Open") return
    this.broken = broken
    this.settle("Failed")
  }

  private settle(state: "Ended" | "Failed"): void {
    if (this.state !== "Open") return
    this.state = state
    this.source = undefined
    this.siblings?.delete(this)
    this.siblings = undefined
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
  abandon(broken: Broken = this.broken): void {
    const { source } = this
    if (this.state !== "Open") return
    this.chunks = []
    this.size = 0
    this.breakOff(broken)
    source?.abort()
  }

  /** More than the reader takes. */
  private refuse(): void {
    const { limit } = this
    this.abandon({
      description: `expected a body of at most ${limit} bytes, the response is larger`,
      cause: new ResponseTooLargeError({ limit })
    })
  }

  /** Abandons the body when the scope ends before the body did. */
  tieTo(scope: Scope.Scope): Effect.Effect<void> {
    const known = bodiesOf.get(scope)
    if (known !== undefined) {
      known.add(this)
      this.siblings = known
      return Effect.void
    }
    const bodies = new Set<Body>()
    const end = Effect.sync(() => {
      bodiesOf.delete(scope)
      const description = "expected the body to be read within the scope of its request, that scope has ended"
      for (const body of Array.from(bodies)) body.abandon({ description })
    })
    return Effect.map(Scope.addFinalizer(scope, end), () => {
      // Added when the finalizer is: a scope that had ended before has run it by now, and bodies are not bound to that.
      if (this.state !== "Open") return
      bodiesOf.set(scope, bodies)
      bodies.add(this)
      this.siblings = bodies
    })
  }

  /** Whether {@link collected} would succeed at once. */
  isCollected(limit: number): boolean {
    return this.state === "Ended" && !this.streamed && this.size <= limit
  }

  get isOpen(): boolean {
    return this.state === "Open"
  }

  isBeingRead(): boolean {
    return this.streamed || this.collecting > 0
  }

  private readOn(): void {
    if (!this.paused) return
    this.paused = false
    this.source?.resume()
  }

  /** The collected bytes; only after `collected` succeeded. */
  whole(): Uint8Array {
    return (this.bytes ??= this.assemble())
  }

  private assemble(): Uint8Array {
    const { chunks, size } = this
    const [first = empty] = chunks
    this.chunks = []
    this.isOwned = chunks.length > 1
    return chunks.length > 1 ? concat(chunks, size) : first
  }

  /** The collected bytes as a buffer of their own. It is handed out, not copied, where the body was put together here. */
  wholeBuffer(): ArrayBuffer {
    const bytes = this.whole()
    if (!this.isOwned) return new Uint8Array(bytes).buffer
    this.isHandedOut = this.size >= Body.highWaterMark
    return bytes.buffer as ArrayBuffer
  }

  /**
   * A reader has what it asked for. A large buffer that was handed out is the caller's then: this object has outlived the young
   * generation, and what it holds is freed by full collections only, which take twice as long as to receive it
   * (`npm run bench -- stream`).
   */
  wasRead(hasWaited: boolean): void {
    if (hasWaited) this.unread--
    if (!this.isHandedOut || this.unread > 0) return
    this.bytes = undefined
    this.broken = { description: "the body was handed out as a buffer to an earlier reader" }
    this.state = "Failed"
  }

  /** Succeeds when the whole body is here, of at most so many bytes. */
  collected(reader: Reader, limit: number): Effect.Effect<void, HttpClientError.ResponseError> {
    return Effect.suspend(() => {
      if (this.streamed) return reader.failure("the body was already read as a stream")
      switch (this.state) {
        case "Failed":
          return this.failure(reader)
        case "Ended":
          return this.size <= limit ? Effect.void : this.tooLarge(reader, limit)
        case "Open":
          return this.awaitEnd(reader, limit)
      }
    })
  }

  private failure(reader: Reader): Effect.Effect<never, HttpClientError.ResponseError> {
    return reader.failure(this.broken.description, this.broken.cause)
  }

  private tooLarge(reader: Reader, limit: number): Effect.Effect<never, HttpClientError.ResponseError> {
    const description = `expected a body of at most ${limit} bytes, the response is larger`
    return reader.failure(description, new ResponseTooLargeError({ limit }))
  }

  private awaitEnd(reader: Reader, limit: number): Effect.Effect<void, HttpClientError.ResponseError> {
    this.limit = this.collecting === 0 ? limit : Math.min(limit, this.limit)
    const length = reader.statedLength()
    if (Math.max(this.size, length ?? 0) > this.limit) {
      this.refuse()
      return this.failure(reader)
    }
    return Effect.async<void, HttpClientError.ResponseError>((resume) => {
      this.collecting++
      this.unread++
      const waiter = () => resume(this.collected(reader, limit))
      const waiters = (this.waiters ??= [])
      waiters.push(waiter)
      this.readOn()
      return Effect.sync(() => {
        this.collecting--
        this.unread--
        const at = this.waiters?.indexOf(waiter) ?? -1
        if (at >= 0) this.waiters?.splice(at, 1)
        if (this.collecting === 0) this.abandon()
      })
    })
  }

  /** Chunks as they come, to the end. A channel: what a stream of pulls makes for each chunk outlives the young generation. */
  private chunksOf(reader: Reader): Chunks {
    const more = async<void, never>((resume) => {
      this.reader = () => resume(Effect.void)
    })
    const next = (): Chunks => {
      if (this.chunks.length > 0) {
        const chunks = Chunk.unsafeFromArray(this.chunks)
        this.chunks = []
        this.size = 0
        this.readOn()
        return Channel.flatMap(Channel.write(chunks), next)
      }
      switch (this.state) {
        case "Ended":
          return Channel.void
        case "Failed":
          return Channel.fromEffect(this.failure(reader))
        case "Open":
          return Channel.flatMap(Channel.fromEffect(more), next)
      }
    }
    return next()
  }

  /** For one run: a stream that is begun anew asks anew. */
  stream(reader: Reader): Stream.Stream<Uint8Array, HttpClientError.ResponseError> {
    if (this.bytes !== undefined) return Stream.make(this.whole())
    if (this.collecting > 0 && this.state === "Open") {
      return Stream.fromEffect(reader.failure("the body is being read whole by another reader"))
    }
    if (this.streamed) return Stream.fromEffect(reader.failure("the body was already read as a stream"))
    this.streamed = true
    return Stream.ensuring(
      Stream.fromChannel(this.chunksOf(reader)),
      Effect.sync(() => this.abandon())
    )
  }
}

type Chunks = Channel.Channel<Chunk.Chunk<Uint8Array>, unknown, HttpClientError.ResponseError>
