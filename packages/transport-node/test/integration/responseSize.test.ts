/** How much of the body of a response is taken. */
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as IncomingMessage from "@effect/platform/HttpIncomingMessage"
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Effect, Fiber, Option, Stream } from "effect"
import { failure } from "./fixture.js"
import { head, large, mebibyte, setup } from "./responseServer.js"

describe("maxResponseSize", () => {
  const tooLarge = (limit: number) => ({
    _tag: "ResponseError",
    reason: "Decode",
    cause: { _tag: "ResponseTooLargeError", limit, isRetryable: false }
  })
  const readers: ReadonlyArray<
    readonly [name: string, read: (response: HttpClientResponse.HttpClientResponse) => Effect.Effect<unknown, unknown>]
  > = [
    ["text", (response) => response.text],
    ["json", (response) => response.json],
    ["arrayBuffer", (response) => response.arrayBuffer],
    ["urlParamsBody", (response) => response.urlParamsBody],
    ["formData", (response) => response.formData]
  ]
  for (const [name, read] of readers) {
    it.scoped(`ends what ${name} takes of a body without end, and the connection`, () =>
      Effect.gen(function* () {
        const { channel, client, small } = yield* setup({ maxResponseSize: 3 * mebibyte })
        const response = yield* channel.get("/endless")
        expect(yield* failure(read(response))).toMatchObject(tooLarge(3 * mebibyte))
        const closed = yield* client.log.nth("ConnectionClosed")
        expect(closed.reason).toBe("Aborted")
        expect(closed.bytesRead).toBeLessThan(8 * mebibyte)
        expect(yield* small).toBe("small")
      })
    )
  }

  it.scoped("is 64 MiB unless said otherwise", () =>
    Effect.gen(function* () {
      const { channel } = yield* setup()
      const response = yield* channel.get("/endless")
      expect(yield* failure(response.arrayBuffer)).toMatchObject(tooLarge(64 * mebibyte))
    })
  )

  it.scoped("refuses a body whose stated length is larger before it is received", () =>
    Effect.gen(function* () {
      const { channel, client } = yield* setup({ maxResponseSize: mebibyte }, (socket) =>
        socket.write(head(mebibyte + 1))
      )
      expect(yield* failure(Effect.flatMap(channel.get("/long"), (response) => response.text))).toMatchObject(
        tooLarge(mebibyte)
      )
      expect((yield* client.log.nth("ConnectionClosed")).bytesRead).toBeLessThan(10_000)
      expect((yield* Effect.flatMap(channel.get("/large"), (response) => response.arrayBuffer)).byteLength).toBe(
        mebibyte
      )
    })
  )

  it.scoped("holds for a small body that is there already, and leaves its connection in use", () =>
    Effect.gen(function* () {
      const { channel, server, small } = yield* setup({ maxResponseSize: 4 })
      expect(yield* failure(small)).toMatchObject(tooLarge(4))
      const read = Effect.flatMap(channel.get("/small"), (response) => response.text)
      expect(yield* read.pipe(IncomingMessage.withMaxBodySize(Option.some(5)))).toBe("small")
      expect(server.accepted()).toBe(1)
    })
  )

  it.scoped("does not hold for streams", () =>
    Effect.gen(function* () {
      const { channel } = yield* setup({ maxResponseSize: 1 })
      const response = yield* channel.get("/large")
      expect(yield* Stream.runFold(response.stream, 0, (sum, bytes) => sum + bytes.length)).toBe(mebibyte)
    })
  )
})

describe("the whole of a body", () => {
  it.scoped(
    "is one buffer, of just its bytes, for all who wait for it, and then theirs: it is not kept for others",
    () =>
      Effect.gen(function* () {
        const { channel, small } = yield* setup()
        const response = yield* channel.get("/large")
        const [first, second, text] = yield* Effect.all([response.arrayBuffer, response.arrayBuffer, response.text], {
          concurrency: 3
        })
        expect(first.byteLength).toBe(mebibyte)
        expect(second).toBe(first)
        expect(Buffer.from(first).equals(large)).toBe(true)
        expect(text.length).toBe(mebibyte)
        const handedOut = {
          _tag: "ResponseError",
          description: "the body was handed out as a buffer to an earlier reader"
        }
        expect(yield* failure(response.arrayBuffer)).toMatchObject(handedOut)
        expect(yield* failure(response.text)).toMatchObject(handedOut)
        expect(yield* failure(Stream.runDrain(response.stream))).toMatchObject(handedOut)
        expect(yield* small).toBe("small")
      })
  )

  it.scoped("is read as often as is asked for it, as text, and as a buffer where it is no larger than 64 KiB", () =>
    Effect.gen(function* () {
      const { channel } = yield* setup()
      const little = yield* channel.get("/small")
      expect((yield* little.arrayBuffer).byteLength).toBe(5)
      expect((yield* little.arrayBuffer).byteLength).toBe(5)
      expect(yield* little.text).toBe("small")
      const response = yield* channel.get("/large")
      expect((yield* response.text).length).toBe(mebibyte)
      expect((yield* response.text).length).toBe(mebibyte)
      const streamed = yield* Stream.runCollect(response.stream)
      expect(Buffer.concat(Chunk.toReadonlyArray(streamed)).equals(large)).toBe(true)
    })
  )

  it.scoped("is not taken by a stream in the middle of it", () =>
    Effect.gen(function* () {
      const { channel } = yield* setup()
      const response = yield* channel.get("/large")
      const whole = yield* Effect.fork(response.arrayBuffer)
      yield* Effect.yieldNow()
      expect(yield* failure(Stream.runDrain(response.stream))).toMatchObject({
        description: "the body is being read whole by another reader"
      })
      expect((yield* Fiber.join(whole)).byteLength).toBe(mebibyte)
    })
  )
})
