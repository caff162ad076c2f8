/** How long the body of a response holds on to its connection. */
import type { TLSSocket } from "node:tls"
import * as BodyTimeout from "@agentweave/transport/BodyTimeout"
import * as HttpBody from "@effect/platform/HttpBody"
import * as HttpClient from "@effect/platform/HttpClient"
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Deferred, Duration, Effect, Exit, Fiber, Option, Queue, Scope, Stream, TestClock } from "effect"
import { failure } from "./fixture.js"
import { head, mebibyte, setup } from "./responseServer.js"

/** Waits until the number has stood still for 200 turns of the event loop: no buffer takes more. */
const stopped = (count: () => number): Effect.Effect<void> =>
  Effect.async((resume) => {
    const look = (last: number, turns: number): void => {
      if (turns === 200) resume(Effect.void)
      else setImmediate(() => (count() === last ? look(last, turns + 1) : look(count(), 0)))
    }
    look(count(), 0)
  })

const tooLong = (phase: string, limit: Duration.Duration) => ({
  _tag: "ResponseError",
  cause: { _tag: "TimeoutError", phase, limit, isRetryable: phase !== "Read" }
})

describe("a body nobody has begun to read", () => {
  it.scoped("gives its connection back after bodyTimeout, without the garbage collector", () =>
    Effect.gen(function* () {
      const { channel, client, small } = yield* setup({ bodyTimeout: "20 seconds", timeout: "1 minute" })
      const response = yield* channel.get("/large")
      const next = yield* Effect.fork(small)
      yield* TestClock.adjust("19999 millis")
      expect(next.unsafePoll()).toBeNull()
      yield* TestClock.adjust("1 millis")
      expect(yield* Fiber.join(next)).toBe("small")
      expect(yield* client.log.nth("ConnectionClosed")).toMatchObject({ reason: "Aborted" })
      expect(yield* failure(response.text)).toMatchObject(tooLong("Read", Duration.seconds(20)))
    })
  )

  it.scoped("gives its connection back at once when the scope of its request ends", () =>
    Effect.gen(function* () {
      const { channel, small } = yield* setup()
      for (let round = 0; round < 3; round++) {
        const response = yield* Effect.scoped(channel.get("/large"))
        expect(yield* small).toBe("small")
        expect(yield* failure(response.text)).toMatchObject({
          _tag: "ResponseError",
          description: "expected the body to be read within the scope of its request, that scope has ended"
        })
      }
    })
  )

  it.scoped("gives its connection back at once when its fiber is interrupted with its scope", () =>
    Effect.gen(function* () {
      const { channel, small } = yield* setup()
      const holding = yield* Deferred.make<void>()
      const fiber = yield* channel.get("/large").pipe(
        Effect.tap(() => Deferred.succeed(holding, undefined)),
        Effect.zipRight(Effect.never),
        Effect.scoped,
        Effect.fork
      )
      yield* Deferred.await(holding)
      yield* Fiber.interrupt(fiber)
      expect(yield* small).toBe("small")
    })
  )

  it.scoped("gives its connection back at once to a client that HttpClient.withScope made", () =>
    Effect.gen(function* () {
      const { channel, small } = yield* setup()
      yield* Effect.scoped(HttpClient.withScope(channel).get("/large"))
      expect(yield* small).toBe("small")
    })
  )

  it.scoped("is not bound to a scope that had ended before its request was made", () =>
    Effect.gen(function* () {
      const { channel } = yield* setup()
      const scope = yield* Scope.make()
      yield* Scope.close(scope, Exit.void)
      const response = yield* Scope.extend(channel.get("/large"), scope)
      expect((yield* response.arrayBuffer).byteLength).toBe(mebibyte)
    })
  )
})

describe("a request that waits for a connection in vain", () => {
  it.scoped("is told that all connections of the channel are in use, and by what", () =>
    Effect.gen(function* () {
      const limits = { connections: 4, timeout: "10 seconds", bodyTimeout: "1 minute" } as const
      const { channel } = yield* setup(limits, (socket) => socket.write(head(10)))
      for (const path of ["/large", "/endless?secret=1", "/endless"]) yield* channel.get(path)
      yield* channel.post("/silent")
      const eleventh = yield* Effect.fork(channel.get("/small"))
      yield* Effect.yieldNow()
      yield* TestClock.adjust("9 seconds")
      expect(eleventh.unsafePoll()).toBeNull()
      yield* TestClock.adjust("1 seconds")
      const error = yield* failure(Fiber.join(eleventh))
      expect(error).toMatchObject({ _tag: "TimeoutError", phase: "Acquire", outcome: "NotSent" })
      const all =
        /^Acquire: expected a free connection within 10s, all 4 connections of the channel to spiffe:\S+ are in use: (.*);/
      expect(all.exec(error.message)?.[1]?.replaceAll(/https:..127.0.0.1:\d+/g, "")).toBe(
        "2 by GET /endless, 1 by GET /large, 1 by POST /silent"
      )
    })
  )
})

describe("a channel whose scope ends", () => {
  it.scoped("says so to whom still reads a response of it, or waits for one", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const asked = yield* Deferred.make<void>()
      const { channel } = yield* Scope.extend(
        setup({ connections: 2 }, () => Deferred.unsafeDone(asked, Effect.void)),
        scope
      )
      const response = yield* channel.get("/large")
      const waiting = yield* Effect.fork(channel.get("/silent"))
      yield* Deferred.await(asked)
      yield* Scope.close(scope, Exit.void)
      const why = "the scope of its channel has ended"
      expect((yield* failure(response.text)).message).toContain(why)
      expect((yield* failure(Fiber.join(waiting))).message).toContain(why)
    })
  )
})

