/** The last answer on a connection: to a request with others behind it, or to bytes that are no request. */
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Stream, TestClock } from "effect"
import { hostileClient, realTime, startServer } from "./fixture.js"

const setup = Effect.gen(function* () {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const open = yield* Deferred.make<void>()
  /** `/slow` is answered when `open` is, `/stream` begins its answer and reads the body, `/read` reads it first. */
  const app: HttpApp.Default<never, never> = Effect.gen(function* () {
    const { stream, text, url } = yield* HttpServerRequest.HttpServerRequest
    if (url === "/slow") yield* Deferred.await(open)
    if (url === "/stream") return HttpServerResponse.stream(Stream.concat(Stream.make(Buffer.from("begun")), stream))
    return HttpServerResponse.text(url === "/read" ? yield* text : "answer")
  }).pipe(Effect.orDie)
  const server = yield* startServer({
    identity: yield* authority.context({ path: "/server" }),
    authorize: authority.id("/client"),
    app
  })
  const credentials = yield* authority.issueRaw({ path: "/client" })
  return {
    open: Deferred.succeed(open, undefined),
    server,
    ask: (request: string, more: Parameters<typeof hostileClient>[2] = {}) =>
      hostileClient(server.port, credentials, { request, ...more })
  }
})

const host = "host: x\r\n"
const close = "connection: close\r\n"
const get = (path: string, fields = ""): string => `GET ${path} HTTP/1.1\r\n${host}${fields}\r\n`
const badBody = (path: string): string =>
  `POST ${path} HTTP/1.1\r\n${host}transfer-encoding: chunked\r\n\r\n4\r\nfour\r\nno size\r\n`

/** More than the buffers of both ends of a connection take. */
const flood = "x".repeat(8 * 1024 * 1024)

const statuses = (received: string): ReadonlyArray<string> => received.match(/HTTP\/1\.1 \d{3}/g) ?? []

describe("the last answer reaches a client that goes on sending", () => {
  const inputs: Record<string, readonly [request: string, answer: string]> = {
    "to a request with Connection: close": [get("/", close) + flood, "HTTP/1.1 200"],
    "to a request with Connection: close, and others behind it": [
      get("/", close) + get("/").repeat(100_000),
      "HTTP/1.1 200"
    ],
    "to bytes that are no request": [`@\r\n\r\n${flood}`, "HTTP/1.1 400"],
    "to a head that is too large": [get("/", `x: ${flood}\r\n`), "HTTP/1.1 431"],
    "to a body that cannot be read": [badBody("/read") + flood, "HTTP/1.1 400"],
    "to a request with two Hosts": [get("/", host) + flood, "HTTP/1.1 400"],
    "to a CONNECT": [`CONNECT x:1 HTTP/1.1\r\n${host}\r\n${flood}`, "HTTP/1.1 501"],
    "to an Upgrade that is not used": [get("/", "connection: upgrade\r\nupgrade: x\r\n") + flood, "HTTP/1.1 200"]
  }
  for (const [title, [request, answer]] of Object.entries(inputs)) {
    it.scoped(title, () =>
      Effect.gen(function* () {
        const { ask, server } = yield* setup
        const { code, received } = yield* ask(request)
        expect([statuses(received), code]).toEqual([[answer], undefined])
        expect(received).toMatch(/^HTTP\/1\.1 [^\r]*\r\n(?:.*\r\n)*connection: close\r\n/i)
        expect(yield* server.log.nth("ConnectionClosed")).toMatchObject({ reason: "PeerClosed" })
      })
    )
  }

  it.scoped("and the connection is cut two seconds later where the client does not end it", () =>
    Effect.gen(function* () {
      const { ask, server } = yield* setup
      const answered = yield* Deferred.make<void>()
      const attempt = yield* Effect.fork(
        ask("@\r\n\r\n", {
          onSecure: (socket) => {
            socket.allowHalfOpen = true
          },
          onData: () => Deferred.unsafeDone(answered, Effect.void)
        })
      )
      yield* Deferred.await(answered)
      yield* TestClock.adjust("1999 millis")
      expect(server.log.all("ConnectionClosed")).toEqual([])
      yield* TestClock.adjust("1 millis")
      yield* server.log.nth("ConnectionClosed")
      yield* Fiber.interrupt(attempt)
    })
  )
})

describe("a request in flight is answered as its handler says, and not with what is wrong behind it", () => {
  for (const [title, behind] of [
    ["bytes that are no request", "@\r\n\r\n"],
    ["a request behind Connection: close", get("/")],
    ["a head that is too large", get("/", `x: ${"y".repeat(20_000)}\r\n`)]
  ] as const) {
    it.scoped(title, () =>
      Effect.gen(function* () {
        const { ask, open, server } = yield* setup
        const sent = yield* Deferred.make<void>()
        const first = get("/slow", behind === get("/") ? close : "")
        const attempt = yield* Effect.fork(
          ask(first + behind, {
            onSecure: (socket) => socket.write("", () => Deferred.unsafeDone(sent, Effect.void))
          })
        )
        yield* Deferred.await(sent)
        yield* server.log.nth("RequestStarted")
        // By the time it has answered another client the server has read all there is of this one.
        yield* ask(get("/", close))
        yield* open
        const { received } = yield* Fiber.join(attempt)
        expect(statuses(received)).toEqual(["HTTP/1.1 200"])
        expect(received).toMatch(/answer$/)
        yield* server.log.nth("ConnectionClosed", 1)
        expect(server.log.all("RequestEnded").map(({ error, status }) => [status, error])).toEqual([
          [200, undefined],
          [200, undefined]
        ])
      })
    )
  }

  it.scoped("the body of the next request", () =>
    Effect.gen(function* () {
      const { ask, open, server } = yield* setup
      const attempt = yield* Effect.fork(ask(get("/slow") + badBody("/read")))
      yield* server.log.nth("RequestStarted", 1)
      yield* ask(get("/", close))
      yield* open
      expect(statuses((yield* Fiber.join(attempt)).received)).toEqual(["HTTP/1.1 200", "HTTP/1.1 400"])
      yield* server.log.nth("ConnectionClosed", 1)
      const ends = server.log
        .all("RequestEnded")
        .map(({ error, path, status }) => [path, status, error].join(" ").trim())
      expect(ends).toEqual(["/ 200", "/slow 200", "/read 400 Interrupted"])
    })
  )
})

describe("a body that cannot be read", () => {
  it.scoped("is answered with 400, and its handler is interrupted, on record", () =>
    Effect.gen(function* () {
      const { ask, server } = yield* setup
      expect(statuses((yield* ask(badBody("/read"))).received)).toEqual(["HTTP/1.1 400"])
      expect(yield* server.log.nth("RequestEnded")).toMatchObject({ status: 400, error: "Interrupted" })
    })
  )

  it.scoped("cuts an answer that has begun", () =>
    Effect.gen(function* () {
      const { ask, server } = yield* setup
      const [head, rest] = badBody("/stream").split("no size")
      let more = () => {}
      const { received } = yield* ask(head ?? "", {
        onSecure: (socket) => {
          more = () => socket.write(`no size${rest}`)
        },
        onData: () => more()
      })
      expect(statuses(received)).toEqual(["HTTP/1.1 200"])
      expect(received).not.toMatch(/\r\n0\r\n\r\n/)
      expect(yield* server.log.nth("RequestEnded")).toMatchObject({ status: 200, error: expect.anything() })
    })
  )
})
