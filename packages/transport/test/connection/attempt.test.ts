import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import { Headers, HttpClientRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Exit, Fiber, Scope } from "effect"
import { AuditLog, type Connector, TransportConfig, type Wire } from "../../src/index.js"
import { make } from "../../src/internal/connection/attempt.js"
import { ManualRuntime } from "../manualRuntime.js"
import { certificate, context, type Dialed, FakeIdentity, FakeWire, Recorded, verifier } from "./fakeWire.js"

const hour = 3_600_000
const peer = certificate("server", "A")
const own = certificate("client", "A")

/** A client of its own, on a clock that stands still until told otherwise. */
class Client {
  readonly runtime = new ManualRuntime()
  readonly recorded = new Recorded()
  readonly wires: Array<FakeWire> = []
  readonly scope = this.now(Scope.make())
  readonly identity = this.now(FakeIdentity.make(context(own, "A")))
  readonly closed: Array<string> = []
  dialed: Dialed = () => Effect.sync(() => this.add(new FakeWire(peer)))
  readonly connector: Connector.Connector["Type"]

  /** With another answer to what our identity is, where a test gives one. */
  constructor(x509Context = this.identity.provider.x509Context) {
    const dialer = { dial: (options: Wire.DialOptions) => this.dialed(options), verifier, ownVerifier: verifier }
    this.connector = this.now(
      make(dialer, { ...this.identity.provider, x509Context }).pipe(
        Effect.provideService(AuditLog.AuditLog, this.recorded.log),
        Scope.extend(this.scope)
      )
    )
  }

  add(wire: FakeWire): FakeWire {
    this.wires.push(wire)
    return wire
  }

  now<A, E>(effect: Effect.Effect<A, E>): A {
    const fiber = this.runtime.fork(effect)
    this.runtime.flush()
    return Exit.getOrElse(fiber.unsafePoll() ?? Exit.die("it waits"), (cause) => assert.fail(String(cause)))
  }

  pass(millis: number): void {
    for (let left = millis; left > 0; left -= 1_000) {
      this.runtime.advance(Math.min(left, 1_000))
      this.runtime.flush()
    }
  }

  /** An attempt in a fiber of its own, and what came of it so far. */
  attempt(config: TransportConfig.Options = {}, matcher: PeerMatcher.PeerMatcher = PeerMatcher.exactly(peer.id)) {
    const scope = this.now(Scope.make())
    const options: Connector.ConnectOptions = {
      matcher,
      host: "server.internal",
      port: 8443,
      config: Either.getOrThrow(TransportConfig.make(config)),
      onClose: (reason) => this.closed.push(reason)
    }
    const fiber = this.runtime.fork(Scope.extend(this.connector.connect(options), scope))
    this.runtime.flush()
    return {
      scope,
      fiber,
      get outcome() {
        const exit = fiber.unsafePoll()
        return exit === null ? "waits" : Exit.match(exit, { onSuccess: () => "connected", onFailure: String })
      }
    }
  }

  connect(config: TransportConfig.Options = {}): Connector.Connection {
    const exit = this.attempt(config).fiber.unsafePoll() ?? Exit.die("it waits")
    return Exit.getOrElse(exit, (cause) => assert.fail(String(cause)))
  }

  start(connection: Connector.Connection): { settled: Array<string | undefined>; abort: () => void } {
    const settled: Array<string | undefined> = []
    const abort = connection.unsafeStart(
      {
        request: HttpClientRequest.get("https://server.internal/"),
        path: "/a?secret",
        fiber: this.runtime.fork(Effect.void),
        onSettled: (error) => settled.push(error)
      },
      () => {}
    )
    return { settled, abort }
  }
}

const attemptedThenRefused = (error: string) => ["ConnectionAttempted", `ConnectionRefused ${error}`]

