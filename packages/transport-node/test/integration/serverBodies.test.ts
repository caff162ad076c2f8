/** Responses whose body fails, and how both ends know. */
import { Readable } from "node:stream"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Queue, Stream } from "effect"
import { failure, hostileClient, realTime, type ServerOptions, startClient, startServer } from "./fixture.js"

class Broken extends Error {
  override readonly name = "Broken"
}

const row = (text: string): Uint8Array => new TextEncoder().encode(`${text}\n`)

const setup = (options: Pick<ServerOptions, "app" | "middleware">) =>
  Effect.gen(function* () {
    yield* realTime
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const identity = yield* authority.context({ path: "/server" })
    const server = yield* startServer({ identity, authorize: authority.id("/client"), ...options })
    const client = yield* startClient(yield* authority.context({ path: "/client" }))
    const channel = yield* client.channel({ port: server.port, peer: authority.id("/server") })
    const raw = (request: string) =>
      Effect.flatMap(authority.issueRaw({ path: "/client" }), (credentials) =>
        hostileClient(server.port, credentials, { request })
      )
    return { authority, channel, client, raw, server }
  })

const get = "GET / HTTP/1.1\r\nhost: x\r\n\r\n"

/** Two rows, and then what becomes of the third. */
const rows = <E>(third: Stream.Stream<Uint8Array, E>) => Stream.concat(Stream.make(row("one"), row("two")), third)

const late = Stream.fromEffect(Effect.as(Effect.yieldNow(), row("three")))

type App = NonNullable<ServerOptions["app"]>

/** Bodies that fail after they began, and the name of the error that the record holds. */
const failing: ReadonlyArray<readonly [title: string, app: App, error: string]> = [
  ["a stream that fails", HttpServerResponse.stream(rows(Stream.fail(new Broken()))), "Broken"],
  [
    "a stream that fails in a later turn",
    HttpServerResponse.stream(rows(Stream.drain(late).pipe(Stream.concat(Stream.fail(new Broken()))))),
    "Broken"
  ],
  ["a stream with a defect", HttpServerResponse.stream(rows(Stream.die(new Broken()))), "Broken"],
  ["a stream that is interrupted", HttpServerResponse.stream(rows(Stream.fromEffect(Effect.interrupt))), "Interrupted"],
  ["a stream of something that is no bytes", HttpServerResponse.stream(rows(Stream.make(3 as never))), "TypeError"],
  [
    "a stream shorter than its content-length",
    HttpServerResponse.stream(rows(Stream.empty), { contentLength: 12 }),
    "ResponseLengthError"
  ],
  [
    "a stream longer than its content-length",
    HttpServerResponse.stream(rows(late), { contentLength: 12 }),
    "ResponseLengthError"
  ],
  [
    "bytes shorter than their content-length",
    HttpServerResponse.raw("one", { contentLength: 12 }),
    "ResponseLengthError"
  ],
  [
    "bytes longer than their content-length",
    HttpServerResponse.raw("one", { contentLength: 2 }),
    "ResponseLengthError"
  ],
  [
    "a stream of Node that fails",
    Effect.sync(() =>
      HttpServerResponse.raw(
        Readable.from(
          (function* () {
            yield row("one")
            throw new Broken()
          })()
        )
      )
    ),
    "Broken"
  ],
  [
    "a stream of Node shorter than its content-length",
    Effect.sync(() => HttpServerResponse.raw(Readable.from([row("one")]), { contentLength: 12 })),
    "ResponseLengthError"
  ],
  [
    "a stream of Node longer than its content-length",
    Effect.sync(() => HttpServerResponse.raw(Readable.from([row("one"), row("two")]), { contentLength: 5 })),
    "ResponseLengthError"
  ],
  [
    "a stream put in place by a later handler of the response",
    Effect.as(
      HttpApp.appendPreResponseHandler((_, response) =>
        Effect.succeed(
          HttpServerResponse.setBody(response, HttpServerResponse.stream(rows(Stream.fail(new Broken()))).body)
        )
      ),
      HttpServerResponse.text("in one piece")
    ),
    "Broken"
  ],
  [
    "the stream of a response that the handler fails with",
    Effect.die(HttpServerResponse.stream(rows(Stream.fail(new Broken())))),
    "Broken"
  ]
]

