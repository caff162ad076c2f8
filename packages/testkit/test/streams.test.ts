import { IdentityError, PeerMatcher } from "@agentweave/spiffe"
import { DevAuthority, TestConnector, TestIdentity, type TestMessage } from "@agentweave/testkit"
import { type AuditEvent, AuditLog, Dialer, SecureSocket } from "@agentweave/transport"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, TestClock } from "effect"

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

const setup = (options: { readonly streamHandler?: TestMessage.StreamHandler } = {}) =>
  Effect.gen(function* () {
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const identity = yield* TestIdentity.make(yield* authority.context({ path: "/client" }))
    const network = yield* TestConnector.make(options)
    const events: Array<AuditEvent.AuditEvent> = []
    const services = network.layer.pipe(Layer.provide(identity.layer), Layer.provide(AuditLog.layerMemory(events)))
    const context = yield* Layer.build(services)
    const to: SecureSocket.Options = { peer: authority.id("/server"), host: "server.internal", port: 7000 }
    return {
      authority,
      identity,
      network,
      events,
      connect: (more: Partial<SecureSocket.Options> = {}) =>
        Effect.provide(SecureSocket.connect({ ...to, ...more }), context),
      make: Effect.provide(SecureSocket.make(to), context)
    }
  })

const record = (events: ReadonlyArray<AuditEvent.AuditEvent>): ReadonlyArray<string> =>
  events.map((event) => (event._tag === "ConnectionClosed" ? `${event._tag} ${event.reason}` : event._tag))

/** Two lines of a protocol: what comes is sent back in capitals, until the client ends. */
const shout = (socket: SecureSocket.SecureSocket) =>
  Effect.scoped(Effect.flatMap(socket.writer, (write) => socket.run((bytes) => write(text(bytes).toUpperCase()))))

describe("a stream of bytes on the test kit's network", () => {
  it.scoped(
    "goes both ways between a client and a handler that knows it, and is on record from its start to its end",
    () =>
      Effect.gen(function* () {
        const callers: Array<string> = []
        const { authority, connect, events, network } = yield* setup({
          streamHandler: (socket) => {
            callers.push(socket.peer.spiffeId, socket.mySpiffeId, String(socket.protocol))
            return shout(socket)
          }
        })
        let received = ""
        yield* Effect.scoped(
          Effect.gen(function* () {
            const socket = yield* connect({ protocols: ["line/1", "line/0"] })
            expect(socket.protocol).toBe("line/1")
            yield* Effect.scoped(Effect.flatMap(socket.writer, (write) => Effect.all([write("one "), write("two")])))
            yield* socket.run((bytes) => {
              received += text(bytes)
            })
            expect(yield* network.connections).toMatchObject([{ id: socket.connectionId, peer: socket.peer.spiffeId }])
          })
        )
        expect(received).toBe("ONE TWO")
        expect(callers).toEqual([authority.id("/client"), authority.id("/server"), "line/1"])
        expect(record(events)).toEqual(["ConnectionAttempted", "ConnectionEstablished", "ConnectionClosed Shutdown"])
        expect(yield* network.connections).toMatchObject([{ closed: { reason: "Shutdown" } }])
      })
  )

  it.scoped("is a new connection for each run of a socket, and one that its peer ends is closed in order", () =>
    Effect.gen(function* () {
      const { events, make, network } = yield* setup({ streamHandler: () => Effect.void })
      const socket = yield* make
      yield* socket.run(() => {})
      yield* socket.run(() => {})
      expect(yield* network.attempts).toBe(2)
      expect(record(events).filter((event) => event.startsWith("ConnectionClosed"))).toEqual([
        "ConnectionClosed Shutdown",
        "ConnectionClosed Shutdown"
      ])
    })
  )

  it.scoped("makes a writer wait while nobody reads, and loses nothing", () =>
    Effect.gen(function* () {
      const begin = yield* Deferred.make<void>()
      let bytes = 0
      const { connect } = yield* setup({
        streamHandler: (socket) =>
          Effect.zipRight(
            Deferred.await(begin),
            socket.run((chunk) => {
              bytes += chunk.length
            })
          )
      })
      const socket = yield* connect()
      const writing = yield* Effect.fork(
        Effect.scoped(
          Effect.flatMap(socket.writer, (write) => Effect.replicateEffect(write(new Uint8Array(30_000)), 10))
        )
      )
      yield* TestClock.adjust(0)
      expect((yield* Fiber.poll(writing))._tag).toBe("None")
      yield* Deferred.succeed(begin, undefined)
      yield* Fiber.join(writing)
      yield* socket.run(() => {})
      expect(bytes).toBe(300_000)
    })
  )

  it.scoped("is refused as a connection over sockets is: another peer, and a client that the peer does not serve", () =>
    Effect.gen(function* () {
      const { authority, connect, events, network } = yield* setup()
      yield* network.setOnConnect(TestConnector.impostor(authority.id("/somebody-else")))
      expect(yield* Effect.flip(Effect.scoped(connect()))).toMatchObject({ reason: "UnexpectedPeer" })
      yield* network.setOnConnect(TestConnector.unreachable())
      expect(yield* Effect.flip(Effect.scoped(connect()))).toMatchObject({ reason: "Refused" })
      const id = authority.id("/server")
      const authorize = PeerMatcher.exactly(authority.id("/other"))
      yield* network.setOnConnect(() => Effect.succeed({ spiffeId: id, authorize }))
      yield* Effect.scoped(
        Effect.flatMap(connect(), (socket) => socket.run(() => Effect.dieMessage("expected no byte")))
      )
      expect(record(events)).toEqual([
        ...["ConnectionAttempted", "ConnectionRefused"],
        ...["ConnectionAttempted", "ConnectionRefused"],
        ...["ConnectionAttempted", "ConnectionEstablished", "ConnectionClosed PeerClosed"]
      ])
    })
  )

  it.scoped("is lost for the handler at its other end too when it ends out of order", () =>
    Effect.gen(function* () {
      const atPeer = yield* Deferred.make<unknown>()
      const { connect, identity } = yield* setup({
        streamHandler: (socket) =>
          Effect.flatMap(Effect.flip(socket.run(() => {})), (error) => Deferred.succeed(atPeer, error))
      })
      yield* connect()
      yield* identity.fail(new IdentityError.IdentityError({ reason: "Withdrawn", description: "by the test" }))
      expect(yield* Deferred.await(atPeer)).toMatchObject({ _tag: "SocketError" })
    })
  )
})

it.scoped("a dialer that carries requests only refuses a stream as this side's fault, on record", () =>
  Effect.gen(function* () {
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const events: Array<AuditEvent.AuditEvent> = []
    const services = Dialer.layer(Effect.succeed({ dial: () => Effect.never })).pipe(
      Layer.provide(DevAuthority.layerIdentity(authority, { path: "/client" })),
      Layer.provide(AuditLog.layerMemory(events))
    )
    const error = yield* SecureSocket.connect({
      peer: authority.id("/server"),
      host: "server.internal",
      port: 7000
    }).pipe(Effect.provide(services), Effect.scoped, Effect.flip)
    expect(error).toMatchObject({ _tag: "ConnectionError", reason: "LocalFault", isRetryable: false })
    expect(String(error)).toContain("it carries requests only")
    expect(record(events)).toEqual(["ConnectionAttempted", "ConnectionRefused"])
  })
)