describe("an attempt to connect", () => {
  it("is on record once, and then once as what came of it", () => {
    const client = new Client()
    const { outcome } = client.attempt()
    assert.strictEqual(outcome, "connected")
    assert.deepStrictEqual(client.recorded.tags, ["ConnectionAttempted", "ConnectionEstablished"])
  })

  it("waits for the first identity as long as a connection may take, then says that none came, and never blames the peer", () => {
    const client = new Client(Effect.never)
    const attempt = client.attempt({ connectTimeout: "10 seconds", timeout: "5 seconds" })
    client.pass(4_999)
    assert.strictEqual(attempt.outcome, "waits")
    client.pass(1)
    assert.match(attempt.outcome, /Unavailable: expected an identity of our own within 5s/)
    assert.deepStrictEqual(client.recorded.tags, attemptedThenRefused("IdentityError Unavailable"))
    assert.strictEqual(client.wires.length, 0)
  })

  it("gives the handshake its whole time, however long the identity took to come", () => {
    let give: (() => void) | undefined
    const client = new Client(
      Effect.async((resume) => {
        give = () => resume(Effect.succeed(context(own, "A")))
      })
    )
    client.dialed = () => Effect.never
    const attempt = client.attempt({ connectTimeout: "10 seconds" })
    client.pass(9_000)
    give?.()
    client.runtime.flush()
    client.pass(9_999)
    assert.strictEqual(attempt.outcome, "waits")
    client.pass(1)
    assert.match(attempt.outcome, /Connect: expected the TCP connection and TLS handshake within 10s/)
  })

  it("opens no socket without a bundle for the peer's domain, nor with an SVID of ours that does not pass", () => {
    const noBundle = new Client()
    const stranger = PeerMatcher.exactly(SpiffeId.make("spiffe://other.org/server"))
    assert.match(noBundle.attempt({}, stranger).outcome, /NoBundle: expected a bundle of other.org, got example.org/)
    const untrusted = new Client()
    untrusted.now(untrusted.identity.set(context(own, "B")))
    assert.match(untrusted.attempt().outcome, /InvalidSvid/)
    assert.deepStrictEqual([...noBundle.wires, ...untrusted.wires], [])
  })

  const refusals: ReadonlyArray<readonly [string, Partial<Wire.TlsDetails>, typeof peer]> = [
    ["SessionResumed", { resumed: true }, peer],
    ["UntrustedChain", { refusal: { reason: "UntrustedChain", description: "OpenSSL" } }, peer],
    ["NotMutual", { certificateRequested: false }, peer],
    ["UntrustedChain", {}, certificate("server", "B")],
    ["UnexpectedPeer", {}, certificate("other", "A")],
    ["Expired", {}, certificate("server", "A", -1)]
  ]
  it.each(refusals)("refuses with %s before a byte is written: %j", (reason, tls, made) => {
    const client = new Client()
    client.dialed = () => Effect.sync(() => client.add(new FakeWire(made, tls)))
    assert.match(client.attempt().outcome, new RegExp(reason))
    assert.deepStrictEqual(client.recorded.tags, attemptedThenRefused(`PeerVerificationError ${reason}`))
    assert.isFalse(client.wires[0]?.isOpen)
  })

  it("refuses a peer whose judgement throws, and the process lives", () => {
    const client = new Client()
    client.dialed = () =>
      Effect.sync(() => {
        const wire = client.add(new FakeWire(peer))
        return Object.assign(wire, {
          leaf: () => {
            throw new Error("no leaf today")
          }
        })
      })
    assert.match(client.attempt().outcome, /VerifierFault/)
  })

  it("is given up by its time limit, by an interruption and by the end of the layer: off the wire, and once on record", () => {
    const ends: ReadonlyArray<
      readonly [(client: Client, fiber: Fiber.RuntimeFiber<unknown, unknown>) => void, string]
    > = [
      [(client) => client.pass(10_000), "TimeoutError Connect"],
      [(client, fiber) => client.now(Fiber.interrupt(fiber)), "Interrupted Interrupted"],
      [(client) => client.now(Scope.close(client.scope, Exit.void)), "ScopeClosedError Connector"]
    ]
    for (const [end, error] of ends) {
      const client = new Client()
      let destroyed = 0
      client.dialed = ({ hold }) => {
        hold(() => {
          destroyed++
        })
        return Effect.never
      }
      const { fiber } = client.attempt()
      end(client, fiber)
      assert.deepStrictEqual(client.recorded.tags, attemptedThenRefused(error))
      assert.strictEqual(destroyed, 1)
    }
  })

  it("is judged again where a bundle changed during its handshake", () => {
    const client = new Client()
    client.dialed = () =>
      Effect.zipRight(client.identity.set(context(certificate("client", "B"), "B")), Effect.yieldNow()).pipe(
        Effect.repeatN(5),
        Effect.map(() => client.add(new FakeWire(peer)))
      )
    assert.match(client.attempt().outcome, /UntrustedChain/)
    assert.isFalse(client.wires[0]?.isOpen)
  })

  it("starts nothing once the layer's scope has ended", () => {
    const client = new Client()
    client.now(Scope.close(client.scope, Exit.void))
    assert.match(client.attempt().outcome, /ScopeClosedError|Connector: expected a connector that is in use/)
    assert.deepStrictEqual(client.recorded.tags, [])
  })
})