describe("a body half read", () => {
  it.scoped("gives its connection back at once when the scope of its request ends", () =>
    Effect.gen(function* () {
      const { channel, small } = yield* setup()
      const outer = yield* Effect.scope
      const pull = yield* Effect.scoped(
        Effect.gen(function* () {
          const response = yield* channel.get("/large")
          const pull = yield* Scope.extend(Stream.toPull(response.stream), outer)
          expect(Chunk.isNonEmpty(yield* pull)).toBe(true)
          return pull
        })
      )
      expect(yield* small).toBe("small")
      expect(yield* failure(Effect.forever(pull))).toMatchObject(Option.some({ _tag: "ResponseError" }))
    })
  )

  const halfRead = Effect.fnUntraced(function* () {
    const { channel, sent, small } = yield* setup({ bodyTimeout: "20 seconds", timeout: "1 hour" })
    const response = yield* channel.get("/endless")
    const pull = yield* Stream.toPull(response.stream)
    yield* pull
    yield* stopped(sent)
    return { pull, small }
  })

  it.scoped("may pause longer than bodyTimeout", () =>
    Effect.gen(function* () {
      const { pull } = yield* halfRead()
      yield* TestClock.adjust("199 seconds")
      for (let more = 0; more < 100; more++) expect(Chunk.isNonEmpty(yield* pull)).toBe(true)
    })
  )

  it.scoped("gives its connection back after a pause of ten times bodyTimeout", () =>
    Effect.gen(function* () {
      const { pull, small } = yield* halfRead()
      yield* TestClock.adjust("200 seconds")
      expect(yield* small).toBe("small")
      expect(yield* failure(Effect.forever(pull))).toMatchObject(Option.some(tooLong("Read", Duration.seconds(200))))
    })
  )
})

describe("bodyTimeout", () => {
  const silent = (socket: TLSSocket) => {
    socket.write(
      "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n"
    )
  }

  it.scoped("is its own limit for a body, and that of the request comes before that of the channel", () =>
    Effect.gen(function* () {
      const { channel } = yield* setup({ timeout: "1 second", bodyTimeout: "1 minute", connections: 2 }, silent)
      const limits = [
        [channel.get("/silent"), Duration.minutes(1)],
        [BodyTimeout.withBodyTimeout(channel.get("/silent"), "5 minutes"), Duration.minutes(5)]
      ] as const
      for (const [request, limit] of limits) {
        const response = yield* request
        const reading = yield* Effect.fork(response.text)
        yield* Effect.yieldNow()
        yield* TestClock.adjust(Duration.subtract(limit, "1 millis"))
        expect(reading.unsafePoll()).toBeNull()
        yield* TestClock.adjust("1 millis")
        expect(yield* failure(Fiber.join(reading))).toMatchObject(tooLong("Body", limit))
      }
    })
  )

  it.scoped("can be switched off for a stream of events, which then may be silent for long", () =>
    Effect.gen(function* () {
      let peer: TLSSocket | undefined
      const { channel } = yield* setup({}, (socket) => {
        peer = socket
        silent(socket)
      })
      const response = yield* BodyTimeout.withBodyTimeout(channel.get("/silent"), Duration.infinity)
      const events = yield* Queue.unbounded<string>()
      yield* Effect.fork(
        Stream.runForEach(response.stream, (bytes) => Queue.offer(events, Buffer.from(bytes).toString()))
      )
      expect(yield* Queue.take(events)).toBe("first")
      yield* TestClock.adjust("1 hour")
      peer?.write("6\r\nsecond\r\n")
      expect(yield* Queue.take(events)).toBe("second")
    })
  )
})

describe("a request's own body that pauses", () => {
  it.scoped("is what a request out of time blames, not the peer", () =>
    Effect.gen(function* () {
      const { channel, client } = yield* setup({ timeout: "10 seconds" })
      const asked = yield* Deferred.make<void>()
      const body = Stream.concat(
        Stream.make(new Uint8Array(10)),
        Stream.fromEffect(Effect.zipRight(Deferred.succeed(asked, undefined), Effect.never))
      )
      const fiber = yield* Effect.fork(channel.post("/silent", { body: HttpBody.stream(body) }))
      yield* Deferred.await(asked)
      yield* TestClock.adjust("10 seconds")
      const error = yield* failure(Fiber.join(fiber))
      expect(error).toMatchObject({ _tag: "TimeoutError", phase: "RequestBody", isRetryable: false })
      expect(error.message).toMatch(
        /^RequestBody: expected the next piece of the request's body within 10s, its own stream/
      )
      expect(client.log.all("RequestEnded")).toMatchObject([{ error: "TimeoutError" }])
    })
  )

  it.scoped("is not blamed when it is the peer that does not read", () =>
    Effect.gen(function* () {
      const paused = yield* Deferred.make<void>()
      const { channel } = yield* setup({ timeout: "10 seconds" }, (socket) => {
        socket.pause()
        Deferred.unsafeDone(paused, Effect.void)
      })
      let pulled = 0
      const body = Stream.repeatEffect(
        Effect.sync(() => {
          pulled++
          return new Uint8Array(mebibyte)
        })
      )
      const fiber = yield* Effect.fork(channel.post("/silent", { body: HttpBody.stream(body) }))
      yield* Deferred.await(paused)
      yield* stopped(() => pulled)
      yield* TestClock.adjust("10 seconds")
      expect(yield* failure(Fiber.join(fiber))).toMatchObject({ _tag: "TimeoutError", phase: "Headers" })
    })
  )
})
