/** Bytes that no request asked for: whenever they come, they are not the response to another request. */
import type { TLSSocket } from "node:tls"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { execute } from "./execute.js"
import { failure, hostileServer, realTime, startClient } from "./fixture.js"

const good = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"
const evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"

/** A peer that answers `/` well, and any other path as the script says. */
const setup = Effect.fnUntraced(function* (
  script: (socket: TLSSocket) => void,
  onSecure: (socket: TLSSocket) => void = () => {}
) {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const server = yield* hostileServer(yield* authority.issueRaw({ path: "/raw" }), {
    onSecure: (socket) => {
      // What is written is sent at once, so that it is there when the test says so.
      socket.setNoDelay(true)
      onSecure(socket)
    },
    onRequest: (socket, bytes) => {
      if (bytes.includes(" / HTTP/1.1")) socket.write(good)
      else script(socket)
    }
  })
  const client = yield* startClient(yield* authority.context({ path: "/client" }))
  const to = { port: server.port, peer: authority.id("/raw") }
  return { server, client, to, channel: yield* client.channel({ ...to, config: { connections: 1 } }) }
})

/** The text of the response to a request for `/`. */
const next = HttpClientRequest.get("/")

const heads: ReadonlyArray<readonly [name: string, method: "GET" | "HEAD", head: string]> = [
  ["200 to HEAD with a length", "HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 42\r\n\r\n"],
  ["200 to HEAD without a length", "HEAD", "HTTP/1.1 200 OK\r\n\r\n"],
  ["200 to HEAD that promises to keep the connection", "HEAD", "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\n\r\n"],
  ["200 to HEAD in chunks", "HEAD", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"],
  ["404 to HEAD", "HEAD", "HTTP/1.1 404 Not Found\r\ncontent-length: 42\r\n\r\n"],
  ["204", "GET", "HTTP/1.1 204 No Content\r\n\r\n"],
  ["204 with a length", "GET", "HTTP/1.1 204 No Content\r\ncontent-length: 42\r\n\r\n"],
  ["304", "GET", "HTTP/1.1 304 Not Modified\r\n\r\n"],
  ["304 with a length", "GET", "HTTP/1.1 304 Not Modified\r\ncontent-length: 42\r\n\r\n"],
  ["304 in chunks", "GET", "HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n"],
  ["an empty 200", "GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"],
  ["a whole 200", "GET", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole"],
  ["the last chunk", "GET", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n"]
]

const statusOf = (head: string): number => Number(head.slice(9, 12))
const bodyOf = (head: string): string => (head.includes("whole") ? "whole" : "")

describe("a second response in the same write", () => {
  for (const [name, method, head] of heads) {
    it.scoped(`as ${name} is not the next request's`, () =>
      Effect.gen(function* () {
        const { channel, client, server } = yield* setup((socket) => socket.write(`${head}${evil}`))
        const response = yield* channel.request(method, "/bent")
        expect(response.status).toBe(statusOf(head))
        expect(yield* response.text).toBe(bodyOf(head))
        expect(yield* Effect.flatMap(channel.execute(next), (response) => response.text)).toBe("good")
        expect(server.accepted()).toBe(2)
        expect(yield* client.log.nth("ConnectionClosed")).toMatchObject({ requests: 1 })
      })
    )
  }
})

describe("a second response while the connection is idle", () => {
  for (const [name, method, head] of heads.filter(([, method, head]) => method === "GET" && !/length: 42/.test(head))) {
    it.scoped(`after ${name} ends the connection`, () =>
      Effect.gen(function* () {
        let peer: TLSSocket | undefined
        const { channel, client, server } = yield* setup((socket) => {
          peer = socket
          socket.write(head)
        })
        expect(yield* Effect.flatMap(channel.request(method, "/bent"), (response) => response.text)).toBe(bodyOf(head))
        peer?.write(evil)
        expect(yield* client.log.nth("ConnectionClosed")).toMatchObject({ reason: "Error", requests: 1 })
        expect(yield* Effect.flatMap(channel.execute(next), (response) => response.text)).toBe("good")
        expect(server.accepted()).toBe(2)
      })
    )
  }

  it.scoped("that comes as the next request is about to be written is not that request's", () =>
    Effect.gen(function* () {
      let peer: TLSSocket | undefined
      const { channel, client, server } = yield* setup((socket) => {
        peer = socket
        socket.write("HTTP/1.1 204 No Content\r\n\r\n")
      })
      yield* channel.get("/bent")
      // The request starts in the same turn of the event loop: its connection still looks idle and whole.
      yield* Effect.async<void>((resume) => {
        setImmediate(() => {
          peer?.write(evil)
          resume(Effect.void)
        })
      })
      expect(yield* Effect.flatMap(channel.execute(next), (response) => response.text)).toBe("good")
      expect(server.accepted()).toBe(2)
      expect(client.log.all("RequestEnded")).toMatchObject([
        { status: 204 },
        { error: "ConnectionError" },
        { status: 200 }
      ])
    })
  )
})

describe("a second response that comes as a request takes over the connection of another", () => {
  it.scoped("is not that request's, which goes to another connection", () =>
    Effect.gen(function* () {
      const { channel, server } = yield* setup((socket) => {
        socket.write("HTTP/1.1 204 No Content\r\n\r\n")
        setImmediate(() => socket.write(evil))
      })
      const first = yield* Effect.fork(channel.get("/bent"))
      const second = yield* Effect.fork(Effect.flatMap(channel.execute(next), (response) => response.text))
      expect((yield* Fiber.join(first)).status).toBe(204)
      expect(yield* Fiber.join(second)).toBe("good")
      expect(server.accepted()).toBe(2)
    })
  )
})

describe("a response to HEAD", () => {
  it.scoped("is the last of its connection: a body that comes later is never the next request's response", () =>
    Effect.gen(function* () {
      const { channel, server } = yield* setup((socket) => {
        socket.write("HTTP/1.1 200 OK\r\ncontent-length: 42\r\nconnection: keep-alive\r\n\r\n")
        // So late that the next request was written before: as if it were the response to that.
        socket.removeAllListeners("data")
        socket.on("data", () => socket.write(evil))
      })
      for (let round = 0; round < 3; round++) {
        expect((yield* channel.head("/bent")).status).toBe(200)
        expect(yield* Effect.flatMap(channel.execute(next), (response) => response.text)).toBe("good")
      }
      // The second and the third HEAD find the connection of the GET before.
      expect(server.accepted()).toBe(4)
    })
  )
})

describe("a response before the first request", () => {
  it.scoped("is not taken for the response to it", () =>
    Effect.gen(function* () {
      let connections = 0
      const { channel, client, to } = yield* setup(
        () => {},
        (socket) => {
          if (connections++ === 0) socket.write(evil)
        }
      )
      const connection = yield* client.connect(to)
      // By the time the peer has answered on another connection, what it wrote on the first one is there.
      yield* channel.execute(next)
      expect(yield* failure(execute(connection, next))).toMatchObject({
        _tag: "ConnectionError",
        reason: "Malformed",
        outcome: "NotSent",
        code: "ERR_UNASKED_BYTES"
      })
      expect(yield* connection.ended).toBe("Error")
    })
  )
})
