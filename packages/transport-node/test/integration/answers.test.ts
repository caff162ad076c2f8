/** Answers that are legal and rare, and what a client makes of them. */
import type { TLSSocket } from "node:tls"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import type * as TransportConfig from "@agentweave/transport/TransportConfig"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, TestClock } from "effect"
import { failure, hostileServer, realTime, startClient, startServer } from "./fixture.js"

const ok = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine"

/** A peer that answers every request as the script says, and a channel of one connection to it. */
const setup = Effect.fnUntraced(function* (
  script: (socket: TLSSocket, request: string) => void,
  config: TransportConfig.Options = {}
) {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const server = yield* hostileServer(yield* authority.issueRaw({ path: "/raw" }), {
    onSecure: (socket) => socket.setNoDelay(true),
    onRequest: (socket, bytes) => script(socket, bytes.toString("latin1"))
  })
  const client = yield* startClient(yield* authority.context({ path: "/client" }))
  const channel = yield* client.channel({
    port: server.port,
    peer: authority.id("/raw"),
    config: { connections: 1, ...config }
  })
  const text = Effect.flatMap(channel.get("/"), (response) => response.text)
  return { channel, client, server, text }
})

describe("an informational response", () => {
  const sequences: ReadonlyArray<readonly [name: string, informational: string]> = [
    ["100 Continue", "HTTP/1.1 100 Continue\r\n\r\n"],
    ["100 without a reason", "HTTP/1.1 100\r\n\r\n"],
    ["100 with an empty reason", "HTTP/1.1 100 \r\n\r\n"],
    ["100 with fields", "HTTP/1.1 100 Continue\r\nserver: x\r\nx-empty:\r\n\r\n"],
    ["three times 100", "HTTP/1.1 100 Continue\r\n\r\n".repeat(3)],
    ["102 Processing", "HTTP/1.1 102 Processing\r\n\r\n"],
    ["103 Early Hints, then 100", "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"],
    ["199, which nobody has defined", "HTTP/1.1 199 Whatever\r\n\r\n"]
  ]
  for (const [name, informational] of sequences) {
    it.scoped(`that nobody asked for is ignored: ${name}`, () =>
      Effect.gen(function* () {
        const { server, text } = yield* setup((socket) => socket.write(informational + ok))
        for (let round = 0; round < 3; round++) expect(yield* text).toBe("fine")
        expect(server.accepted()).toBe(1)
      })
    )
  }

  it.scoped("is ignored wherever the network cuts it", () =>
    Effect.gen(function* () {
      const answer = `HTTP/1.1 100 Continue\r\nx: y\r\n\r\n${ok}`
      let cut = 0
      const { server, text } = yield* setup((socket) => {
        socket.write(answer.slice(0, cut))
        setImmediate(() => socket.write(answer.slice(cut)))
      })
      for (cut = 1; cut < answer.length - 4; cut++) expect(yield* text).toBe("fine")
      expect(server.accepted()).toBe(1)
    })
  )

  it.scoped("is not a response: a peer that sends nothing else is out of time", () =>
    Effect.gen(function* () {
      const asked = yield* Deferred.make<void>()
      const { text } = yield* setup(
        (socket) => {
          socket.write("HTTP/1.1 100 Continue\r\n\r\n")
          Deferred.unsafeDone(asked, Effect.void)
        },
        { timeout: "5 seconds" }
      )
      const fiber = yield* Effect.fork(text)
      yield* Deferred.await(asked)
      yield* TestClock.adjust("5 seconds")
      expect(yield* failure(Fiber.join(fiber))).toMatchObject({ _tag: "TimeoutError", phase: "Headers" })
    })
  )

  it.scoped("is not a response: a peer that ends the connection after it has closed it", () =>
    Effect.gen(function* () {
      const { text } = yield* setup((socket) => socket.end("HTTP/1.1 100 Continue\r\n\r\n"))
      expect(yield* failure(text)).toMatchObject({ _tag: "ConnectionError", reason: "Closed", outcome: "Unknown" })
    })
  )

  const refused: ReadonlyArray<readonly [name: string, answer: string]> = [
    ["101 without an upgrade", "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"],
    ["100 of HTTP/1.0", `HTTP/1.0 100 Continue\r\n\r\n${ok}`],
    ["100 with a field that has no name", `HTTP/1.1 100 Continue\r\n: x\r\n\r\n${ok}`],
    ["100 with a head without end", `HTTP/1.1 100 Continue\r\nx: ${"y".repeat(20_000)}`]
  ]
  for (const [name, answer] of refused) {
    it.scoped(`that is none ends the connection: ${name}`, () =>
      Effect.gen(function* () {
        const { client, text } = yield* setup((socket) => socket.write(answer))
        expect(yield* failure(text)).toMatchObject({ _tag: "ConnectionError", reason: "Malformed", isRetryable: false })
        expect(yield* client.log.nth("ConnectionClosed")).toMatchObject({ reason: "Error" })
      })
    )
  }
})

