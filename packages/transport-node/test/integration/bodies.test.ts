import { createHash } from "node:crypto"
import type { Socket } from "node:net"
import type { TLSSocket } from "node:tls"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import type * as TransportConfig from "@agentweave/transport/TransportConfig"
import * as HttpBody from "@effect/platform/HttpBody"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { describe, expect } from "@effect/vitest"
import { Chunk, Context, Deferred, Effect, Fiber, Layer, Option, Queue, type Scope, Stream, TestClock } from "effect"
import { execute, type Settled } from "./execute.js"
import {
  failure,
  hostileServer,
  type Opened,
  type RunningServer,
  realTime,
  sharing,
  startClient,
  startServer
} from "./fixture.js"
import { collectGarbage } from "./garbage.js"

/** What a raw server does with the first bytes of a request for some path. */
type Script = (socket: TLSSocket, text: string) => void

/** One client, one secure server and one raw server for all tests; every test has connections of its own. */
class Shared extends Context.Tag("Shared")<
  Shared,
  {
    readonly server: RunningServer
    /** A connection to the secure server. */
    readonly connect: Effect.Effect<Opened, unknown, Scope.Scope>
    /** A connection to the raw server, which follows the script. */
    readonly scripted: (script: Script, config?: TransportConfig.Options) => Effect.Effect<Opened, unknown, Scope.Scope>
    /** Told by handlers of the secure server that were interrupted. */
    readonly interrupted: Queue.Queue<string>
  }
>() {}

/** Resets the TCP connection below, as a network does. */
const resetBelow = (socket: TLSSocket | undefined): void => {
  ;(socket as unknown as { readonly _parent: Socket } | undefined)?._parent.resetAndDestroy()
}

const megabytes = (count: number): Uint8Array => {
  const bytes = new Uint8Array(count * 1024 * 1024)
  for (let index = 0; index < bytes.length; index++) bytes[index] = (index * 31 + (index >> 12)) & 255
  return bytes
}
const large = megabytes(8)
const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")
const pieces = (bytes: Uint8Array, size: number): Stream.Stream<Uint8Array> =>
  Stream.unfold(0, (offset) =>
    offset >= bytes.length
      ? Option.none()
      : Option.some([bytes.subarray(offset, offset + size), offset + size] as const)
  )

const shared = Layer.scoped(
  Shared,
  Effect.gen(function* () {
    yield* realTime
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const interrupted = yield* Queue.unbounded<string>()
    const server = yield* startServer({
      identity: yield* authority.context({ path: "/server", ttl: "10 days" }),
      authorize: authority.id("/client"),
      app: Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
        switch (request.url) {
          case "/digest":
            return Effect.map(
              Stream.runFold(request.stream, createHash("sha256"), (hash, chunk) => hash.update(chunk)),
              (hash) => HttpServerResponse.text(hash.digest("hex"))
            )
          case "/large":
            return Effect.succeed(HttpServerResponse.uint8Array(large))
          case "/stream":
            return Effect.succeed(HttpServerResponse.stream(pieces(large, 50_000)))
          case "/never":
            return Effect.onInterrupt(Effect.never, () => Queue.offer(interrupted, request.url))
          case "/empty":
            return Effect.succeed(HttpServerResponse.empty({ status: 204 }))
          case "/unchanged":
            return Effect.succeed(HttpServerResponse.empty({ status: 304 }))
          case "/cookies":
            return Effect.succeed(
              HttpServerResponse.text("two").pipe(
                HttpServerResponse.unsafeSetCookies([
                  ["a", "1", undefined],
                  ["b", "2", undefined]
                ])
              )
            )
          default:
            return Effect.succeed(HttpServerResponse.text(`${request.method} ${request.url}`))
        }
      }).pipe(Effect.orDie)
    })
    const scripts = new Map<string, Script>()
    const raw = yield* hostileServer(yield* authority.issueRaw({ path: "/raw", ttl: "10 days" }), {
      onRequest: (socket, chunk) => {
        const text = chunk.toString("latin1")
        const path = /^[A-Z]+ (\S+) HTTP/.exec(text)?.[1]
        if (path !== undefined) scripts.get(path)?.(socket, text)
      }
    })
    const client = yield* startClient(yield* authority.context({ path: "/client", ttl: "10 days" }))
    return {
      server,
      interrupted,
      connect: client.connect({ port: server.port, peer: authority.id("/server") }),
      scripted: (script: Script, config?: TransportConfig.Options) =>
        Effect.suspend(() => {
          scripts.set("/", script)
          return client.connect({ port: raw.port, peer: authority.id("/raw"), config })
        })
    }
  }).pipe(Effect.orDie)
)

const get = HttpClientRequest.get("/")
const post = (path: string, body: HttpBody.HttpBody) => HttpClientRequest.setBody(HttpClientRequest.post(path), body)

/** Writes the parts, each in a turn of its own. */
const answer =
  (...parts: ReadonlyArray<string>): Script =>
  (socket) => {
    for (const part of parts) socket.write(part)
  }

/** Runs a request and reads its response to the end. */
const text = (connection: Opened, request: HttpClientRequest.HttpClientRequest, settled?: Settled) =>
  Effect.flatMap(execute(connection, request, settled), (response) => response.text)

/** Nothing of what was before comes through. */
const expectReusable = Effect.fnUntraced(function* (connection: Opened) {
  expect(connection.isUsable()).toBe(true)
  expect(yield* text(connection, HttpClientRequest.get("/again"))).toBe("GET /again")
})

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
const block = new Uint8Array(64 * 1024)

const { scoped } = sharing(shared)

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
