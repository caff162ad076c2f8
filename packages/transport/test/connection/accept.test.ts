import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Exit, Scope } from "effect"
import { type Acceptor, AuditLog, type Wire } from "../../src/index.js"
import { make, type Settings } from "../../src/internal/connection/accept.js"
import { ManualRuntime } from "../manualRuntime.js"
import { certificate, context, FakeIdentity, FakeWire, Recorded, verifier } from "./fakeWire.js"

const hour = 3_600_000
const own = certificate("server", "A")
const peer = certificate("client", "A")
const never = Number.POSITIVE_INFINITY

/** One end of a connection as its transport holds it. */
class Socket {
  isOpen = true
  canAnnounce = false
  announced = 0
  /** Bytes that the peer took; absent while none wait to be sent. */
  sent: number | undefined = undefined
  closedInOrder: boolean | undefined
  private readonly listeners: Array<() => void> = []
  readonly wire: FakeWire
  readonly incoming: Wire.Incoming
  readonly shell: Wire.Shell = {
    canAnnounce: () => this.canAnnounce,
    sent: () => this.sent,
    announce: () => {
      this.announced++
      this.canAnnounce = false
    },
    close: (inOrder) => {
      this.closedInOrder = inOrder
      this.destroy()
    }
  }

  constructor(host: string, made = peer) {
    this.wire = new FakeWire(made)
    this.incoming = {
      address: `${host}:50000`,
      host,
      destroy: () => this.destroy(),
      onGone: (listener) => void this.listeners.push(listener)
    }
  }

  destroy(): void {
    if (!this.isOpen) return
    this.isOpen = false
    for (const listener of this.listeners) listener()
    this.wire.leave("PeerClosed")
  }
}

class Server {
  readonly runtime = new ManualRuntime()
  readonly recorded = new Recorded()
  readonly scope = this.now(Scope.make())
  readonly identity = this.now(FakeIdentity.make(context(own, "A")))
  readonly acceptor: Acceptor.Acceptor<string>

  constructor(settings: Partial<Settings<string>> = {}) {
    const making = make(
      {
        authorize: PeerMatcher.exactly(peer.id),
        prepare: ({ svid }) => Either.right(svid.fingerprint),
        handshakeTimeoutMillis: 10_000,
        maxAgeMillis: never,
        graceMillis: 20_000,
        firstRequestMillis: 65_000,
        maxConnections: 100,
        maxConnectionsPerAddress: 50,
        maxHandshakes: 10,
        maxHandshakesPerAddress: 5,
        verifier,
        ownVerifier: verifier,
        ...settings
      },
      this.identity.provider
    )
    this.acceptor = this.now(
      making.pipe(Effect.provideService(AuditLog.AuditLog, this.recorded.log), Scope.extend(this.scope))
    )
  }

  now<A, E>(effect: Effect.Effect<A, E>): A {
    const fiber = this.runtime.fork(effect)
    this.runtime.flush()
    return Exit.getOrElse(fiber.unsafePoll() ?? Exit.die("it waits"), (cause) => assert.fail(String(cause)))
  }

  pass(millis: number): void {
    for (let left = millis; left > 0; left -= 500) {
      this.runtime.advance(Math.min(left, 500))
      this.runtime.flush()
    }
  }

  /** A connection whose handshake has succeeded, or what became of it instead. */
  serve(socket = new Socket("10.0.0.1")): {
    readonly socket: Socket
    readonly connection: Acceptor.AcceptedConnection
  } {
    const verdict = this.acceptor.accept(socket.incoming)?.secured(socket.wire, socket.shell)
    if (verdict?._tag !== "Serve") assert.fail(`expected to serve, got ${verdict?._tag}`)
    return { socket, connection: verdict.connection }
  }
}

const get = { method: "GET", target: "/a?secret" }
const times = (n: number) => Array.from({ length: n }, (_, i) => i)

