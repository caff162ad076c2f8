import * as net from "node:net"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as PeerIdentity from "@agentweave/transport/PeerIdentity"
import * as NodeSecureSocketServer from "@agentweave/transport-node/NodeSecureSocketServer"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Option } from "effect"
import { failure, host, hostileClient, realTime, startClient } from "./fixture.js"
import { echo, type Handler, openSocket, readAll, startSocketServer } from "./socketFixture.js"

const setUp = Effect.gen(function* () {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const identity = yield* authority.context({ path: "/server" })
  const client = yield* startClient(yield* authority.context({ path: "/client" }))
  return {
    authority,
    identity,
    client,
    authorize: PeerMatcher.exactly(authority.id("/client")),
    peer: authority.id("/server")
  }
})

describe("a secure socket server", () => {
  it.scoped(
    "gives each connection of an authorised peer to a handler that knows its caller, on record on both sides",
    () =>
      Effect.gen(function* () {
        const { authority, authorize, client, identity, peer } = yield* setUp
        const server = yield* startSocketServer({ identity, authorize })
        const received = yield* Effect.scoped(Effect.flatMap(openSocket(client, { peer, port: server.port }), readAll))
        expect(received).toBe(authority.id("/client"))
        yield* server.log.nth("ConnectionClosed")
        const events = ["ConnectionAttempted", "ConnectionEstablished", "ConnectionClosed"]
        expect(client.log.events.map(({ _tag }) => _tag)).toEqual(events)
        expect(server.log.events.map(({ _tag }) => _tag)).toEqual(events)
        expect(server.log.all("ConnectionClosed")).toMatchObject([
          { reason: "Shutdown", peerId: authority.id("/client") }
        ])
      })
  )

  it.scoped("answers a client that has ended its own direction", () =>
    Effect.gen(function* () {
      const { authorize, client, identity, peer } = yield* setUp
      const reverse: Handler = (socket) =>
        Effect.gen(function* () {
          const all = yield* readAll(socket)
          const write = yield* socket.writer
          yield* write(Array.from(all).reverse().join(""))
        })
      const server = yield* startSocketServer({ identity, authorize, handler: reverse })
      const socket = yield* openSocket(client, { peer, port: server.port })
      yield* Effect.scoped(Effect.flatMap(socket.writer, (write) => write("stressed")))
      expect(yield* readAll(socket)).toBe("desserts")
    })
  )

  it.scoped("carries far more than fits into buffers, in both directions at once", () =>
    Effect.gen(function* () {
      const { authorize, client, identity, peer } = yield* setUp
      const server = yield* startSocketServer({ identity, authorize, handler: echo })
      const socket = yield* openSocket(client, { peer, port: server.port })
      const piece = new Uint8Array(100_000).fill(65)
      let received = 0
      const reading = yield* Effect.fork(
        socket.run((bytes) => {
          received += bytes.length
        })
      )
      yield* Effect.scoped(
        Effect.flatMap(socket.writer, (write) => Effect.forEach(Array(80).fill(piece), write, { discard: true }))
      )
      yield* Fiber.join(reading)
      expect(received).toBe(8_000_000)
    })
  )

  it.scoped("serves nobody whom it does not authorise: no byte of theirs reaches a handler", () =>
    Effect.gen(function* () {
      const { authority, identity, client, peer } = yield* setUp
      const authorize = PeerMatcher.exactly(authority.id("/other"))
      const server = yield* startSocketServer({ identity, authorize, handler: echo })
      const socket = yield* openSocket(client, { peer, port: server.port })
      const write = yield* socket.writer
      yield* Effect.exit(write("let me in"))
      // Under TLS 1.3 a client is told of nothing: its stream ends, in order or not, before a byte came.
      expect(yield* Effect.either(readAll(socket))).not.toMatchObject({ right: expect.stringMatching(/./) })
      expect(yield* server.log.nth("ConnectionRefused")).toMatchObject({ reason: "UnexpectedPeer" })
      expect(server.handled()).toBe(0)
    })
  )

  it.scoped("refuses a client without a certificate, and one that speaks no TLS", () =>
    Effect.gen(function* () {
      const { authorize, identity } = yield* setUp
      const server = yield* startSocketServer({ identity, authorize })
      expect((yield* hostileClient(server.port, undefined)).received).toBe("")
      expect(yield* server.log.nth("ConnectionRefused", 0)).toMatchObject({ reason: "NoCertificate" })
      const plain = net.connect(server.port, host)
      plain.on("error", () => {})
      plain.write("hello in the clear, long enough to be taken for a record")
      expect(yield* server.log.nth("ConnectionRefused", 1)).toMatchObject({ error: "ConnectionError" })
      plain.destroy()
      expect(server.handled()).toBe(0)
    })
  )

  it.scoped("interrupts its handlers when it ends, sends what they have written, and leaves nothing open", () =>
    Effect.gen(function* () {
      const { authorize, client, identity, peer } = yield* setUp
      const interrupted = yield* Deferred.make<void>()
      const handler: Handler = (socket) =>
        Effect.flatMap(socket.writer, (write) => Effect.zipRight(write("going on"), Effect.never)).pipe(
          Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
        )
      const server = yield* startSocketServer({ identity, authorize, handler })
      const socket = yield* openSocket(client, { peer, port: server.port })
      const reading = yield* Effect.fork(readAll(socket))
      yield* server.log.nth("ConnectionEstablished")
      yield* Effect.yieldNow()
      yield* Effect.zipRight(
        Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void))),
        server.close
      )
      yield* Deferred.await(interrupted)
      expect(yield* Fiber.join(reading)).toBe("going on")
      expect(server.log.all("ConnectionClosed")).toMatchObject([{ reason: "Shutdown" }])
      expect(yield* failure(openSocket(client, { peer, port: server.port }))).toMatchObject({ reason: "Refused" })
    })
  )

  it.scoped("refuses a client that does not speak its protocol", () =>
    Effect.gen(function* () {
      const { authorize, client, identity, peer } = yield* setUp
      const server = yield* startSocketServer({ identity, authorize, protocols: ["agentweave-test"] })
      const socket = yield* openSocket(client, { peer, port: server.port, protocols: ["agentweave-test"] })
      expect(socket.protocol).toBe("agentweave-test")
      expect(yield* failure(openSocket(client, { peer, port: server.port, protocols: ["h2"] }))).toMatchObject({
        _tag: "ConnectionError",
        reason: "Negotiation"
      })
      // One that names none learns of it by the end of the connection.
      const unnamed = yield* openSocket(client, { peer, port: server.port })
      expect(yield* Effect.either(readAll(unnamed))).not.toMatchObject({ right: expect.stringMatching(/./) })
      yield* server.log.nth("ConnectionRefused", 1)
      expect(server.log.all("ConnectionRefused").map(({ reason }) => reason)).toEqual(["Negotiation", "Negotiation"])
      expect(server.handled()).toBe(1)
    })
  )

  it.scoped("has no caller for a socket of another server", () =>
    Effect.gen(function* () {
      const { authorize, client, identity, peer } = yield* setUp
      const server = yield* startSocketServer({ identity, authorize })
      const foreign = yield* openSocket(client, { peer, port: server.port })
      const seen = yield* Deferred.make<unknown>()
      const handler: Handler = () =>
        Effect.flatMap(Effect.exit(PeerIdentity.callerOf(foreign)), (exit) => Deferred.succeed(seen, exit))
      const other = yield* startSocketServer({ identity, authorize, handler })
      yield* openSocket(client, { peer, port: other.port })
      expect(yield* Deferred.await(seen)).toMatchObject({ _tag: "Failure" })
      expect(NodeSecureSocketServer.toNetSocket(foreign)).toEqual(Option.none())
    })
  )
})
