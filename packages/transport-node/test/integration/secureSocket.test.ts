import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as Connector from "@agentweave/transport/Connector"
import * as SecureSocket from "@agentweave/transport/SecureSocket"
import { Socket } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import { failure, host, hostileServer, realTime, startClient } from "./fixture.js"

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

/** A client, and an authority that makes peers for it. */
const setUp = Effect.gen(function* () {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const client = yield* startClient(yield* authority.context({ path: "/client" }))
  const to = (port: number, options: Partial<SecureSocket.Options> = {}): SecureSocket.Options => ({
    peer: authority.id("/server"),
    host,
    port,
    ...options
  })
  return {
    authority,
    log: client.log,
    to,
    connect: (options: SecureSocket.Options) =>
      Effect.provideService(SecureSocket.connect(options), Connector.Connector, client.connector),
    make: (options: SecureSocket.Options) =>
      Effect.provideService(SecureSocket.make(options), Connector.Connector, client.connector),
    credentials: yield* authority.issueRaw({ path: "/server" })
  }
})

describe("a socket to a verified peer", () => {
  it.scoped("carries bytes both ways, and is on record from its start to its end", () =>
    Effect.gen(function* () {
      const { connect, credentials, log, to } = yield* setUp
      const server = yield* hostileServer(credentials, {
        onRequest: (socket, bytes) => socket.end(`echo ${bytes.toString("latin1")}`)
      })
      let received = ""
      yield* Effect.scoped(
        Effect.gen(function* () {
          const socket = yield* connect(to(server.port))
          expect(socket.peer.spiffeId).toBe(to(server.port).peer)
          const write = yield* socket.writer
          yield* write("hello")
          yield* socket.run((bytes) => {
            received += text(bytes)
          })
        })
      )
      expect(received).toBe("echo hello")
      yield* server.idle
      expect(log.events.map(({ _tag }) => _tag)).toEqual([
        "ConnectionAttempted",
        "ConnectionEstablished",
        "ConnectionClosed"
      ])
      expect(log.all("ConnectionClosed")).toMatchObject([{ reason: "Shutdown", requests: 0 }])
    })
  )

  it.scoped("opens a connection for each run, and ends it with the run", () =>
    Effect.gen(function* () {
      const { credentials, log, make, to } = yield* setUp
      const server = yield* hostileServer(credentials, { onRequest: (socket, bytes) => socket.write(bytes) })
      const socket = yield* make(to(server.port))
      expect(server.accepted()).toBe(0)
      for (const [i, word] of ["one", "two"].entries()) {
        const write = yield* socket.writer
        const heard = yield* Deferred.make<string>()
        const run = yield* Effect.fork(socket.run((bytes) => Deferred.succeed(heard, text(bytes))))
        yield* write(word)
        expect(yield* Deferred.await(heard)).toBe(word)
        yield* Fiber.interrupt(run)
        expect(log.all("ConnectionClosed").map(({ reason }) => reason)).toEqual(Array(i + 1).fill("Shutdown"))
        yield* server.idle
      }
    })
  )

  it.scoped("sends what was written before its scope ends", () =>
    Effect.gen(function* () {
      const { connect, credentials, to } = yield* setUp
      const whole = yield* Deferred.make<number>()
      let bytes = 0
      const server = yield* hostileServer(credentials, {
        onRequest: (_, chunk) => {
          bytes += chunk.length
        },
        onSecure: (socket) => socket.on("end", () => Deferred.unsafeDone(whole, Effect.succeed(bytes)))
      })
      yield* Effect.scoped(
        Effect.gen(function* () {
          const socket = yield* connect(to(server.port))
          const write = yield* socket.writer
          yield* Effect.fork(write(new Uint8Array(4_000_000)))
          yield* Effect.yieldNow()
        })
      )
      expect(yield* Deferred.await(whole)).toBe(4_000_000)
    })
  )

  it.scoped("lets its peer wait while the handlers are busy", () =>
    Effect.gen(function* () {
      const { connect, credentials, to } = yield* setUp
      const total = 16_000_000
      const server = yield* hostileServer(credentials, { onSecure: (socket) => socket.end(new Uint8Array(total)) })
      const socket = yield* connect(to(server.port))
      const go = yield* Deferred.make<void>()
      const busy = yield* Deferred.make<void>()
      let started = 0
      let handled = 0
      const run = yield* Effect.fork(
        socket.run((bytes) =>
          Effect.suspend(() => {
            started += bytes.length
            if (started > 64 * 1024) Deferred.unsafeDone(busy, Effect.void)
            return Effect.map(Deferred.await(go), () => {
              handled += bytes.length
            })
          })
        )
      )
      yield* Deferred.await(busy)
      // Some turns of the event loop, in which a socket that is read on would bring far more.
      for (let i = 0; i < 200; i++) yield* Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))
      expect(started).toBeLessThan(1_000_000)
      yield* Deferred.succeed(go, undefined)
      yield* Fiber.join(run)
      expect(handled).toBe(total)
    })
  )

  it.scoped("can be written to after its peer has sent its last byte", () =>
    Effect.gen(function* () {
      const { connect, credentials, to } = yield* setUp
      const heard = yield* Deferred.make<string>()
      const server = yield* hostileServer(credentials, {
        allowHalfOpen: true,
        onSecure: (socket) => socket.end("that is all"),
        onRequest: (_, bytes) => Deferred.unsafeDone(heard, Effect.succeed(bytes.toString()))
      })
      const socket = yield* connect(to(server.port))
      yield* socket.run(() => {})
      const write = yield* socket.writer
      yield* write("and this is mine")
      expect(yield* Deferred.await(heard)).toBe("and this is mine")
    })
  )

  it.scoped("refuses another peer with the typed error, on record, before a byte is written", () =>
    Effect.gen(function* () {
      const { connect, credentials, log, make, to } = yield* setUp
      const server = yield* hostileServer(credentials)
      const other = to(server.port, { peer: "spiffe://example.org/other" })
      expect(yield* failure(connect(other))).toMatchObject({
        _tag: "PeerVerificationError",
        reason: "UnexpectedPeer"
      })
      const socket = yield* make(other)
      const error = yield* failure(socket.run(() => {}))
      expect(error).toMatchObject({ _tag: "SocketError", reason: "Open", cause: { reason: "UnexpectedPeer" } })
      yield* server.idle
      expect(server.bytes()).toBe(0)
      expect(log.connections()).toEqual(Array(2).fill(["ConnectionAttempted", "ConnectionRefused"]).flat())
    })
  )

  it.scoped("speaks the protocol it offers, and refuses a server that does not agree to it", () =>
    Effect.gen(function* () {
      const { connect, credentials, log, to } = yield* setUp
      const h2 = yield* hostileServer(credentials, { ALPNProtocols: ["h2"] })
      const socket = yield* connect(to(h2.port, { protocols: ["h2", "http/1.1"] }))
      expect(socket.protocol).toBe("h2")
      const none = yield* hostileServer(credentials)
      expect(yield* failure(connect(to(none.port, { protocols: ["h2"] })))).toMatchObject({
        _tag: "ConnectionError",
        reason: "Negotiation",
        description: expect.stringContaining("h2")
      })
      expect((yield* connect(to(none.port))).protocol).toBeUndefined()
      expect(log.all("ConnectionRefused")).toMatchObject([{ reason: "Negotiation" }])
    })
  )

  it.scoped("fails a run that is told to close, as the platform's own sockets do", () =>
    Effect.gen(function* () {
      const { connect, credentials, log, to } = yield* setUp
      const server = yield* hostileServer(credentials)
      const socket = yield* connect(to(server.port))
      const write = yield* socket.writer
      const run = yield* Effect.fork(socket.run(() => {}))
      yield* write(new Socket.CloseEvent(1011))
      expect(yield* failure(Fiber.join(run))).toMatchObject({ _tag: "SocketError" })
      expect(log.all("ConnectionClosed")).toMatchObject([{ reason: "Aborted" }])
    })
  )
})