describe("an incoming connection", () => {
  it("is on record once, and then once as what came of it", () => {
    const server = new Server()
    server.serve()
    assert.deepStrictEqual(server.recorded.tags, ["ConnectionAttempted", "ConnectionEstablished"])
  })

  it("is refused by the gate, and only a peer that proved who it is is to be told so", () => {
    for (const [made, verdict, reason] of [
      [certificate("client", "B"), "Close", "UntrustedChain"],
      [certificate("other", "A"), "Tell", "UnexpectedPeer"]
    ] as const) {
      const server = new Server()
      const socket = new Socket("10.0.0.1", made)
      assert.strictEqual(server.acceptor.accept(socket.incoming)?.secured(socket.wire, socket.shell)._tag, verdict)
      socket.destroy()
      assert.deepStrictEqual(server.recorded.tags, [
        "ConnectionAttempted",
        `ConnectionRefused PeerVerificationError ${reason}`
      ])
    }
  })

  it("has its handshake's limit on the monotonic clock, and is on record once however often it fails then", () => {
    const server = new Server()
    const socket = new Socket("10.0.0.1")
    const attempt = server.acceptor.accept(socket.incoming)
    server.runtime.clock.wallOffset = hour
    server.pass(9_500)
    assert.isTrue(socket.isOpen)
    server.pass(500)
    assert.isFalse(socket.isOpen)
    assert.strictEqual(attempt?.secured(socket.wire, socket.shell)._tag, "Close")
    assert.deepStrictEqual(server.recorded.tags, ["ConnectionAttempted", "ConnectionRefused TimeoutError Connect"])
  })

  it("is judged under the bundles of the moment its handshake ends", () => {
    const server = new Server()
    const socket = new Socket("10.0.0.1")
    const attempt = server.acceptor.accept(socket.incoming)
    server.now(server.identity.set(context(certificate("server", "B"), "B")))
    assert.strictEqual(attempt?.secured(socket.wire, socket.shell)._tag, "Close")
  })

  it("is refused beyond a limit, in all and of one address, counted and put on record as one event", () => {
    const rows: ReadonlyArray<readonly [Partial<Settings<string>>, (i: number) => string, string, boolean]> = [
      [{ maxConnections: 7 }, (i) => `10.0.0.${i}`, "maxConnections", true],
      [{ maxConnectionsPerAddress: 7 }, () => "10.0.0.1", "maxConnectionsPerAddress", true],
      [{ maxHandshakes: 7 }, (i) => `10.0.0.${i}`, "maxHandshakes", false],
      [{ maxHandshakesPerAddress: 7 }, () => "10.0.0.1", "maxHandshakesPerAddress", false]
    ]
    for (const [settings, host, limit, secured] of rows) {
      const server = new Server({ maxHandshakes: 100, maxHandshakesPerAddress: 100, ...settings })
      const sockets = times(30).map((i) => new Socket(host(i)))
      for (const socket of sockets) {
        const attempt = server.acceptor.accept(socket.incoming)
        if (secured) attempt?.secured(socket.wire, socket.shell)
      }
      assert.strictEqual(sockets.filter(({ isOpen }) => isOpen).length, 7)
      assert.isFalse(server.recorded.tags.includes("ConnectionsRefused"))
      server.pass(10_000)
      const summed = server.recorded.events.filter(({ _tag }) => _tag === "ConnectionsRefused")
      assert.deepStrictEqual(
        summed.map((event) => event._tag === "ConnectionsRefused" && [event.reason, event.count]),
        [[limit, 23]]
      )
      // What ends makes room.
      sockets[0]?.destroy()
      assert.isDefined(server.acceptor.accept(new Socket(host(99)).incoming))
    }
  })

  it("is not begun without an identity of ours: on record as our fault once a state, and counted after that", () => {
    const states: ReadonlyArray<readonly [(server: Server) => void, string]> = [
      [(server) => server.now(server.identity.fail("Withdrawn")), "Withdrawn"],
      [
        (server) => {
          server.now(server.identity.set(context(certificate("server", "A", hour), "A")))
          server.runtime.clock.wallOffset = 2 * hour
        },
        "Expired"
      ]
    ]
    for (const [lose, reason] of states) {
      const server = new Server()
      lose(server)
      const sockets = times(20).map((i) => new Socket(`10.0.0.${i}`))
      for (const socket of sockets) assert.isUndefined(server.acceptor.accept(socket.incoming))
      assert.isFalse(sockets.some(({ isOpen }) => isOpen))
      server.pass(10_000)
      assert.deepStrictEqual(server.recorded.tags, [
        "ConnectionAttempted",
        `ConnectionRefused IdentityError ${reason}`,
        "ConnectionsRefused"
      ])
      server.now(server.identity.set(context(certificate("server", "A"), "A", "B")))
      server.pass(500)
      server.serve()
    }
  })
})