describe("a response header", () => {
  it.scoped("may have the name of anything an object has", () =>
    Effect.gen(function* () {
      const names = ["constructor", "__proto__", "toString", "hasOwnProperty", "valueOf", "__defineGetter__", "then"]
      const fields = names.map((name, at) => `${name}: value ${at}\r\n${name}: again\r\n`).join("")
      const { channel } = yield* setup((socket) => socket.write(`HTTP/1.1 204 No Content\r\n${fields}\r\n`))
      const { headers } = yield* channel.get("/")
      expect(Object.entries(headers)).toEqual(names.map((name, at) => [name.toLowerCase(), `value ${at}, again`]))
      expect(headers["absent"]).toBeUndefined()
      expect(headers["isprototypeof"]).toBeUndefined()
    })
  )
})

describe("the peer's hint how long it keeps an idle connection", () => {
  for (const [seconds, connections] of [
    [0, 10],
    [1, 1],
    [2, 1],
    [5, 1]
  ] as const) {
    it.scoped(`of ${seconds} s is honoured: ten requests in turn take ${connections} connection(s)`, () =>
      Effect.gen(function* () {
        const { server, text } = yield* setup((socket) =>
          socket.write(`HTTP/1.1 200 OK\r\nkeep-alive: timeout=${seconds}\r\ncontent-length: 4\r\n\r\nfine`)
        )
        for (let round = 0; round < 10; round++) expect(yield* text).toBe("fine")
        expect(server.accepted()).toBe(connections)
      })
    )
  }

  it.scoped("of 1 s ends the idle connection before the peer does", () =>
    Effect.gen(function* () {
      const { client, text } = yield* setup((socket) =>
        socket.write("HTTP/1.1 200 OK\r\nkeep-alive: timeout=1\r\ncontent-length: 4\r\n\r\nfine")
      )
      yield* text
      expect(yield* client.log.nth("ConnectionClosed")).toMatchObject({ reason: "Idle", requests: 1 })
    })
  )

  it.scoped("is honoured when the peer is a NodeSecureServer", () =>
    Effect.gen(function* () {
      yield* realTime
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const server = yield* startServer({
        identity: yield* authority.context({ path: "/server" }),
        authorize: authority.id("/client"),
        keepAliveTimeout: "2 seconds"
      })
      const client = yield* startClient(yield* authority.context({ path: "/client" }))
      const channel = yield* client.channel({ port: server.port, peer: authority.id("/server") })
      for (let round = 0; round < 10; round++) yield* Effect.flatMap(channel.get("/"), (response) => response.text)
      expect(server.log.all("ConnectionEstablished").length).toBe(1)
    })
  )
})

describe("what an error says of TLS", () => {
  it.scoped("is one line, with OpenSSL's reason and without its file names", () =>
    Effect.gen(function* () {
      yield* realTime
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const credentials = yield* authority.issueRaw({ path: "/raw" })
      const client = yield* startClient(yield* authority.context({ path: "/client" }))
      const old = yield* hostileServer(credentials, { maxVersion: "TLSv1.2" })
      const error = yield* failure(client.connect({ port: old.port, peer: authority.id("/raw") }))
      expect(error.message).toMatch(
        /^ProtocolMismatch: expected a TLS connection, got: [a-z0-9 /]+ \(ERR_SSL_[A-Z0-9_/]+\); peer at 127\.0\.0\.1:\d+, request not sent$/
      )
    })
  )
})