describe("a response that fails after it began is not sent as if it were whole", () => {
  for (const [title, app, error] of failing) {
    it.scoped(`${title}: the client cannot read it to its end, and both records say that it failed`, () =>
      Effect.gen(function* () {
        const { channel, client, raw, server } = yield* setup({ app })
        const attempt = yield* raw(get)
        expect(attempt.received).not.toMatch(/0\r\n\r\n$/)
        const [head = "", body = ""] = attempt.received.split("\r\n\r\n")
        const declared = /content-length: (\d+)/i.exec(head)?.[1]
        if (declared !== undefined) expect(body.length).toBeLessThan(Number(declared))
        expect(yield* server.log.nth("RequestEnded")).toMatchObject({ status: 200, error })
        expect(yield* server.log.nth("ConnectionClosed")).toMatchObject({ reason: "Error" })

        const read = Effect.flatMap(channel.get("/"), (response) => response.text)
        yield* failure(read)
        expect(yield* client.log.nth("RequestEnded")).toMatchObject({ error: "ConnectionError" })
        // GET is idempotent, but a channel does not retry: each failure is one request.
        expect(yield* server.log.nth("RequestEnded", 1)).toMatchObject({ error })
        expect(server.log.all("RequestStarted")).toHaveLength(2)
      })
    )
  }

  it.scoped("what was written before is received", () =>
    Effect.gen(function* () {
      const { raw } = yield* setup({ app: HttpServerResponse.stream(rows(Stream.fail(new Broken()))) })
      expect((yield* raw(get)).received).toMatch(/^HTTP\/1\.1 200 OK\r\n[\s\S]*one\n[\s\S]*two\n\r\n$/)
    })
  )

  it.scoped("a stream that a middleware answers with, without asking the app", () =>
    Effect.gen(function* () {
      const { raw, server } = yield* setup({
        middleware: () => HttpServerResponse.stream(rows(Stream.fail(new Broken())))
      })
      expect((yield* raw(get)).received).toMatch(/two\n\r\n$/)
      expect(yield* server.log.nth("RequestEnded")).toMatchObject({ status: 200, error: "Broken" })
      expect(server.handled()).toBe(0)
    })
  )

  it.scoped("a pipelined response behind it is not sent in its place", () =>
    Effect.gen(function* () {
      const { raw, server } = yield* setup({
        app: HttpServerResponse.stream(rows(Stream.empty), { contentLength: 12 })
      })
      const { received } = yield* raw(get + get)
      expect(received.match(/HTTP\/1\.1/g)).toHaveLength(1)
      yield* server.log.nth("ConnectionClosed")
      expect(server.log.all("RequestEnded").map(({ error }) => error)).toEqual([
        "ResponseLengthError",
        "ResponseLengthError"
      ])
    })
  )
})