describe("a connection that is served", () => {
  it("leaves two events for each request, with the path and without the query, however often its end is told", () => {
    const server = new Server()
    const { connection } = server.serve()
    const request = connection.requestStarted(get)
    request?.ended({ status: 200 })
    request?.ended({ error: "Interrupted" })
    assert.deepStrictEqual(server.recorded.tags.slice(2), ["RequestStarted", "RequestEnded whole"])
    assert.strictEqual(Reflect.get(server.recorded.events[2] ?? {}, "path"), "/a")
  })

  it("ends when it never speaks, and not while it is in use or has been", () => {
    const server = new Server()
    const [silent, used] = [server.serve(), server.serve()]
    used.connection.requestStarted(get)?.ended({ status: 200 })
    server.pass(65_000)
    assert.deepStrictEqual([silent.socket.isOpen, used.socket.isOpen], [false, true])
    server.pass(65_000)
    assert.isTrue(used.socket.isOpen)
    assert.strictEqual(server.recorded.tags.at(-1), "ConnectionClosed Idle")
  })

  it("serves the request that is on its way when it must end, and says that it was the last", () => {
    const server = new Server()
    const { connection, socket } = server.serve()
    connection.requestStarted(get)?.ended({ status: 200 })
    server.now(server.identity.set(context(certificate("server", "B"), "B")))
    assert.isTrue(socket.isOpen)
    socket.canAnnounce = true
    const last = connection.requestStarted(get)
    assert.strictEqual(socket.announced, 1)
    assert.isUndefined(connection.requestStarted(get))
    last?.ended({ status: 200 })
    assert.isTrue(socket.closedInOrder)
    assert.strictEqual(server.recorded.tags.at(-1), "ConnectionClosed Distrust")
  })

  it("waits half a second for it, and cuts what is in flight after its grace", () => {
    const server = new Server()
    const [idle, busy] = [server.serve(), server.serve()]
    idle.connection.requestStarted(get)?.ended({ status: 200 })
    busy.socket.canAnnounce = true
    busy.connection.requestStarted(get)
    server.now(server.identity.fail("Withdrawn"))
    server.pass(500)
    assert.deepStrictEqual([idle.socket.isOpen, busy.socket.isOpen, busy.socket.announced], [false, true, 1])
    server.pass(19_000)
    assert.isTrue(busy.socket.isOpen)
    server.pass(500)
    assert.isFalse(busy.socket.isOpen)
    assert.deepStrictEqual(
      server.recorded.tags.filter((tag) => tag.startsWith("ConnectionClosed")),
      ["ConnectionClosed Withdrawn", "ConnectionClosed Withdrawn"]
    )
  })

  it("serves nothing past the end of a certificate on it, by the wall clock", () => {
    const server = new Server()
    const { connection, socket } = server.serve(new Socket("10.0.0.1", certificate("client", "A", hour)))
    server.runtime.clock.wallOffset = hour - 1
    connection.requestStarted(get)?.ended({ status: 200 })
    server.runtime.clock.wallOffset = hour
    assert.isUndefined(connection.requestStarted(get))
    assert.isFalse(socket.isOpen)
    assert.strictEqual(server.recorded.tags.at(-1), "ConnectionClosed Expiry")
  })

  it("ends by the time a certificate on it does, and one that is no longer HTTP without waiting for a request", () => {
    const server = new Server()
    const made = certificate("client", "A", hour)
    const [idle, upgraded] = [server.serve(new Socket("10.0.0.1", made)), server.serve(new Socket("10.0.0.1", made))]
    idle.connection.requestStarted(get)?.ended({ status: 200 })
    upgraded.connection.requestStarted(get)?.upgraded()
    server.pass(0.9 * hour - 1_000)
    assert.deepStrictEqual([idle.socket.isOpen, upgraded.socket.isOpen], [true, true])
    server.pass(0.1 * hour + 1_000)
    assert.deepStrictEqual([idle.socket.isOpen, upgraded.socket.isOpen], [false, false])
    assert.deepStrictEqual(
      server.recorded.tags.filter((tag) => tag.startsWith("ConnectionClosed")),
      ["ConnectionClosed Expiry", "ConnectionClosed Expiry"]
    )
  })

  it("is closed with its layer: the idle at once, what is in flight within its grace, all before the scope has closed", () => {
    const server = new Server()
    const [idle, busy] = [server.serve(), server.serve()]
    const waiting = new Socket("10.0.0.9")
    server.acceptor.accept(waiting.incoming)
    busy.connection.requestStarted(get)
    const closing = server.runtime.fork(Scope.close(server.scope, Exit.void))
    server.runtime.flush()
    assert.deepStrictEqual([idle.socket.isOpen, waiting.isOpen, busy.socket.isOpen], [false, false, true])
    assert.isUndefined(server.acceptor.accept(new Socket("10.0.0.1").incoming))
    server.pass(19_500)
    assert.isNull(closing.unsafePoll())
    server.pass(500)
    assert.isNotNull(closing.unsafePoll())
    assert.isFalse(busy.socket.isOpen)
    assert.strictEqual(server.runtime.clock.sleeping, 0)
  })

  it("is cut when its peer takes none of the bytes that wait for it, and on record for that with its request", () => {
    const server = new Server({ sendMillis: 60_000 })
    const { connection, socket } = server.serve()
    connection.requestStarted(get)
    // One more look may pass before the bytes are seen to wait.
    socket.sent = 0
    server.pass(59_500)
    assert.isTrue(socket.isOpen)
    server.pass(15_500)
    assert.isFalse(socket.isOpen)
    assert.deepStrictEqual(server.recorded.tags.slice(-2), ["RequestEnded SendTimeout", "ConnectionClosed SendTimeout"])
  })

  it("is not cut while its peer takes bytes, however few, or while none wait for it", () => {
    const server = new Server({ sendMillis: 60_000 })
    const { connection, socket } = server.serve()
    connection.requestStarted(get)
    for (const sent of [1, 2, undefined, 2, 3]) {
      socket.sent = sent
      server.pass(59_500)
    }
    assert.isTrue(socket.isOpen)
    socket.sent = undefined
    server.pass(hour)
    assert.isTrue(socket.isOpen)
  })

  it("is not cut for a process that stood still: its peer had no chance to take bytes", () => {
    const server = new Server({ sendMillis: 60_000 })
    const { connection, socket } = server.serve()
    connection.requestStarted(get)
    socket.sent = 0
    server.pass(30_000)
    server.runtime.advance(hour)
    server.runtime.flush()
    assert.isTrue(socket.isOpen)
  })

  it("is not cut for bytes that wait where no limit is set", () => {
    const server = new Server()
    const { connection, socket } = server.serve()
    connection.requestStarted(get)
    socket.sent = 0
    server.pass(hour)
    assert.isTrue(socket.isOpen)
  })
})
