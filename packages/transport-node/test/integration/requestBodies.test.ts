import * as HttpBody from "@effect/platform/HttpBody"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import { describe, expect } from "@effect/vitest"
import { Chunk, Deferred, Effect, Fiber, Queue, Stream, TestClock } from "effect"
import { answer, block, expectReusable, get, post, Shared, shared } from "./bodyServers.js"
import { execute } from "./execute.js"
import { failure, sharing } from "./fixture.js"
import { collectGarbage } from "./garbage.js"

const { scoped } = sharing(shared)

describe("a request given up", () => {
  scoped("while its response is awaited: aborted on the wire, handler and all, settled once", () =>
    Effect.gen(function* () {
      const { connect, interrupted, server } = yield* Shared
      const connection = yield* connect
      const settled = { count: 0 }
      const handled = server.handled()
      const fiber = yield* Effect.fork(execute(connection, HttpClientRequest.get("/never"), settled))
      yield* server.log.nth("RequestStarted", handled)
      yield* Fiber.interrupt(fiber)
      expect(settled.count).toBe(1)
      expect(connection.isUsable()).toBe(false)
      expect(yield* connection.ended).toBe("Aborted")
      expect(yield* Queue.take(interrupted)).toBe("/never")
      expect(settled.count).toBe(1)
    })
  )

  scoped("while its body is read: the connection ends, settled once", () =>
    Effect.gen(function* () {
      const { scripted } = yield* Shared
      const gone = yield* Deferred.make<void>()
      const connection = yield* scripted((socket) => {
        socket.on("close", () => Deferred.unsafeDone(gone, Effect.void))
        answer("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", "some of it")(socket, "")
      })
      const settled = { count: 0 }
      const response = yield* execute(connection, get, settled)
      expect(Chunk.size(yield* Stream.runCollect(Stream.take(response.stream, 1)))).toBe(1)
      expect(settled.count).toBe(1)
      expect(yield* connection.ended).toBe("Aborted")
      yield* Deferred.await(gone)
    })
  )

  scoped("while its body is collected: the connection ends, settled once", () =>
    Effect.gen(function* () {
      const { scripted } = yield* Shared
      const connection = yield* scripted(answer("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", "some of it"))
      const settled = { count: 0 }
      const response = yield* execute(connection, get, settled)
      const fiber = yield* Effect.fork(response.text)
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(fiber)
      expect(settled.count).toBe(1)
      expect(yield* connection.ended).toBe("Aborted")
    })
  )

  scoped("while its upload waits for more: the stream is interrupted, settled once", () =>
    Effect.gen(function* () {
      const { scripted } = yield* Shared
      const arrived = yield* Deferred.make<void>()
      const released = yield* Deferred.make<void>()
      const connection = yield* scripted(() => Deferred.unsafeDone(arrived, Effect.void))
      const settled = { count: 0 }
      const body = Stream.concat(Stream.make(block), Stream.never).pipe(
        Stream.ensuring(Deferred.succeed(released, undefined))
      )
      const fiber = yield* Effect.fork(execute(connection, post("/", HttpBody.stream(body)), settled))
      yield* Deferred.await(arrived)
      yield* Fiber.interrupt(fiber)
      expect(settled.count).toBe(1)
      yield* Deferred.await(released)
      expect(yield* connection.ended).toBe("Aborted")
    })
  )

  scoped("unread: the garbage collector gives the connection back", () =>
    Effect.gen(function* () {
      const { scripted } = yield* Shared
      const connection = yield* scripted(answer("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", "some of it"))
      const settled = { count: 0 }
      yield* Effect.asVoid(execute(connection, get, settled))
      expect(settled.count).toBe(0)
      yield* collectGarbage
      expect(yield* connection.ended).toBe("Aborted")
      expect(settled.count).toBe(1)
    })
  )

  scoped("with a small body that is there already: nothing is lost, the connection is free without a reader", () =>
    Effect.gen(function* () {
      const { connect } = yield* Shared
      const connection = yield* connect
      const settled = { count: 0 }
      const response = yield* execute(connection, get, settled)
      yield* TestClock.adjust("2 minutes")
      yield* expectReusable(connection)
      expect(settled.count).toBe(1)
      expect(yield* response.text).toBe("GET /")
    })
  )
})

