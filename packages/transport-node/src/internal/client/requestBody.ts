import type { Readable } from "node:stream"
import type { HttpBody } from "@effect/platform/HttpBody"
import type { RuntimeFiber } from "effect/Fiber"
import { hasProperty, isIterable } from "effect/Predicate"
import type * as Stream from "effect/Stream"
import { FormData as UndiciFormData } from "undici"
import { RefusedBody } from "../errors.js"
import { UploadQueue } from "./uploadQueue.js"

type Piece = Uint8Array | string
type Body = Piece | AsyncIterable<Piece> | Readable | Blob | UndiciFormData | null

/** A body larger than this is written in slices of this size: one large write costs a copy of the whole. */
const sliceSize = 64 * 1024

async function* slices(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let offset = 0; offset < bytes.length; offset += sliceSize) yield bytes.subarray(offset, offset + sliceSize)
}

/** A body as undici takes it, and what ends the reading of it when the exchange is over first. */
export interface Upload {
  readonly body: Body
  readonly cancel: (() => void) | undefined
  /** Whether its next piece is asked for and not there yet; absent where all of it is. */
  readonly isWaiting: (() => boolean) | undefined
  /** The media type of the body, unless the request names one itself. */
  readonly contentType: string | undefined
  /** Why it cannot be sent. */
  readonly refusal: RefusedBody | undefined
}

const plain = (body: Body): Upload => ({
  body,
  cancel: undefined,
  isWaiting: undefined,
  contentType: undefined,
  refusal: undefined
})

const none = plain(null)

const refused = (seen: string): Upload => ({
  ...none,
  refusal: new RefusedBody(`expected a request body that can be read, ${seen}`)
})

/** undici (7.30) encodes its own class of forms only, and not the platform's. */
const form = (body: FormData): Upload => {
  const copy = new UndiciFormData()
  for (const [name, value] of body.entries()) {
    if (typeof value === "string") copy.append(name, value)
    else copy.append(name, value, value.name)
  }
  return plain(copy)
}

/** Not within undici's call for the first piece (7.30): it cannot have its client destroyed while it writes a request. */
const later =
  (onFailure: (cause: unknown) => void) =>
  (cause: unknown): void =>
    queueMicrotask(() => onFailure(cause))

/**
 * Pieces from an iterator. undici does not tell an iterable that its request is over (7.30), and one that waits for its next
 * piece would wait for ever: hence `cancel`. It takes an error of the iterator's for one of the connection: hence `onFailure`.
 */
const iterated = (begin: () => AsyncIterator<unknown> | Iterator<unknown>, fail: (cause: unknown) => void): Upload => {
  const onFailure = later(fail)
  let iterator: AsyncIterator<unknown> | Iterator<unknown> | undefined
  let isWaiting = false
  const next = async (): Promise<IteratorResult<Piece>> => {
    isWaiting = true
    try {
      iterator ??= begin()
      const result = await iterator.next()
      if (result.done === true) return { done: true, value: undefined }
      if (isPiece(result.value)) return { done: false, value: result.value }
      throw new TypeError(`expected pieces of a body as Uint8Array or string, got ${typeof result.value}`)
    } catch (cause) {
      onFailure(cause)
      throw cause
    } finally {
      isWaiting = false
    }
  }
  return {
    ...plain({ [Symbol.asyncIterator]: () => ({ next }) }),
    // An iterator that fails as it is given up has nobody left to tell.
    cancel: () => void Promise.resolve(iterator?.return?.()).catch(() => {}),
    isWaiting: () => isWaiting
  }
}

const isPiece = (value: unknown): value is Piece => typeof value === "string" || value instanceof Uint8Array

const streamed = (
  stream: Stream.Stream<Uint8Array, unknown>,
  fiber: RuntimeFiber<unknown, unknown>,
  onFailure: (cause: unknown) => void
): Upload => {
  const queue = new UploadQueue(stream, fiber, later(onFailure))
  return {
    ...plain({ [Symbol.asyncIterator]: () => ({ next: queue.next }) }),
    cancel: queue.cancel,
    isWaiting: () => queue.isWaiting
  }
}

const isReadable = (value: object): value is Readable =>
  hasProperty(value, "pipe") && typeof value.pipe === "function" && hasProperty(value, "on")

/** A Node stream: undici reads it, and destroys it when the exchange ends first. */
const readable = (body: Readable, onFailure: (cause: unknown) => void): Upload => {
  if (body.errored !== null) return refused(`it has failed: ${body.errored.message}`)
  if (body.readableEnded || body.destroyed) return refused("it has ended: a stream can be sent once")
  body.once("error", onFailure)
  return { ...plain(body), isWaiting: () => !body.readableEnded && body.readableLength === 0 && !body.isPaused() }
}

const isAsyncIterable = (value: object): value is AsyncIterable<unknown> => Symbol.asyncIterator in value

/** A value that the caller gave as it is. What none of these forms is, undici refuses before a byte is written. */
const raw = (body: unknown, onFailure: (cause: unknown) => void): Upload => {
  if (body === undefined || body === null) return none
  if (typeof body !== "object" || body instanceof Blob) return plain(body as Body)
  if (body instanceof FormData) return form(body)
  if (body instanceof URLSearchParams) {
    return { ...plain(body.toString()), contentType: "application/x-www-form-urlencoded;charset=UTF-8" }
  }
  if (body instanceof ArrayBuffer) return plain(new Uint8Array(body))
  if (ArrayBuffer.isView(body)) return plain(new Uint8Array(body.buffer, body.byteOffset, body.byteLength))
  if (isReadable(body)) return readable(body, onFailure)
  if (isAsyncIterable(body)) return iterated(() => body[Symbol.asyncIterator](), onFailure)
  if (isIterable(body)) return iterated(() => body[Symbol.iterator](), onFailure)
  return plain(body as Body)
}

/** The request's body as undici takes it. */
export const toUndici = (
  body: HttpBody,
  fiber: RuntimeFiber<unknown, unknown>,
  onFailure: (cause: unknown) => void
): Upload => {
  switch (body._tag) {
    case "Empty":
      return none
    case "Uint8Array":
      return plain(body.body.length > sliceSize ? slices(body.body) : body.body)
    case "Raw":
      return raw(body.body, onFailure)
    case "FormData":
      return form(body.formData)
    case "Stream":
      return streamed(body.stream, fiber, onFailure)
  }
}
