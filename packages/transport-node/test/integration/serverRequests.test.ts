/** Every request, whatever it turns into, is on record with its start and its end, under the path it is served as. */
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as AuditEvent from "@agentweave/transport/AuditEvent"
import * as PeerIdentity from "@agentweave/transport/PeerIdentity"
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, TestClock } from "effect"
import { hostileClient, type Log, realTime, type ServerOptions, startServer } from "./fixture.js"

/** Answers with the method, the target, the host and the body it was asked with. */
const echo: HttpApp.Default<never, never> = Effect.gen(function* () {
  const { headers, method, text, url } = yield* HttpServerRequest.HttpServerRequest
  return HttpServerResponse.text(`[${method} ${url} ${headers["host"]} ${yield* text}]`)
}).pipe(Effect.orDie)

/** Answers every message with the caller's ID, where a WebSocket is asked for. */
const socketApp: HttpApp.Default<never, PeerIdentity.PeerIdentity> = Effect.gen(function* () {
  const request = yield* HttpServerRequest.HttpServerRequest
  if (request.url !== "/socket") return yield* echo
  const caller = yield* PeerIdentity.caller
  const socket = yield* request.upgrade
  const write = yield* socket.writer
  yield* socket.run(() => write(caller.spiffeId))
  return HttpServerResponse.empty()
}).pipe(Effect.scoped, Effect.orDie)

const setup = (options: Pick<ServerOptions, "app" | "refuses"> = {}) =>
  Effect.gen(function* () {
    yield* realTime
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const identity = yield* authority.context({ path: "/server", ttl: "10 minutes" })
    const server = yield* startServer({ identity, authorize: authority.id("/client"), app: echo, ...options })
    const credentials = yield* authority.issueRaw({ path: "/client" })
    return {
      identity,
      server,
      /** Sends bytes; what came back, when the connection has ended. */
      ask: (request: string, more: Parameters<typeof hostileClient>[2] = {}) =>
        hostileClient(server.port, credentials, { request, ...more })
    }
  })

const handshake = (path: string): string =>
  [
    `GET ${path} HTTP/1.1`,
    "host: x",
    "connection: Upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    `sec-websocket-key: ${"A".repeat(22)}==`,
    "",
    ""
  ].join("\r\n")

const last = "GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"

/** A message to close a WebSocket, masked with zeroes (RFC 6455 section 5.5.1). */
const closeFrame = Buffer.from([0x88, 0x80, 0, 0, 0, 0])

/** The start and the end of each request, as far as it has one, once the connection has ended. */
const records = (log: Log) =>
  Effect.map(log.nth("ConnectionClosed"), () =>
    log.all("RequestStarted").map(({ method, path, requestId }) => {
      const ends = log.all("RequestEnded").filter((event) => event.requestId === requestId)
      return [`${method} ${path}`, ...ends.map(({ error, status }) => [status, error].join(" ").trim())]
    })
  )

describe("an Upgrade that nobody handles is a request like any other", () => {
  it.scoped("with its body and its record; the connection ends with it, and nothing behind it is served", () =>
    Effect.gen(function* () {
      const { ask, server } = yield* setup()
      const upgrade = "host: x\r\nconnection: Upgrade\r\nupgrade: x\r\ncontent-length: 4\r\n\r\nbody"
      const { received } = yield* ask(`DELETE /users/42 HTTP/1.1\r\n${upgrade}${last}`)
      expect(received).toMatch(/^HTTP\/1\.1 200 OK\r\n(?:.*\r\n)*connection: close\r\n/i)
      expect(received.match(/\[.*?\]/g)).toEqual(["[DELETE /users/42 x body]"])
      expect(yield* records(server.log)).toEqual([["DELETE /users/42", "200"]])
    })
  )

  for (const [title, from, to] of [
    ["without a key", /sec-websocket-key.*\r\n/, ""],
    ["of an unknown version", "version: 13", "version: 12"],
    ["with an invalid subprotocol", "host: x", "host: x\r\nsec-websocket-protocol: a,a"],
    ["with another method", "GET", "POST"],
    ["with a body", "host: x", "host: x\r\ncontent-length: 4"]
  ] as const) {
    it.scoped(`where it is the handshake of a WebSocket ${title}, that none could be made of`, () =>
      Effect.gen(function* () {
        const { ask, server } = yield* setup()
        const body = title === "with a body" ? "body" : ""
        const { received } = yield* ask(`${handshake("/socket").replace(from, to)}${body}`)
        const method = title === "with another method" ? "POST" : "GET"
        expect(received).toContain(`[${method} /socket x ${body}]`)
        expect(yield* records(server.log)).toEqual([[`${method} /socket`, "200"]])
      })
    )
  }

  it.scoped("where a handler answers a WebSocket's handshake otherwise, and the connection ends with its answer", () =>
    Effect.gen(function* () {
      const { ask, server } = yield* setup({ app: socketApp })
      const { received } = yield* ask(handshake("/elsewhere"))
      expect(received).toMatch(/^HTTP\/1\.1 200 OK\r\n(?:.*\r\n)*connection: close\r\n/i)
      expect(received).toContain("[GET /elsewhere x ]")
      expect(yield* records(server.log)).toEqual([["GET /elsewhere", "200"]])
    })
  )
})

