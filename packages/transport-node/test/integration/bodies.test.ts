import { createHash } from "node:crypto"
import type { TLSSocket } from "node:tls"
import * as HttpBody from "@effect/platform/HttpBody"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import { describe, expect } from "@effect/vitest"
import { Deferred, Effect, Fiber, Stream } from "effect"
import { block, expectReusable, get, large, pieces, post, Shared, shared, text } from "./bodyServers.js"
import { execute } from "./execute.js"
import type { Opened } from "./fixture.js"
import { sharing } from "./fixture.js"

const { scoped } = sharing(shared)

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")

/** Asks until the number has not grown for as long as twenty round trips on another connection take. */
const settledAt = Effect.fnUntraced(function* (other: Opened, count: () => number) {
  let last = -1
  for (let same = 0; same < 20; ) {
    yield* text(other, HttpClientRequest.get("/ping"))
    same = count() === last ? same + 1 : 0
    last = count()
  }
  return last
})

/** More than all buffers between two sockets of one machine hold. */
const endless = 48 * 1024 * 1024

describe("a body", () => {
  scoped("of 8 MiB arrives whole, up and down, in one piece and streamed; the connection lives on", () =>
    Effect.gen(function* () {
      const { connect, server } = yield* Shared
      const connection = yield* connect
      const digest = sha256(large)
      expect(yield* text(connection, post("/digest", HttpBody.uint8Array(large)))).toBe(digest)
      expect(yield* text(connection, post("/digest", HttpBody.stream(pieces(large, 30_000))))).toBe(digest)
      const whole = yield* Effect.flatMap(execute(connection, HttpClientRequest.get("/large")), (r) => r.arrayBuffer)
      expect(sha256(new Uint8Array(whole))).toBe(digest)
      const streamed = yield* execute(connection, HttpClientRequest.get("/stream"))
      const hash = yield* Stream.runFold(streamed.stream, createHash("sha256"), (sum, chunk) => sum.update(chunk))
      expect(hash.digest("hex")).toBe(digest)
      yield* expectReusable(connection)
      expect(server.log.all("ConnectionEstablished").length).toBe(1)
    })
  )

  scoped("that nobody reads yet makes the peer wait", () =>
    Effect.gen(function* () {
      const { connect, scripted } = yield* Shared
      let sent = 0
      const connection = yield* scripted((socket) => {
        socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${endless}\r\n\r\n`)
        const more = () => {
          while (sent < endless) {
            sent += block.length
            if (!socket.write(block)) return
          }
        }
        socket.on("drain", more)
        more()
      })
      const response = yield* execute(connection, get)
      const waiting = yield* settledAt(yield* connect, () => sent)
      expect(waiting).toBeLessThan(endless / 2)
      const received = yield* Stream.runFold(response.stream, 0, (sum, chunk) => sum + chunk.length)
      expect(received).toBe(endless)
      expect(connection.isUsable()).toBe(true)
    })
  )

  scoped("that the peer does not read makes its stream wait", () =>
    Effect.gen(function* () {
      const { connect, scripted } = yield* Shared
      let received = 0
      let pulled = 0
      const resume = yield* Deferred.make<TLSSocket>()
      const connection = yield* scripted((socket) => {
        socket.removeAllListeners("data")
        socket.pause()
        socket.on("data", (chunk: Buffer) => {
          received += chunk.length
          if (received >= endless) socket.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        })
        socket.pause()
        Deferred.unsafeDone(resume, Effect.succeed(socket))
      })
      const body = Stream.repeatEffect(
        Effect.sync(() => {
          pulled += block.length
          return block
        })
      ).pipe(Stream.take(endless / block.length + 1))
      const fiber = yield* Effect.fork(text(connection, post("/", HttpBody.stream(body))))
      const socket = yield* Deferred.await(resume)
      const waiting = yield* settledAt(yield* connect, () => pulled)
      expect(waiting).toBeLessThan(endless / 2)
      socket.resume()
      expect(yield* Fiber.join(fiber)).toBe("ok")
    })
  )

  scoped("of a form is sent as one", () =>
    Effect.gen(function* () {
      const { scripted } = yield* Shared
      let received = ""
      const connection = yield* scripted((socket, first) => {
        received = first
        const more = (chunk: string) => {
          received += chunk
          if (received.includes("--\r\n")) socket.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        }
        socket.on("data", (chunk: Buffer) => more(chunk.toString("latin1")))
        more("")
      })
      const form = new FormData()
      form.append("name", "value of it")
      yield* text(connection, post("/", HttpBody.formData(form)))
      expect(received).toContain('name="name"')
      expect(received).toContain("value of it")
      expect(received).toMatch(/content-type: multipart\/form-data; boundary=/i)
    })
  )
})
