import type { HttpBody } from "@effect/platform/HttpBody"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type { RuntimeFiber } from "effect/Fiber"
import * as Runtime from "effect/Runtime"
import * as Stream from "effect/Stream"
import type { FormData } from "undici"

type Body = Uint8Array | AsyncIterable<Uint8Array> | FormData | string | null

/** A body larger than this is written in slices of this size: one large write costs a copy of the whole. */
const sliceSize = 64 * 1024

async function* slices(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let offset = 0; offset < bytes.length; offset += sliceSize) yield bytes.subarray(offset, offset + sliceSize)
}

/** Runs a body stream in the fiber's context, one pull a chunk that the socket has room for. */
async function* streamed(
  stream: Stream.Stream<Uint8Array, unknown>,
  fiber: RuntimeFiber<unknown, unknown>,
  onFailure: (cause: unknown) => void
): AsyncGenerator<Uint8Array> {
  const runtime = Runtime.make({
    context: fiber.currentContext,
    fiberRefs: fiber.getFiberRefs(),
    runtimeFlags: Runtime.defaultRuntimeFlags
  })
  const observed = Stream.tapErrorCause(stream, (cause) => Effect.sync(() => onFailure(Cause.squash(cause))))
  yield* Stream.toAsyncIterableRuntime(observed, runtime)
}

/** The request's body as undici takes it. */
export const toUndici = (
  body: HttpBody,
  fiber: RuntimeFiber<unknown, unknown>,
  onFailure: (cause: unknown) => void
): Body => {
  switch (body._tag) {
    case "Empty":
      return null
    case "Uint8Array":
      return body.body.length > sliceSize ? slices(body.body) : body.body
    case "Raw":
      return body.body as Body
    case "FormData":
      return body.formData as unknown as FormData
    case "Stream":
      return streamed(body.stream, fiber, onFailure)
  }
}