describe("a response that does not fail is whole", () => {
  const text = "one\ntwo\n"
  const whole: ReadonlyArray<readonly [title: string, app: App]> = [
    ["a stream", HttpServerResponse.stream(rows(Stream.empty))],
    ["a stream with its content-length", HttpServerResponse.stream(rows(Stream.empty), { contentLength: 8 })],
    ["text", HttpServerResponse.text(text)],
    ["raw text", HttpServerResponse.raw(text)],
    ["raw bytes", HttpServerResponse.raw(new TextEncoder().encode(text), { contentLength: 8 })],
    ["a stream of Node", Effect.sync(() => HttpServerResponse.raw(Readable.from([row("one"), row("two")])))],
    [
      "a stream of Node with its content-length",
      Effect.sync(() => HttpServerResponse.raw(Readable.from([row("one"), row("two")]), { contentLength: 8 }))
    ]
  ]
  for (const [title, app] of whole) {
    it.scoped(`${title}; the connection lives on, after a HEAD too`, () =>
      Effect.gen(function* () {
        const { channel, raw, server } = yield* setup({ app })
        const requests = [
          "HEAD / HTTP/1.1\r\nhost: x\r\n\r\n",
          get,
          get.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")
        ]
        const { received } = yield* raw(requests.join(""))
        expect(received.match(/HTTP\/1\.1 200/g)).toHaveLength(3)
        for (const _ of [1, 2]) {
          expect(yield* Effect.flatMap(channel.get("/"), (response) => response.text)).toBe(text)
        }
        yield* server.log.nth("RequestEnded", 4)
        expect(server.log.all("RequestEnded").map(({ error, status }) => [status, error])).toEqual(
          Array.from({ length: 5 }, () => [200, undefined])
        )
        expect(server.log.all("ConnectionEstablished")).toHaveLength(2)
      })
    )
  }

  it.scoped("a form, with its content-type", () =>
    Effect.gen(function* () {
      const form = new FormData()
      form.append("name", "value")
      const { channel } = yield* setup({ app: HttpServerResponse.formData(form) })
      const response = yield* channel.get("/")
      const contentType = response.headers["content-type"] ?? ""
      const received = yield* Effect.promise(async () => {
        const body = await Effect.runPromise(response.text)
        return new Response(body, { headers: { "content-type": contentType } }).formData()
      })
      expect(Array.from(received.entries())).toEqual([["name", "value"]])
    })
  )

  it.scoped("a raw body that cannot be sent is a 500, before anything is sent", () =>
    Effect.gen(function* () {
      const { channel, server } = yield* setup({ app: HttpServerResponse.raw({ rows: 3 }) })
      expect((yield* channel.get("/")).status).toBe(500)
      expect(yield* server.log.nth("RequestEnded")).toMatchObject({ status: 500 })
    })
  )
})

const large = new Uint8Array(32 * 1024 * 1024)

const largeForm = Effect.sync(() => {
  const form = new FormData()
  form.append("file", new Blob([large]))
  return HttpServerResponse.formData(form)
})

for (const [kind, response] of [
  ["bytes", Effect.succeed(HttpServerResponse.uint8Array(large))],
  ["a form", largeForm],
  ["a stream", Effect.succeed(HttpServerResponse.stream(Stream.forever(Stream.make(row("one")))))]
] as const) {
  it.scoped(
    `the scope of a handler closes when its client is gone before all of a large response of ${kind} is out`,
    () =>
      Effect.gen(function* () {
        const released = yield* Deferred.make<void>()
        const { authority, server } = yield* setup({
          app: Effect.zipRight(
            Effect.addFinalizer(() => Deferred.succeed(released, undefined)),
            response
          )
        })
        let leave = () => {}
        yield* hostileClient(server.port, yield* authority.issueRaw({ path: "/client" }), {
          request: get,
          onSecure: (socket) => {
            leave = () => socket.destroy()
          },
          onData: () => leave()
        })
        expect(yield* server.log.nth("RequestEnded")).toMatchObject({ status: 200, error: "Interrupted" })
        yield* Deferred.await(released)
      })
  )
}

it.scoped(
  "the scope of a handler closes when its client is gone before it answers, or before its turn to be sent",
  () =>
    Effect.gen(function* () {
      const released = yield* Queue.unbounded<string>()
      const answered = yield* Deferred.make<void>()
      const gone = yield* Deferred.make<void>()
      // A middleware is not interrupted when its client goes, so that it answers nobody.
      const app: App = Effect.gen(function* () {
        const { url } = yield* HttpServerRequest.HttpServerRequest
        yield* Effect.addFinalizer(() => Queue.offer(released, url))
        yield* url === "/first" ? Deferred.await(gone) : Deferred.succeed(answered, undefined)
        return HttpServerResponse.text(url)
      })
      const { authority, server } = yield* setup({ middleware: () => app })
      const credentials = yield* authority.issueRaw({ path: "/client" })
      const pipelined = get.replace("/ ", "/first ") + get.replace("/ ", "/second ")
      const client = yield* Effect.fork(hostileClient(server.port, credentials, { request: pipelined }))
      yield* Deferred.await(answered)
      yield* Fiber.interrupt(client)
      expect(yield* Queue.take(released)).toBe("/second")
      yield* Deferred.succeed(gone, undefined)
      expect(yield* Queue.take(released)).toBe("/first")
    })
)