describe("an upload", () => {
  scoped("whose stream fails is a RequestError with the cause; the connection ends", () =>
    Effect.gen(function* () {
      const { connect } = yield* Shared
      const connection = yield* connect
      const settled = { count: 0 }
      const cause = new Error("the disk is gone")
      const body = Stream.concat(Stream.make(block), Stream.fail(cause))
      const error = yield* failure(execute(connection, post("/digest", HttpBody.stream(body)), settled))
      expect(error).toMatchObject({ _tag: "RequestError", reason: "Encode", cause })
      expect(yield* connection.ended).toBe("Aborted")
      expect(settled.count).toBe(1)
    })
  )

  scoped("whose stream fails after the response began ends the response with a cause", () =>
    Effect.gen(function* () {
      const { scripted } = yield* Shared
      const connection = yield* scripted(answer("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", "some of it"))
      const fail = yield* Deferred.make<never, Error>()
      const body = Stream.concat(Stream.make(block), Stream.fromEffect(Deferred.await(fail)))
      const response = yield* execute(connection, post("/", HttpBody.stream(body)))
      const reading = yield* Effect.fork(response.text)
      yield* Deferred.fail(fail, new Error("the disk is gone"))
      expect(yield* failure(Fiber.join(reading))).toMatchObject({
        _tag: "ResponseError",
        cause: { _tag: "ConnectionError", reason: "Lost", outcome: "Unknown" }
      })
      expect(yield* connection.ended).toBe("Aborted")
    })
  )

  scoped("of another length than stated is refused: before a byte is sent, or with the connection", () =>
    Effect.gen(function* () {
      const { connect } = yield* Shared
      const connection = yield* connect
      const settled = { count: 0 }
      const stated = (body: HttpBody.HttpBody) =>
        HttpClientRequest.setHeader(post("/digest", body), "content-length", "10")
      const refused = { _tag: "RequestError", reason: "Encode" }
      const short = HttpBody.uint8Array(new Uint8Array(5))
      expect(yield* failure(execute(connection, stated(short), settled))).toMatchObject(refused)
      expect(settled.count).toBe(1)
      yield* expectReusable(connection)
      const shortStream = HttpBody.stream(Stream.make(new Uint8Array(5)))
      expect(yield* failure(execute(connection, stated(shortStream), settled))).toMatchObject(refused)
      expect(settled.count).toBe(2)
      yield* connection.ended
    })
  )

  scoped("that is answered early is given up; the response arrives, the connection ends", () =>
    Effect.gen(function* () {
      const { scripted } = yield* Shared
      const connection = yield* scripted(answer("HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nno\n"))
      const released = yield* Deferred.make<void>()
      const settled = { count: 0 }
      const body = Stream.concat(Stream.make(block), Stream.never).pipe(
        Stream.ensuring(Deferred.succeed(released, undefined))
      )
      const response = yield* execute(connection, post("/", HttpBody.stream(body)), settled)
      expect(response.status).toBe(413)
      expect(yield* response.text).toBe("no\n")
      yield* Deferred.await(released)
      yield* connection.ended
      expect(connection.isUsable()).toBe(false)
      expect(settled.count).toBe(1)
    })
  )

  scoped("with a header no request may have is refused; the connection is unharmed", () =>
    Effect.gen(function* () {
      const { connect } = yield* Shared
      const connection = yield* connect
      for (const [name, value] of [
        ["x-split", "a\r\nevil: yes"],
        ["transfer-encoding", "chunked"],
        ["expect", "100-continue"]
      ] as const) {
        const settled = { count: 0 }
        const request = HttpClientRequest.setHeader(get, name, value)
        expect(yield* failure(execute(connection, request, settled))).toMatchObject({
          _tag: "RequestError",
          reason: "Encode"
        })
        expect(settled.count).toBe(1)
      }
      yield* expectReusable(connection)
    })
  )
})
