import { IdentityError, PeerMatcher } from "@agentweave/spiffe"
import { DevAuthority, TestConnector, TestIdentity, type TestMessage } from "@agentweave/testkit"
import { type AuditEvent, AuditLog, Dialer, SecureSocket, type TransportConfig } from "@agentweave/transport"
import { describe, expect, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Layer, Scope, TestClock } from "effect"

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

const setup = (options: { readonly streamHandler?: TestMessage.StreamHandler } = {}) =>
  Effect.gen(function* () {
    const [authority, next] = yield* Effect.replicateEffect(DevAuthority.make({ trustDomain: "example.org" }), 2)
    if (authority === undefined || next === undefined) return yield* Effect.dieMessage("expected two authorities")
    const identity = yield* TestIdentity.make(yield* authority.context({ path: "/client", ttl: "10 hours" }))
    const network = yield* TestConnector.make(options)
    const events: Array<AuditEvent.AuditEvent> = []
    const services = network.layer.pipe(Layer.provide(identity.layer), Layer.provide(AuditLog.layerMemory(events)))
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const context = yield* Layer.buildWithScope(services, scope)
    const to: SecureSocket.Options = { peer: authority.id("/server"), host: "server.internal", port: 7000 }
    return {
      authority,
      next,
      identity,
      network,
      events,
      end: Scope.close(scope, Exit.void),
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
})

type World = Effect.Effect.Success<ReturnType<typeof setup>> & { readonly lose: Effect.Effect<unknown> }

interface Ending {
  readonly when: string
  readonly reason: string
  /** From the error of the one that reads it. */
  readonly told: string
  readonly config?: TransportConfig.Options
  readonly end: (world: World) => Effect.Effect<unknown, unknown>
}

const withdrawn = new IdentityError.IdentityError({ reason: "Withdrawn", description: "by the test" })

const endings: ReadonlyArray<Ending> = [
  {
    when: "a certificate on it expires",
    reason: "Expiry",
    told: "a certificate on it expires",
    end: () => TestClock.adjust("10 hours")
  },
  {
    when: "it has reached its greatest age",
    reason: "Age",
    told: "it has reached the greatest age",
    config: { maxConnectionAge: "1 hour" },
    end: () => TestClock.adjust("1 hour")
  },
  {
    when: "our own identity is withdrawn",
    reason: "Withdrawn",
    told: "our own identity was withdrawn",
    end: ({ identity }) => Effect.zipRight(identity.fail(withdrawn), TestClock.adjust(0))
  },
  {
    when: "the authority of its peer is distrusted",
    reason: "Distrust",
    told: "no longer holds the authority of the peer",
    end: ({ identity, next }) =>
      Effect.zipRight(identity.rotate(next.context({ path: "/client" })), TestClock.adjust(0))
  },
  {
    when: "the scope of its connector ends",
    reason: "Shutdown",
    told: "the scope it was supervised in has ended",
    end: ({ end }) => end
  },
  { when: "its peer is lost", reason: "Error", told: "the connection was lost", end: ({ lose }) => lose }
]

describe("a stream that is open on the test kit's network ends at once, with its reason on record and in the error, when", () => {
  it.scoped.each(endings)("$when", ({ config, end, reason, told }) =>
    Effect.gen(function* () {
      const lost = yield* Deferred.make<never, string>()
      const atPeer = yield* Deferred.make<unknown>()
      const world = yield* setup({
        streamHandler: (socket) =>
          Effect.raceFirst(
            Deferred.await(lost),
            Effect.tapErrorCause(
              socket.run(() => {}),
              (cause) => Deferred.succeed(atPeer, Cause.squash(cause))
            )
          )
      })
      const socket = yield* world.connect(config === undefined ? {} : { config })
      const reading = yield* Effect.fork(Effect.flip(socket.run(() => {})))
      yield* TestClock.adjust("30 minutes")
      expect(yield* world.network.open).toBe(1)
      yield* end({ ...world, lose: Deferred.fail(lost, "lost") })
      const error = yield* Fiber.join(reading)
      expect(error).toMatchObject({ _tag: "SocketError", cause: { _tag: "ConnectionError", reason: "Lost" } })
      expect(String(error.cause)).toContain(told)
      expect(record(world.events)).toEqual([
        "ConnectionAttempted",
        "ConnectionEstablished",
        `ConnectionClosed ${reason}`
      ])
      if (reason !== "Error") expect(yield* Deferred.await(atPeer)).toMatchObject({ _tag: "SocketError" })
      expect(yield* world.network.open).toBe(0)
      const write = yield* socket.writer
      expect(yield* Effect.flip(write("more"))).toMatchObject({ _tag: "SocketError" })
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
