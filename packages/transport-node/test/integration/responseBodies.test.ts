import type { Socket } from "node:net"
import type { TLSSocket } from "node:tls"
import * as HttpBody from "@effect/platform/HttpBody"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import { describe, expect } from "@effect/vitest"
import { Deferred, Effect, Fiber, Queue, Stream, TestClock } from "effect"
import { answer, expectReusable, get, post, type Script, Shared, shared, text } from "./bodyServers.js"
import { execute } from "./execute.js"
import { failure, sharing } from "./fixture.js"

const { scoped } = sharing(shared)

/** Resets the TCP connection below, as a network does. */
const resetBelow = (socket: TLSSocket | undefined): void => {
  ;(socket as unknown as { readonly _parent: Socket } | undefined)?._parent.resetAndDestroy()
}

describe("a response", () => {
  scoped("without a body leaves the connection usable: 204, 304; to HEAD it is the last of its connection", () =>
    Effect.gen(function* () {
      const { connect } = yield* Shared
      const connection = yield* connect
      for (const [request, status] of [
        [HttpClientRequest.get("/empty"), 204],
        [HttpClientRequest.get("/unchanged"), 304]
      ] as const) {
        const settled = { count: 0 }
        const response = yield* execute(connection, request, settled)
        expect(response.status).toBe(status)
        expect(yield* response.text).toBe("")
        expect(settled.count).toBe(1)
        yield* expectReusable(connection)
      }
      const response = yield* execute(connection, HttpClientRequest.head("/"))
      expect(response.status).toBe(200)
      expect(yield* response.text).toBe("")
      expect(yield* connection.ended).toBe("PeerClosed")
    })
  )

  scoped("that nobody asked for ends the connection", () =>
    Effect.gen(function* () {
      const { scripted } = yield* Shared
      const response = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"
      const connection = yield* scripted(answer(`${response}mine${response}evil`))
      expect(yield* text(connection, get)).toBe("mine")
      expect(yield* connection.ended).toBe("Error")
      expect(connection.isUsable()).toBe(false)
    })
  )

  scoped("after informational ones, in chunks, with trailers and two cookies", () =>
    Effect.gen(function* () {
      const { scripted, connect } = yield* Shared
      const connection = yield* scripted(
        answer(
          "HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n",
          "HTTP/1.1 102 Processing\r\n\r\n",
          "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\ntransfer-encoding: chunked\r\n\r\n",
          "4\r\nfour\r\n",
          "3;extension=yes\r\nend\r\n0\r\nx-trailer: yes\r\n\r\n"
        )
      )
      const settled = { count: 0 }
      const response = yield* execute(connection, get, settled)
      expect(response.status).toBe(200)
      expect(yield* response.text).toBe("fourend")
      expect(response.headers["set-cookie"]).toBe("a=1, b=2")
      expect(settled.count).toBe(1)
      expect(connection.isUsable()).toBe(true)
      expect((yield* execute(connection, get)).status).toBe(200)
      const cookies = yield* execute(yield* connect, HttpClientRequest.get("/cookies"))
      expect(cookies.cookies.toJSON()).toMatchObject({ cookies: { a: { value: "1" }, b: { value: "2" } } })
    })
  )

  scoped("with connection: close is whole, and the last", () =>
    Effect.gen(function* () {
      const { scripted } = yield* Shared
      const connection = yield* scripted(
        answer("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nlast")
      )
      expect(yield* text(connection, get)).toBe("last")
      expect(connection.isUsable()).toBe(false)
      expect(yield* connection.ended).toBe("PeerClosed")
    })
  )

  scoped("that ends with the connection is whole after its end", () =>
    Effect.gen(function* () {
      const { scripted } = yield* Shared
      const connection = yield* scripted((socket) => socket.end("HTTP/1.1 200 OK\r\n\r\nall there is"))
      expect(yield* text(connection, get)).toBe("all there is")
      expect(yield* connection.ended).toBe("PeerClosed")
    })
  )

  const lost: ReadonlyArray<readonly [name: string, script: Script]> = [
    ["ends before its length", (socket) => socket.end("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")],
    [
      "ends before its length, connection: close",
      (socket) => socket.end("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 100\r\n\r\nhalf")
    ],
    [
      "ends before its last chunk",
      (socket) => socket.end("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    ],
    [
      "ends before its last chunk, connection: close",
      (socket) => socket.end("HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    ]
  ]
  for (const [name, script] of lost) {
    scoped(`that ${name} is lost`, () =>
      Effect.gen(function* () {
        const { scripted } = yield* Shared
        const connection = yield* scripted(script)
        const settled = { count: 0 }
        const response = yield* execute(connection, get, settled)
        expect(yield* failure(response.text)).toMatchObject({
          _tag: "ResponseError",
          cause: { _tag: "ConnectionError", reason: "Lost", outcome: "Unknown", isRetryable: true }
        })
        yield* connection.ended
        expect(settled.count).toBe(1)
      })
    )
  }

  scoped("that ends with a reset is lost, also where only its end could tell that it was whole", () =>
    Effect.gen(function* () {
      const { scripted } = yield* Shared
      for (const head of ["content-length: 100\r\n", "connection: close\r\n"]) {
        let peer: TLSSocket | undefined
        const connection = yield* scripted((socket) => {
          peer = socket
          socket.write(`HTTP/1.1 200 OK\r\n${head}\r\nhalf`)
        })
        const response = yield* execute(connection, get)
        const reading = yield* Effect.fork(response.text)
        yield* Effect.yieldNow()
        resetBelow(peer)
        expect(yield* failure(Fiber.join(reading))).toMatchObject({
          _tag: "ResponseError",
          cause: { _tag: "ConnectionError", reason: "Lost", outcome: "Unknown" }
        })
        expect(yield* connection.ended).toBe("Error")
      }
    })
  )

  scoped("that never comes because the connection ends: closed, with an unknown outcome", () =>
    Effect.gen(function* () {
      const { scripted } = yield* Shared
      for (const script of [(socket: TLSSocket) => socket.end(), resetBelow]) {
        const connection = yield* scripted(script)
        const settled = { count: 0 }
        expect(yield* failure(execute(connection, get, settled))).toMatchObject({
          _tag: "ConnectionError",
          // The second where a connection to the same peer was closed like this before.
          reason: expect.stringMatching(/^(Closed|MaybeRefused)$/),
          outcome: "Unknown"
        })
        expect(settled.count).toBe(1)
        yield* connection.ended
      }
    })
  )

  const malformed: ReadonlyArray<readonly [name: string, bytes: string]> = [
    ["no HTTP", "what is this?\r\n\r\n"],
    ["another version of HTTP", "HTTP/3.7 200 OK\r\ncontent-length: 0\r\n\r\n"],
    ["a header without a name", "HTTP/1.1 200 OK\r\n: nothing\r\n\r\n"],
    ["two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nfour"],
    ["a length and chunks", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"],
    ["too much of headers", `HTTP/1.1 200 OK\r\nx-large: ${"x".repeat(20_000)}\r\n\r\n`]
  ]
  for (const [name, bytes] of malformed) {
    scoped(`that is malformed is refused: ${name}`, () =>
      Effect.gen(function* () {
        const { scripted } = yield* Shared
        const connection = yield* scripted(answer(bytes))
        const settled = { count: 0 }
        expect(yield* failure(execute(connection, get, settled))).toMatchObject({
          _tag: "ConnectionError",
          reason: "Malformed",
          outcome: "Unknown",
          isRetryable: false
        })
        expect(yield* connection.ended).toBe("Error")
        expect(settled.count).toBe(1)
      })
    )
  }

  scoped("whose chunks are malformed breaks off as such", () =>
    Effect.gen(function* () {
      const { scripted } = yield* Shared
      const connection = yield* scripted(
        answer("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "4\r\nfour\r\n", "not a length\r\n")
      )
      const response = yield* execute(connection, get)
      expect(yield* failure(response.text)).toMatchObject({
        _tag: "ResponseError",
        cause: { _tag: "ConnectionError", reason: "Malformed" }
      })
      expect(yield* connection.ended).toBe("Error")
    })
  )

  scoped("with large headers, and a request with such, within the limits", () =>
    Effect.gen(function* () {
      const { connect, scripted } = yield* Shared
      const value = "x".repeat(12_000)
      const connection = yield* scripted(answer(`HTTP/1.1 200 OK\r\nx-large: ${value}\r\ncontent-length: 0\r\n\r\n`))
      expect((yield* execute(connection, get)).headers["x-large"]).toBe(value)
      const ours = yield* connect
      expect((yield* execute(ours, HttpClientRequest.setHeader(get, "x-large", value))).status).toBe(200)
      const tooLarge = yield* execute(ours, HttpClientRequest.setHeader(get, "x-large", "x".repeat(20_000)))
      expect(tooLarge.status).toBe(431)
      expect(yield* ours.ended).toBe("PeerClosed")
    })
  )
})

describe("time without progress", () => {
  const config = { timeout: "10 seconds" } as const
  const timedOut = (phase: string) => ({ _tag: "TimeoutError", phase, outcome: "Unknown", isRetryable: true })

  scoped("before the response: TimeoutError Headers, the connection ends", () =>
    Effect.gen(function* () {
      const { scripted } = yield* Shared
      const asked = yield* Deferred.make<void>()
      const connection = yield* scripted(() => Deferred.unsafeDone(asked, Effect.void), config)
      const settled = { count: 0 }
      const fiber = yield* Effect.fork(execute(connection, get, settled))
      yield* Deferred.await(asked)
      yield* TestClock.adjust("9999 millis")
      expect(fiber.unsafePoll()).toBeNull()
      yield* TestClock.adjust("1 millis")
      expect(yield* failure(Fiber.join(fiber))).toMatchObject(timedOut("Headers"))
      expect(yield* connection.ended).toBe("Aborted")
      expect(settled.count).toBe(1)
    })
  )

  scoped("within the body: TimeoutError Body, after the last piece", () =>
    Effect.gen(function* () {
      const { scripted } = yield* Shared
      let peer: TLSSocket | undefined
      const connection = yield* scripted((socket) => {
        peer = socket
        socket.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nfirst")
      }, config)
      const settled = { count: 0 }
      const response = yield* execute(connection, get, settled)
      const arrived = yield* Queue.unbounded<string>()
      const reading = yield* Effect.fork(
        Stream.runForEach(response.stream, (chunk) => Queue.offer(arrived, Buffer.from(chunk).toString()))
      )
      expect(yield* Queue.take(arrived)).toBe("first")
      yield* TestClock.adjust("9 seconds")
      peer?.write("second")
      expect(yield* Queue.take(arrived)).toBe("second")
      yield* TestClock.adjust("9999 millis")
      expect(reading.unsafePoll()).toBeNull()
      yield* TestClock.adjust("1 millis")
      expect(yield* failure(Fiber.join(reading))).toMatchObject({
        _tag: "ResponseError",
        cause: timedOut("Body")
      })
      expect(yield* connection.ended).toBe("Aborted")
      expect(settled.count).toBe(1)
    })
  )

  scoped("is not what a long upload is, as long as it moves", () =>
    Effect.gen(function* () {
      const { scripted } = yield* Shared
      const arrived = yield* Queue.unbounded<string>()
      const connection = yield* scripted((socket) => {
        socket.on("data", (chunk: Buffer) => {
          const piece = chunk.toString("latin1")
          if (piece.includes("\r\n0\r\n")) socket.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
          Queue.unsafeOffer(arrived, piece)
        })
      }, config)
      const source = yield* Queue.unbounded<Uint8Array>()
      const upload = HttpBody.stream(Stream.take(Stream.fromQueue(source, { maxChunkSize: 1 }), 5))
      const fiber = yield* Effect.fork(execute(connection, post("/", upload)))
      for (let piece = 0; piece < 5; piece++) {
        yield* Queue.offer(source, new Uint8Array([65 + piece]))
        if (piece > 0) yield* Queue.take(arrived)
        yield* TestClock.adjust("9 seconds")
      }
      expect((yield* Fiber.join(fiber)).status).toBe(200)
    })
  )
})
