/** Responses that a retry takes the place of, and nobody will read. */
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"

const drainBytes = 65_536
const drainMillis = 1_000

/**
 * Ends a response nobody will read, so that its connection is free for the next attempt. A short body is read to its end,
 * which keeps the connection alive; of a long or slow one the rest is dropped.
 */
export const release = (response: HttpClientResponse.HttpClientResponse, limit: number): Effect.Effect<void> =>
  response.stream.pipe(
    Stream.runFoldWhile(
      0,
      (bytes) => bytes < drainBytes,
      (bytes, chunk) => bytes + chunk.byteLength
    ),
    Effect.timeoutOption(Math.min(limit, drainMillis)),
    Effect.exit,
    Effect.asVoid
  )
