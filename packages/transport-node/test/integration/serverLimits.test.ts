/** Bodies of requests that are too large to be read as a whole, and bodies that a handler does not read to their end. */
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as FileSystem from "@effect/platform/FileSystem"
import * as HttpBody from "@effect/platform/HttpBody"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Option, Stream, TestClock } from "effect"
import { failure, hostileClient, realTime, type ServerOptions, startClient, startServer } from "./fixture.js"

type App = NonNullable<ServerOptions["app"]>

const setup = (options: Partial<ServerOptions>) =>
  Effect.gen(function* () {
    yield* realTime
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const identity = yield* authority.context({ path: "/server" })
    const server = yield* startServer({ identity, authorize: authority.id("/client"), ...options })
    const client = yield* startClient(yield* authority.context({ path: "/client" }))
    const channel = yield* client.channel({ port: server.port, peer: authority.id("/server") })
    const credentials = yield* authority.issueRaw({ path: "/client" })
    return {
      server,
      ask: (request: string, more: Parameters<typeof hostileClient>[2] = {}) =>
        hostileClient(server.port, credentials, { request, ...more }),
      post: (bytes: number) =>
        Effect.flatMap(channel.post("/", { body: HttpBody.uint8Array(new Uint8Array(bytes).fill(49)) }), (response) =>
          Effect.map(response.text, (text) => [response.status, text] as const)
        )
    }
  })

type Request = HttpServerRequest.HttpServerRequest

/** Reads the body and answers with its length. */
const reading = <E>(read: (request: Request) => Effect.Effect<{ readonly length: number }, E>): App =>
  Effect.map(Effect.orDie(Effect.flatMap(HttpServerRequest.HttpServerRequest, read)), ({ length }) =>
    HttpServerResponse.text(String(length))
  )

const bytesOf = Effect.map((buffer: ArrayBuffer) => new Uint8Array(buffer))

const streamed = reading((request) =>
  Stream.runFold(request.stream, { length: 0 }, ({ length }, chunk) => ({ length: length + chunk.length }))
)

describe("a request's body that is larger than maxRequestBodySize", () => {
  const readers: ReadonlyArray<readonly [name: string, app: App, answer: string]> = [
    ["text", reading(({ text }) => text), "1000"],
    ["arrayBuffer", reading(({ arrayBuffer }) => bytesOf(arrayBuffer)), "1000"],
    ["json", reading(({ json }) => Effect.map(json, String)), String("Infinity".length)],
    ["urlParamsBody", reading(({ urlParamsBody }) => urlParamsBody), "1"]
  ]
  for (const [name, app, answer] of readers) {
    it.scoped(`is answered with 413 where it is read as ${name}, and the client gets the answer`, () =>
      Effect.gen(function* () {
        const { post, server } = yield* setup({ app, maxRequestBodySize: 1000 })
        expect((yield* post(8 * 1024 * 1024))[0]).toBe(413)
        expect((yield* post(1001))[0]).toBe(413)
        expect(yield* post(1000)).toEqual([200, answer])
        yield* server.log.nth("RequestEnded", 2)
        expect(server.log.all("RequestEnded").map(({ error, status }) => [status, error])).toEqual([
          [413, undefined],
          [413, undefined],
          [200, undefined]
        ])
      })
    )
  }

  it.scoped("is one of more than 16 MiB where nothing else is said", () =>
    Effect.gen(function* () {
      const { post } = yield* setup({ app: reading(({ text }) => text) })
      const limit = 16 * 1024 * 1024
      expect(yield* post(limit)).toEqual([200, String(limit)])
      expect((yield* post(limit + 1))[0]).toBe(413)
    })
  )

  it.scoped("is answered as the handler says that handles its RequestError", () =>
    Effect.gen(function* () {
      const app = Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ text }) => text).pipe(
        Effect.map((text) => HttpServerResponse.text(text)),
        Effect.catchTag("RequestError", () => Effect.succeed(HttpServerResponse.text("too much", { status: 400 })))
      )
      const { post } = yield* setup({ app, maxRequestBodySize: 1000 })
      expect(yield* post(1001)).toEqual([400, "too much"])
    })
  )

  it.scoped("is read as a stream all the same", () =>
    Effect.gen(function* () {
      const { post } = yield* setup({ app: streamed, maxRequestBodySize: 1000 })
      expect(yield* post(8 * 1024 * 1024)).toEqual([200, String(8 * 1024 * 1024)])
    })
  )

  it.scoped("is read by an app with a limit of its own", () =>
    Effect.gen(function* () {
      const app = HttpServerRequest.withMaxBodySize(
        reading(({ text }) => text),
        Option.some(FileSystem.Size(2000))
      )
      const { post } = yield* setup({ app, maxRequestBodySize: 1000 })
      expect(yield* post(2000)).toEqual([200, "2000"])
      expect((yield* post(2001))[0]).toBe(413)
    })
  )

  it.scoped("is told from a body that cannot be read for another reason", () =>
    Effect.gen(function* () {
      const app = reading(({ json }) => Effect.map(json, String))
      const { ask } = yield* setup({ app, maxRequestBodySize: 1000 })
      const { received } = yield* ask("POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1\r\n\r\n{")
      expect(received).toMatch(/^HTTP\/1\.1 400 /)
    })
  )

  it.scoped("and never ends is read no longer than two seconds after the answer", () =>
    Effect.gen(function* () {
      const { ask, server } = yield* setup({ app: reading(({ text }) => text), maxRequestBodySize: 1000 })
      const head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\n"
      const answer = yield* Deferred.make<void>()
      // It does not end its side when the server has ended its own.
      const attempt = yield* Effect.fork(
        ask(head + "x".repeat(5000), {
          onSecure: (socket) => {
            socket.allowHalfOpen = true
          },
          onData: () => Deferred.unsafeDone(answer, Effect.void)
        })
      )
      yield* Deferred.await(answer)
      yield* server.log.nth("RequestEnded")
      yield* TestClock.adjust("1999 millis")
      expect(server.log.all("ConnectionClosed")).toEqual([])
      yield* TestClock.adjust("1 millis")
      expect(yield* server.log.nth("ConnectionClosed")).toMatchObject({ requests: 1 })
      yield* Fiber.interrupt(attempt)
    })
  )

  it.scoped("is answered with the connection's last response", () =>
    Effect.gen(function* () {
      const { ask } = yield* setup({ app: reading(({ text }) => text), maxRequestBodySize: 1000 })
      const head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\n"
      expect((yield* ask(head + "x".repeat(5000))).received).toMatch(
        /^HTTP\/1\.1 413 [^\r]*\r\n(?:.*\r\n)*connection: close\r\n/i
      )
    })
  )
})

