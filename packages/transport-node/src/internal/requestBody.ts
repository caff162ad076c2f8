import type { HttpBody } from "@effect/platform/HttpBody"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type { RuntimeFiber } from "effect/Fiber"
import * as Runtime from "effect/Runtime"
import * as Stream from "effect/Stream"

type Body = Uint8Array | AsyncIterable<Uint8Array> | string | null

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
  /** Where only the encoding of the body says it. */
  readonly contentType: string | undefined
}

const plain = (body: Body): Upload => ({ body, cancel: undefined, isWaiting: undefined, contentType: undefined })

/** undici (7.30) knows its own forms only, and not the platform's: a form is encoded by the platform itself. */
const encoded = (form: FormData): Upload => {
  const { body, headers } = new Response(form)
  return { body, cancel: undefined, isWaiting: undefined, contentType: headers.get("content-type") ?? undefined }
}

/**
 * Runs a body stream in the fiber's context, one pull a chunk that the socket has room for. undici does not tell an
 * iterable that its request is over (7.30), and a stream that waits for its next chunk would wait for ever: hence `cancel`.
 */
const streamed = (
  stream: Stream.Stream<Uint8Array, unknown>,
  fiber: RuntimeFiber<unknown, unknown>,
  onFailure: (cause: unknown) => void
): Upload => {
  const runtime = Runtime.make({
    context: fiber.currentContext,
    fiberRefs: fiber.getFiberRefs(),
    runtimeFlags: Runtime.defaultRuntimeFlags
  })
  const observed = Stream.tapErrorCause(stream, (cause) => Effect.sync(() => onFailure(Cause.squash(cause))))
  const iterator = Stream.toAsyncIterableRuntime(observed, runtime)[Symbol.asyncIterator]()
  let isWaiting = false
  const next = async (): Promise<IteratorResult<Uint8Array>> => {
    isWaiting = true
    const result = await iterator.next()
    isWaiting = false
    return result
  }
  return {
    body: { [Symbol.asyncIterator]: () => ({ next }) },
    cancel: () => void iterator.return?.(),
    isWaiting: () => isWaiting,
    contentType: undefined
  }
}

/** The request's body as undici takes it. */
export const toUndici = (
  body: HttpBody,
  fiber: RuntimeFiber<unknown, unknown>,
  onFailure: (cause: unknown) => void
): Upload => {
  switch (body._tag) {
    case "Empty":
      return plain(null)
    case "Uint8Array":
      return plain(body.body.length > sliceSize ? slices(body.body) : body.body)
    case "Raw":
      return plain(body.body as Body)
    case "FormData":
      return encoded(body.formData)
    case "Stream":
      return streamed(body.stream, fiber, onFailure)
  }
}
