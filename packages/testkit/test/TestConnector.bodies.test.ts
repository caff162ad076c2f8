import { HttpClientRequest, HttpServerResponse } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope, Stream, TestClock } from "effect"
import { settled } from "../../spiffe/test/support/settled.js"
import { setup, text } from "./billingNetwork.js"

describe("the bodies that a TestConnector carries", () => {
  it.scoped("carries status, headers, cookies and bodies, whole and streamed, both ways", () =>
    Effect.gen(function* () {
      const { channel, events, network, scope } = yield* setup((request) =>
        Effect.map(request.text, (body) =>
          HttpServerResponse.stream(Stream.make(body, "!").pipe(Stream.encodeText), { status: 201 }).pipe(
            HttpServerResponse.setHeader("x-seen", request.request.headers["x-sent"] ?? ""),
            HttpServerResponse.unsafeSetCookie("a", "1")
          )
        )
      )
      const response = yield* channel.post("/x", {
        headers: { "x-sent": "yes" },
        body: HttpClientRequest.bodyStream(HttpClientRequest.post(""), Stream.make("he", "llo").pipe(Stream.encodeText))
          .body
      })
      expect([response.status, response.headers["x-seen"]]).toEqual([201, "yes"])
      expect(response.cookies.cookies["a"]).toMatchObject({ value: "1" })
      expect(yield* response.text).toBe("hello!")
      yield* network.setHandler(() => Effect.succeed(HttpServerResponse.unsafeJson({ ok: true })))
      expect(yield* Effect.flatMap(channel.get("/json"), (json) => json.json)).toEqual({ ok: true })
      const head = yield* channel.head("/json")
      expect([head.headers["content-type"], yield* head.text]).toEqual(["application/json", ""])
      yield* Scope.close(scope, Exit.void)
      expect(events.at(-1)).toMatchObject({ requests: 3, bytesWritten: 5, bytesRead: 6 + 11 })
    })
  )

  it.scoped("makes the peer wait for a reader that is slow", () =>
    Effect.gen(function* () {
      let produced = 0
      const kilobyte = new Uint8Array(1024)
      const endless = Stream.repeatEffect(
        Effect.sync(() => {
          produced++
          return kilobyte
        })
      )
      const { channel, network } = yield* setup(() => Effect.succeed(HttpServerResponse.stream(endless)))
      const response = yield* channel.get("/endless")
      yield* settled
      // 64 KiB are taken ahead of the reader.
      expect(produced).toBeGreaterThan(60)
      expect(produced).toBeLessThan(80)
      const before = produced
      expect(yield* Stream.runCount(Stream.take(response.stream, 500))).toBe(500)
      expect(produced).toBeGreaterThan(before)
      expect(yield* network.connections).toMatchObject([{ closed: { reason: "Aborted" } }])
    })
  )

  it.scoped("times requests out on the test's clock, before the headers and within the body", () =>
    Effect.gen(function* () {
      const { channel, network } = yield* setup(() => Effect.never, { timeout: "30 seconds" })
      const silent = yield* Effect.fork(Effect.flip(channel.get("/")))
      yield* TestClock.adjust("30 seconds")
      expect(yield* Fiber.join(silent)).toMatchObject({ _tag: "TimeoutError", phase: "Headers", outcome: "Unknown" })
      yield* network.setHandler(() =>
        Effect.succeed(HttpServerResponse.stream(Stream.concat(Stream.make(new Uint8Array(3)), Stream.never)))
      )
      const response = yield* channel.get("/")
      const stuck = yield* Effect.fork(Effect.flip(response.arrayBuffer))
      yield* TestClock.adjust("30 seconds")
      expect((yield* Fiber.join(stuck)).cause).toMatchObject({ _tag: "TimeoutError", phase: "Body" })
      expect((yield* network.connections).map(({ closed }) => closed)).toEqual([
        { at: 30_000, reason: "Error" },
        { at: 60_000, reason: "Error" }
      ])
    })
  )

  it.scoped(
    "limits a response's body as a real connector does: in time, in size, and by the scope of its request",
    () =>
      Effect.gen(function* () {
        const large = HttpServerResponse.stream(Stream.repeatValue(new Uint8Array(32 * 1024)))
        const { channel } = yield* setup(({ path }) => Effect.succeed(path === "/v1/large" ? large : text("small")), {
          connections: 1,
          bodyTimeout: "20 seconds",
          maxResponseSize: 100_000
        })
        const small = Effect.flatMap(channel.get("/small"), (response) => response.text)
        expect(yield* Effect.flip(Effect.flatMap(channel.get("/large"), (response) => response.text))).toMatchObject({
          _tag: "ResponseError",
          cause: { _tag: "ResponseTooLargeError", limit: 100_000 }
        })
        yield* Effect.scoped(channel.get("/large"))
        expect(yield* small).toBe("small")
        const unread = yield* channel.get("/large")
        const next = yield* Effect.fork(small)
        yield* TestClock.adjust("20 seconds")
        expect(yield* Fiber.join(next)).toBe("small")
        expect(yield* Effect.flip(unread.text)).toMatchObject({
          _tag: "ResponseError",
          cause: { _tag: "TimeoutError", phase: "Read" }
        })
      })
  )

  it.scoped("does not give a body for whole that is not of its declared length, as a real server does not", () =>
    Effect.gen(function* () {
      const { channel, events } = yield* setup(({ path }) =>
        Effect.succeed(
          HttpServerResponse.stream(Stream.make(new Uint8Array(3), new Uint8Array(3)), {
            contentLength: Number(path.slice("/v1/".length))
          })
        )
      )
      const read = (declared: number) => Effect.flatMap(channel.get(`/${declared}`), (response) => response.arrayBuffer)
      for (const declared of [5, 7]) {
        expect(yield* Effect.flip(read(declared))).toMatchObject({ cause: { _tag: "ConnectionError", reason: "Lost" } })
      }
      expect((yield* read(6)).byteLength).toBe(6)
      expect(events.flatMap((event) => (event._tag === "RequestEnded" ? [event.error] : []))).toEqual([
        "ConnectionError",
        "ConnectionError",
        undefined
      ])
    })
  )
})