describe("a WebSocket", () => {
  it.scoped("is one request on record, until it is closed", () =>
    Effect.gen(function* () {
      const { ask, server } = yield* setup({ app: socketApp })
      let close = () => {}
      const { received } = yield* ask(handshake("/socket"), {
        onSecure: (socket) => {
          close = () => socket.write(closeFrame)
        },
        onData: () => close()
      })
      expect(received).toMatch(/^HTTP\/1\.1 101 /)
      expect(yield* records(server.log)).toEqual([["GET /socket", "101"]])
    })
  )

  it.scoped("whose client vanishes has an end on record that says so", () =>
    Effect.gen(function* () {
      const { ask, server } = yield* setup({ app: socketApp })
      let leave = () => {}
      yield* ask(handshake("/socket"), {
        onSecure: (socket) => {
          leave = () => socket.destroy()
        },
        onData: () => leave()
      })
      expect(yield* records(server.log)).toEqual([["GET /socket", expect.stringMatching(/^101/)]])
    })
  )

  it.scoped("ends with the certificates of its connection", () =>
    Effect.gen(function* () {
      const { ask, identity, server } = yield* setup({ app: socketApp })
      const opened = yield* Deferred.make<void>()
      const attempt = yield* Effect.fork(
        ask(handshake("/socket"), { onData: () => Deferred.unsafeDone(opened, Effect.void) })
      )
      yield* Deferred.await(opened)
      yield* TestClock.setTime(identity.svid.notAfter)
      yield* Fiber.join(attempt)
      expect(yield* records(server.log)).toEqual([["GET /socket", "101 Interrupted"]])
      expect(server.log.all("ConnectionClosed")).toMatchObject([{ reason: "Expiry" }])
    })
  )

  it.scoped("asked for behind a request is opened when that is answered", () =>
    Effect.gen(function* () {
      const answer = yield* Deferred.make<void>()
      const { ask, server } = yield* setup({
        app: Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ url }) =>
          url === "/first" ? Effect.as(Deferred.await(answer), HttpServerResponse.text("first")) : socketApp
        )
      })
      let close = () => {}
      const attempt = yield* Effect.fork(
        ask(`GET /first HTTP/1.1\r\nhost: x\r\n\r\n${handshake("/socket")}`, {
          onSecure: (socket) => {
            close = () => socket.write(closeFrame)
          },
          onData: () => close()
        })
      )
      yield* server.log.nth("RequestStarted")
      expect(server.log.all("RequestStarted")).toHaveLength(1)
      yield* Deferred.succeed(answer, undefined)
      expect((yield* Fiber.join(attempt)).received.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 200", "HTTP/1.1 101"])
      expect(yield* records(server.log)).toEqual([
        ["GET /first", "200"],
        ["GET /socket", "101"]
      ])
    })
  )
})