describe("a body that its handler does not read to its end", () => {
  it.scoped("is discarded: the client gets the answer, and no request behind it is served", () =>
    Effect.gen(function* () {
      const app = reading((request) =>
        Effect.map(Stream.runCount(Stream.take(request.stream, 1)), (count) => ({ length: count }))
      )
      const { post, server } = yield* setup({ app })
      expect(yield* post(8 * 1024 * 1024)).toEqual([200, "1"])
      expect(yield* post(8 * 1024 * 1024)).toEqual([200, "1"])
      yield* server.log.nth("RequestEnded", 1)
      expect(server.log.all("RequestEnded").map(({ error }) => error)).toEqual([undefined, undefined])
    })
  )
})

describe("a client that takes its time", () => {
  it.scoped("with its first request is not waited for longer than keepAliveTimeout", () =>
    Effect.gen(function* () {
      const { ask, server } = yield* setup({ keepAliveTimeout: "20 seconds" })
      const silent = yield* Effect.fork(ask(""))
      yield* server.log.nth("ConnectionEstablished")
      yield* TestClock.adjust("19999 millis")
      expect(server.log.all("ConnectionClosed")).toEqual([])
      yield* TestClock.adjust("1 millis")
      expect((yield* Fiber.join(silent)).received).toBe("")
      expect(yield* server.log.nth("ConnectionClosed")).toMatchObject({ reason: "Idle", requests: 0 })
    })
  )

  it.scoped("after a request is not waited for longer than keepAliveTimeout", () =>
    Effect.gen(function* () {
      // Node keeps this limit, on its own clock, and the next two.
      const { ask, server } = yield* setup({ keepAliveTimeout: "20 millis" })
      const { received } = yield* ask("GET / HTTP/1.1\r\nhost: x\r\n\r\n")
      // Less than a second; Node would keep it open for five by default.
      expect(received).toMatch(/^HTTP\/1\.1 200 /)
      expect(received.toLowerCase()).toContain("\r\nkeep-alive: timeout=0\r\n")
      expect(yield* server.log.nth("ConnectionClosed")).toMatchObject({ reason: "Idle", requests: 1 })
    })
  )

  it.scoped("with the head of its request is answered with 408", () =>
    Effect.gen(function* () {
      const { ask, server } = yield* setup({ headersTimeout: "40 millis" })
      expect((yield* ask("GET / HTTP/1.1\r\nhost: x\r\n")).received).toMatch(/^HTTP\/1\.1 408 /)
      expect(yield* server.log.nth("ConnectionClosed")).toMatchObject({ reason: "PeerClosed", requests: 0 })
    })
  )

  it.scoped("with the body of its request: the handler is interrupted, and the request has its end on record", () =>
    Effect.gen(function* () {
      const { ask, server } = yield* setup({
        app: reading(({ text }) => text),
        headersTimeout: "40 millis",
        requestTimeout: "40 millis"
      })
      yield* ask("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf")
      expect(yield* server.log.nth("RequestEnded")).toMatchObject({ error: "Interrupted" })
    })
  )
})

it.scoped("options of a server that break a rule are refused with the field's name", () =>
  Effect.gen(function* () {
    const cases: ReadonlyArray<readonly [field: string, options: object]> = [
      ["maxRequestBodySize", { maxRequestBodySize: 0 }],
      ["maxRequestBodySize", { maxRequestBodySize: Number.NaN }],
      ["gracefulShutdownTimeout", { gracefulShutdownTimeout: "-5 seconds" }],
      ["keepAliveTimeout", { keepAliveTimeout: "soon" }],
      ["requestTimeout", { requestTimeout: "1 second" }],
      ["headersTimeout", { headersTimeout: 0 }],
      ["port", { port: -1 }],
      ["maxRequestBodySise", { maxRequestBodySise: 1 }]
    ]
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const identity = yield* authority.context({ path: "/server" })
    for (const [field, options] of cases) {
      const started = startServer({ identity, authorize: authority.id("/client"), ...options })
      expect(yield* failure(started)).toMatchObject({
        _tag: "InvalidConfigError",
        config: "NodeSecureServer",
        field
      })
    }
  })
)