describe("a client's connection", () => {
  it("leaves two events for each exchange, with the path and without the query", () => {
    const client = new Client()
    const connection = client.connect()
    const { settled } = client.start(connection)
    assert.isFalse(connection.isUsable())
    client.wires[0]?.current?.settle()
    assert.deepStrictEqual(settled, [undefined])
    assert.isTrue(connection.isUsable())
    assert.deepStrictEqual(client.recorded.tags.slice(2), ["RequestStarted", "RequestEnded whole"])
    assert.strictEqual(Reflect.get(client.recorded.events[2] ?? {}, "path"), "/a")
  })

  it("is closed when its peer's CA is withdrawn, after what is in flight, which has one timeout left", () => {
    const client = new Client()
    const [idle, busy, stuck] = [client.connect(), client.connect(), client.connect()]
    client.start(busy)
    client.start(stuck)
    client.now(client.identity.set(context(certificate("client", "B"), "B")))
    assert.deepStrictEqual(client.closed, ["Distrust"])
    assert.isFalse([idle, busy, stuck].some((connection) => connection.isUsable()))
    client.wires[1]?.current?.settle()
    assert.deepStrictEqual(client.closed, ["Distrust", "Distrust"])
    // Progress prolongs the exchange, and not the connection.
    client.pass(20_000)
    client.wires[2]?.supervision?.setDeadline(client.wires[2].supervision.now() + 30_000)
    client.pass(10_000)
    assert.deepStrictEqual(client.closed, ["Distrust", "Distrust", "Distrust"])
  })

  it("is closed when our own identity is withdrawn, and when the SVID shown on it passes no more", () => {
    const client = new Client()
    client.connect()
    client.now(client.identity.fail("Unavailable"))
    assert.deepStrictEqual(client.closed, [])
    client.now(client.identity.fail("Withdrawn"))
    client.pass(250)
    assert.deepStrictEqual(client.closed, ["Withdrawn"])
    client.now(client.identity.set(context(own, "A", "B")))
    client.dialed = () => Effect.sync(() => client.add(new FakeWire(certificate("server", "B"))))
    client.pass(250)
    client.connect()
    client.now(client.identity.set(context(certificate("client", "B"), "B")))
    assert.deepStrictEqual(client.closed, ["Withdrawn", "Withdrawn"])
  })

  it("is closed when the provider of our identity ends, and none is opened any more", () => {
    const client = new Client()
    client.connect()
    client.now(client.identity.end)
    client.pass(250)
    assert.deepStrictEqual(client.closed, ["Withdrawn"])
    assert.match(client.attempt().outcome, /Unavailable: expected an identity provider that is in use/)
  })

  it("stays when our identity rotates and both certificates on it still pass", () => {
    const client = new Client()
    const connection = client.connect()
    client.now(client.identity.set(context(certificate("client", "B"), "A", "B")))
    assert.isTrue(connection.isUsable())
  })

  it("ends before the certificates on it do, by the wall clock, and starts nothing after them", () => {
    const client = new Client()
    client.dialed = () => Effect.sync(() => client.add(new FakeWire(certificate("server", "A", hour))))
    const connection = client.connect()
    client.runtime.clock.wallOffset = hour - 1
    assert.isTrue(connection.isUsable())
    client.runtime.clock.wallOffset = hour
    assert.isFalse(connection.isUsable())
    assert.deepStrictEqual(client.closed, ["Expiry"])
  })

  it("ends at its age by the monotonic clock, whatever the wall clock shows", () => {
    const client = new Client()
    client.connect({ maxConnectionAge: "1 minute" })
    client.runtime.clock.wallOffset = 5 * hour
    client.pass(50_000)
    client.runtime.clock.wallOffset = -5 * hour
    assert.deepStrictEqual(client.closed, [])
    client.pass(10_000)
    assert.deepStrictEqual(client.closed, ["Age"])
  })

  it("fails an exchange without progress on the monotonic clock", () => {
    const client = new Client()
    const { settled } = client.start(client.connect({ timeout: "2 seconds" }))
    client.runtime.clock.wallOffset = -hour
    client.pass(1_999)
    assert.deepStrictEqual(settled, [])
    client.pass(1)
    assert.deepStrictEqual(settled, ["TimeoutError"])
    assert.deepStrictEqual(client.closed, ["Aborted"])
  })

  it("is not trusted when another one to its address heard nothing for a whole exchange, unless it was heard of since", () => {
    const client = new Client()
    const [dead, idle, alive] = [client.connect(), client.connect(), client.connect()]
    client.start(dead)
    client.pass(1_000)
    client.start(alive)
    client.wires[2]?.current?.exchange.onStatus?.(200, () => Headers.empty)
    client.wires[2]?.current?.settle()
    client.pass(29_000)
    assert.deepStrictEqual(Array.from(client.closed).sort(), ["Aborted", "Unhealthy"])
    assert.deepStrictEqual([idle.isUsable(), alive.isUsable()], [false, true])
  })

  it("is closed with its layer, off the wire and on record before the layer's scope has closed", () => {
    const client = new Client()
    client.start(client.connect())
    client.connect()
    for (const wire of client.wires) wire.lingers = true
    const closing = client.runtime.fork(Scope.close(client.scope, Exit.void))
    client.runtime.flush()
    assert.isNull(closing.unsafePoll())
    for (const wire of client.wires) wire.leave("PeerClosed")
    client.runtime.flush()
    assert.isNotNull(closing.unsafePoll())
    assert.deepStrictEqual(client.recorded.tags.slice(-3), [
      "RequestEnded ConnectionError",
      "ConnectionClosed Shutdown",
      "ConnectionClosed Shutdown"
    ])
    assert.strictEqual(client.runtime.clock.sleeping, 0)
  })
})
