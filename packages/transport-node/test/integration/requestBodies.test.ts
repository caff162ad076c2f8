/** Bodies of requests that fail, or that cannot be sent: the caller's mistakes, and told as such. */
import { Readable } from "node:stream"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as HttpBody from "@effect/platform/HttpBody"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Stream } from "effect"
import { failure, hostileServer, realTime, startClient } from "./fixture.js"

const setup = Effect.gen(function* () {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const arrived = yield* Deferred.make<void>()
  const server = yield* hostileServer(yield* authority.issueRaw({ path: "/raw" }), {
    onRequest: (socket, bytes) => {
      Deferred.unsafeDone(arrived, Effect.void)
      if (bytes.includes("GET ")) socket.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    }
  })
  const client = yield* startClient(yield* authority.context({ path: "/client" }))
  const channel = yield* client.channel({
    port: server.port,
    peer: authority.id("/raw"),
    config: { connections: 1 }
  })
  const post = (body: unknown) => channel.post("/", { body: HttpBody.raw(body) })
  return { channel, server, post, arrived: Deferred.await(arrived) }
})

const cause = new Error("the disk is gone")

async function* failing() {
  yield new Uint8Array(10)
  throw cause
}

describe("a raw body that fails", () => {
  const bodies: ReadonlyArray<readonly [name: string, body: () => unknown, cause: unknown]> = [
    ["a Readable", () => Readable.from(failing()), cause],
    ["an async generator", () => failing(), cause],
    ["a web stream", () => Readable.toWeb(Readable.from(failing())), cause],
    [
      "an iterable of something else",
      () => [new Uint8Array(1), 7],
      new TypeError("expected pieces of a body as Uint8Array or string, got number")
    ],
    [
      "a web stream that somebody else reads",
      () => {
        const stream = new ReadableStream()
        stream.getReader()
        return stream
      },
      expect.objectContaining({ name: "TypeError" })
    ]
  ]
  for (const [name, body, cause] of bodies) {
    it.scoped(`is the request's mistake, with its cause: ${name}`, () =>
      Effect.gen(function* () {
        const { post } = yield* setup
        expect(yield* failure(post(body()))).toMatchObject({
          _tag: "RequestError",
          reason: "Encode",
          description: "expected a request body that can be read to its end, it failed",
          cause
        })
      })
    )
  }
})

describe("a body stream that fails", () => {
  it.scoped("at once is the request's mistake, with its cause", () =>
    Effect.gen(function* () {
      const { channel } = yield* setup
      for (const body of [Stream.fail(cause), Stream.die(cause)]) {
        expect(yield* failure(channel.post("/", { body: HttpBody.stream(body) }))).toMatchObject({
          _tag: "RequestError",
          reason: "Encode",
          cause
        })
      }
    })
  )
})

describe("a Readable that cannot be read any more", () => {
  const bodies: ReadonlyArray<readonly [name: string, body: Effect.Effect<Readable>, seen: string]> = [
    [
      "has been read",
      Effect.promise(async () => {
        const body = Readable.from(["once"])
        for await (const _ of body);
        return body
      }),
      "it has ended: a stream can be sent once"
    ],
    [
      "has been destroyed",
      Effect.sync(() => Readable.from(["never"]).destroy()),
      "it has ended: a stream can be sent once"
    ],
    [
      "has failed",
      Effect.sync(() => {
        const body = Readable.from(["never"])
        body.on("error", () => {})
        return body.destroy(cause)
      }),
      "it has failed: the disk is gone"
    ]
  ]
  for (const [name, body, seen] of bodies) {
    it.scoped(`is refused before anything is sent, and its connection is unharmed: ${name}`, () =>
      Effect.gen(function* () {
        const { channel, post, server } = yield* setup
        yield* channel.get("/")
        const before = server.bytes()
        expect(yield* failure(post(yield* body))).toMatchObject({
          _tag: "RequestError",
          reason: "Encode",
          description: `expected a request body that can be read, ${seen}`
        })
        expect(server.bytes()).toBe(before)
        yield* channel.get("/")
        expect(server.accepted()).toBe(1)
      })
    )
  }
})

describe("a raw body of a request that is given up", () => {
  it.scoped("is given up too: an iterable", () =>
    Effect.gen(function* () {
      const { arrived, post } = yield* setup
      const released = yield* Deferred.make<void>()
      let first = true
      const body = {
        [Symbol.asyncIterator]: () => ({
          // The second piece never comes.
          next: () => {
            if (!first) return new Promise<never>(() => {})
            first = false
            return Promise.resolve({ done: false, value: "first" })
          },
          return: () => {
            Deferred.unsafeDone(released, Effect.void)
            return Promise.resolve({ done: true, value: undefined })
          }
        })
      }
      const fiber = yield* Effect.fork(post(body))
      yield* arrived
      yield* Fiber.interrupt(fiber)
      yield* Deferred.await(released)
    })
  )

  it.scoped("is given up too: a Readable", () =>
    Effect.gen(function* () {
      const { arrived, post } = yield* setup
      const closed = yield* Deferred.make<void>()
      const body = new Readable({ read() {} })
      body.push("first")
      body.on("close", () => Deferred.unsafeDone(closed, Effect.void))
      const fiber = yield* Effect.fork(post(body))
      yield* arrived
      yield* Fiber.interrupt(fiber)
      yield* Deferred.await(closed)
    })
  )
})