describe("a request that cannot be put on record is not served", () => {
  const requests: ReadonlyArray<readonly [title: string, request: string]> = [
    ["an ordinary one", last],
    ["one with an Upgrade", "DELETE /users/42 HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: x\r\n\r\n"],
    ["the handshake of a WebSocket", handshake("/socket")],
    ["one that expects 100", "POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n"],
    ["one that expects something else", "POST / HTTP/1.1\r\nhost: x\r\nexpect: x\r\ncontent-length: 1\r\n\r\n"],
    ["a CONNECT", "CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n"],
    ["one with an absolute target", "GET http://x/secret HTTP/1.1\r\nhost: x\r\n\r\n"]
  ]
  for (const [title, request] of requests) {
    it.scoped(`${title}: the connection ends without a byte`, () =>
      Effect.gen(function* () {
        const { ask, server } = yield* setup({ app: socketApp, refuses: AuditEvent.isRequest })
        expect((yield* ask(request)).received).toBe("")
        yield* server.log.nth("ConnectionClosed")
        expect(server.handled()).toBe(0)
      })
    )
  }
})

describe("an expectation", () => {
  it.scoped("of 100 Continue is met, and the request is on record once", () =>
    Effect.gen(function* () {
      const { ask, server } = yield* setup()
      const head = "host: x\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: 4\r\n\r\n"
      const { received } = yield* ask(`POST /up HTTP/1.1\r\n${head}body`)
      expect(received).toMatch(/^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK\r\n/)
      expect(received).toContain("[POST /up x body]")
      expect(yield* records(server.log)).toEqual([["POST /up", "200"]])
    })
  )

  it.scoped("of anything else is answered with 417, on record", () =>
    Effect.gen(function* () {
      const { ask, server } = yield* setup()
      const { received } = yield* ask(`POST /up HTTP/1.1\r\nhost: x\r\nexpect: x\r\n\r\n${last}`)
      expect(received).toMatch(/^HTTP\/1\.1 417 /)
      expect(yield* records(server.log)).toEqual([
        ["POST /up", "417"],
        ["GET /last", "200"]
      ])
      expect(server.handled()).toBe(1)
    })
  )
})

it.scoped("a CONNECT is answered with 501, on record, behind what was asked before", () =>
  Effect.gen(function* () {
    const { ask, server } = yield* setup()
    const { received } = yield* ask("GET /first HTTP/1.1\r\nhost: x\r\n\r\nCONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n")
    expect(received.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 200", "HTTP/1.1 501"])
    expect(yield* records(server.log)).toEqual([
      ["GET /first", "200"],
      ["CONNECT x:443", "501"]
    ])
    expect(server.handled()).toBe(1)
  })
)

describe("the path on record is the path that is served", () => {
  const served: ReadonlyArray<readonly [line: string, served: string, path: string]> = [
    ["GET /secret?q=1", "GET /secret?q=1 x", "GET /secret"],
    ["GET http://x?/secret", "GET /?/secret x", "GET /"],
    ["GET https://other:99/secret?q", "GET /secret?q other:99", "GET /secret"],
    ["GET HTTP://x", "GET / x", "GET /"],
    ["OPTIONS *", "OPTIONS * x", "OPTIONS *"]
  ]
  for (const [line, seen, path] of served) {
    it.scoped(line, () =>
      Effect.gen(function* () {
        const { ask, server } = yield* setup()
        const { received } = yield* ask(`${line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`)
        expect(received).toContain(`[${seen} ]`)
        expect(yield* records(server.log)).toEqual([[path, "200"]])
      })
    )
  }

  const refused: ReadonlyArray<readonly [title: string, head: string, path: string]> = [
    ["a target with a fragment", "GET /a#b HTTP/1.1\r\nhost: x", "GET /a#b"],
    ["a target of another scheme", "GET ftp://x/secret HTTP/1.1\r\nhost: x", "GET /secret"],
    ["a target with user information", "GET http://u@x/secret HTTP/1.1\r\nhost: x", "GET /secret"],
    ["* for another method than OPTIONS", "GET * HTTP/1.1\r\nhost: x", "GET *"],
    ["no Host", "GET / HTTP/1.1", "GET /"],
    ["two Hosts", "GET / HTTP/1.1\r\nhost: x\r\nhost: x", "GET /"],
    ["an invalid Host", "GET / HTTP/1.1\r\nhost: x/y", "GET /"],
    ["no Host, in the handshake of a WebSocket", handshake("/socket").replace("host: x\r\n", "").trim(), "GET /socket"]
  ]
  for (const [title, head, path] of refused) {
    it.scoped(`${title} is answered with 400, on record`, () =>
      Effect.gen(function* () {
        const { ask, server } = yield* setup({ app: socketApp })
        const { received } = yield* ask(`${head}\r\n\r\n${last}`)
        expect(received).toMatch(/^HTTP\/1\.1 400 /)
        expect(received.match(/HTTP\/1\.1/g)).toHaveLength(1)
        expect(yield* records(server.log)).toEqual([[path, "400"]])
        expect(server.handled()).toBe(0)
      })
    )
  }
})

it.scoped("a target in authority form, which only CONNECT has, is no request: it is answered with 400", () =>
  Effect.gen(function* () {
    const { ask, server } = yield* setup()
    for (const target of ["x:443", "x", "user@x:443"]) {
      const { received } = yield* ask(`GET ${target} HTTP/1.1\r\nhost: x\r\n\r\n${last}`)
      expect(received.match(/HTTP\/1\.1 \d+/g), target).toEqual(["HTTP/1.1 400"])
    }
    expect(server.handled()).toBe(0)
  })
)

it.scoped(
  "a client that has ended its side is taken for one that has left: its handler is interrupted, on record",
  () =>
    Effect.gen(function* () {
      const { ask, server } = yield* setup({ app: Effect.never })
      yield* ask("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n", { onSecure: (socket) => socket.end() })
      expect(yield* records(server.log)).toEqual([["GET /slow", "Interrupted"]])
    })
)

describe("a field behind a thousand others counts", () => {
  const many = "a:\r\n".repeat(2500)

  it.scoped("and reaches the handler", () =>
    Effect.gen(function* () {
      const app = Effect.map(HttpServerRequest.HttpServerRequest, ({ headers }) =>
        HttpServerResponse.text(`[${headers["x-last"]}]`)
      )
      const { ask } = yield* setup({ app })
      const { received } = yield* ask(`GET / HTTP/1.1\r\nhost: x\r\n${many}connection: close\r\nx-last: seen\r\n\r\n`)
      expect(received).toContain("[seen]")
    })
  )

  it.scoped("and is refused where it is a second Host", () =>
    Effect.gen(function* () {
      const { ask, server } = yield* setup()
      const { received } = yield* ask(`GET / HTTP/1.1\r\nhost: x\r\n${many}host: y\r\n\r\n`)
      expect(received).toMatch(/^HTTP\/1\.1 400 /)
      expect(yield* records(server.log)).toEqual([["GET /", "400"]])
      expect(server.handled()).toBe(0)
    })
  )
})

it.scoped("of five pipelined requests whose connection is lost each has its end, and each handler is interrupted", () =>
  Effect.gen(function* () {
    let interrupted = 0
    const all = yield* Deferred.make<void>()
    const { ask, server } = yield* setup({
      app: Effect.onInterrupt(Effect.never, () =>
        Effect.suspend(() => (++interrupted === 5 ? Deferred.succeed(all, undefined) : Effect.void))
      )
    })
    const client = yield* Effect.fork(ask("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n".repeat(5)))
    yield* server.log.nth("RequestStarted", 4)
    yield* Fiber.interrupt(client)
    expect(yield* records(server.log)).toEqual(Array.from({ length: 5 }, () => ["GET /slow", "Interrupted"]))
    yield* Deferred.await(all)
  })
)

it.scoped("of 20,000 pipelined requests no more than 100 are served at a time, and the last of them says so", () =>
  Effect.gen(function* () {
    const open = yield* Deferred.make<void>()
    const { ask, server } = yield* setup({ app: Effect.zipRight(Deferred.await(open), echo) })
    const client = yield* Effect.fork(ask("GET /many HTTP/1.1\r\nhost: x\r\n\r\n".repeat(20_000)))
    yield* server.log.nth("RequestStarted", 99)
    expect(server.handled()).toBe(100)
    yield* Deferred.succeed(open, undefined)
    const { received } = yield* Fiber.join(client)
    const responses = received.split("HTTP/1.1 200 OK").slice(1)
    expect(responses).toHaveLength(100)
    expect(responses.map((response) => /connection: close/i.test(response)).indexOf(true)).toBe(99)
    expect(yield* records(server.log)).toEqual(Array.from({ length: 100 }, () => ["GET /many", "200"]))
  })
)
