import { setImmediate } from "node:timers/promises"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import { HttpClientRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Exit, type Fiber, Scope } from "effect"
import * as fc from "fast-check"
import { type Acceptor, AuditLog, type Connector, TransportConfig } from "../../src/index.js"
import * as Accepting from "../../src/internal/connection/accept.js"
import * as Attempt from "../../src/internal/connection/attempt.js"
import { ManualRuntime } from "../manualRuntime.js"
import { type Certificate, certificate, context, FakeIdentity, FakeWire, Recorded, verifier } from "./fakeWire.js"

/** The unit of time that passes, in milliseconds. */
const tick = 500
const grace = 4_000
const timeout = 3_000
const lastRequest = 500
const matcher = PeerMatcher.memberOf(SpiffeId.trustDomain(SpiffeId.make("spiffe://example.org/x")))

const config = Either.getOrThrow(TransportConfig.make({ timeout, connectTimeout: 5_000, maxConnectionAge: 60_000 }))

/** One for all programs, and another one after a program that failed: it may have left something asleep. */
let runtime = new ManualRuntime()

/** What the model knows of one established connection. */
interface Known {
  readonly side: "Client" | "Server"
  readonly wire: FakeWire
  readonly own: Certificate
  readonly peer: Certificate
  readonly expiresAt: number
  /** When, on the monotonic clock, nothing stood behind it any more. */
  lostAt: number | undefined
  /** Since when its certificates have ended, by the wall clock as it is set now. */
  expiredAt: number | undefined
  requestsSinceLost: number
  start: () => boolean
}

interface Handshake {
  isAbandoned: boolean
  readonly end: (wire: FakeWire) => void
}

interface World {
  authorities: ReadonlyArray<string>
  own: Certificate
  withdrawn: boolean
}

/** One program on one client layer and one server layer that share their identity, and what must hold of it at every step. */
class Program {
  readonly runtime = runtime
  readonly recorded = new Recorded()
  readonly scope = this.now(Scope.make())
  readonly world: World = { authorities: ["A"], own: certificate("me", "A"), withdrawn: false }
  readonly identity = this.now(FakeIdentity.make(context(this.world.own, "A")))
  readonly known: Array<Known> = []
  readonly wires: Array<FakeWire> = []
  /** Handshakes of the client that were begun. */
  readonly dialed: Array<Handshake> = []
  /** What ends those of them that have not ended. */
  readonly dialing: Array<() => void> = []
  readonly accepted: Array<{
    readonly attempt: Acceptor.Attempt<string>
    readonly wire: FakeWire
    readonly peer: Certificate
    readonly own: Certificate
  }> = []
  readonly inFlight: Array<() => void> = []
  isOver = false
  private readonly connector = this.provide(
    Attempt.make(
      {
        dial: () =>
          Effect.async<FakeWire>((resume) => {
            const handshake: Handshake = { isAbandoned: false, end: (wire) => resume(Effect.succeed(wire)) }
            this.dialed.push(handshake)
            return Effect.sync(() => {
              handshake.isAbandoned = true
            })
          }),
        verifier,
        ownVerifier: verifier
      },
      this.identity.provider
    )
  )
  private readonly acceptor = this.provide(
    Accepting.make(
      {
        authorize: matcher,
        prepare: ({ svid }) => Either.right(svid.fingerprint),
        handshakeTimeoutMillis: 5_000,
        maxAgeMillis: 60_000,
        graceMillis: grace,
        firstRequestMillis: 30_000,
        maxConnections: 6,
        maxConnectionsPerAddress: 5,
        maxHandshakes: 4,
        maxHandshakesPerAddress: 3,
        verifier,
        ownVerifier: verifier
      },
      this.identity.provider
    )
  )

  private now<A, E>(effect: Effect.Effect<A, E>): A {
    const fiber = this.runtime.fork(effect)
    this.runtime.flush()
    return Exit.getOrElse(fiber.unsafePoll() ?? Exit.die("it waits"), (cause) => assert.fail(String(cause)))
  }

  private provide<A, E>(effect: Effect.Effect<A, E, AuditLog.AuditLog | Scope.Scope>): A {
    return this.now(effect.pipe(Effect.provideService(AuditLog.AuditLog, this.recorded.log), Scope.extend(this.scope)))
  }

  get mono(): number {
    return this.runtime.clock.now
  }

  get wall(): number {
    return this.runtime.clock.unsafeCurrentTimeMillis()
  }

  /** A peer's certificate: of one CA or the other, for ever or for a while. */
  private peer(n: number): Certificate {
    return certificate(
      `peer-${n % 3}`,
      n % 5 === 0 ? "B" : "A",
      n % 4 === 0 ? this.wall + 5_000 + (n % 7) * 1_000 : undefined
    )
  }

  private wire(peer: Certificate, n: number): FakeWire {
    const wire = new FakeWire(peer)
    wire.lingers = n % 6 === 0
    this.wires.push(wire)
    return wire
  }

  private track(side: Known["side"], wire: FakeWire, own: Certificate, peer: Certificate, start: () => boolean): void {
    const expiresAt = Math.min(own.notAfter, peer.notAfter)
    this.known.push({
      side,
      wire,
      own,
      peer,
      expiresAt,
      lostAt: undefined,
      expiredAt: undefined,
      requestsSinceLost: 0,
      start
    })
  }

  dial(n: number): void {
    const { own } = this.world
    const options: Connector.ConnectOptions = {
      matcher,
      host: `10.0.0.${n % 4}`,
      port: 1,
      config,
      onClose: () => {}
    }
    const before = this.dialed.length
    const scope = this.now(Scope.make())
    const fiber: Fiber.RuntimeFiber<Connector.Connection, unknown> = this.runtime.fork(
      Scope.extend(this.connector.connect(options), scope)
    )
    this.runtime.flush()
    const handshake = this.dialed[before]
    if (handshake === undefined) return
    this.dialing.push(() => {
      if (handshake.isAbandoned) return
      const peer = this.peer(n)
      const wire = this.wire(peer, n)
      handshake.end(wire)
      this.runtime.flush()
      const exit = fiber.unsafePoll()
      if (exit === null || Exit.isFailure(exit)) {
        assert.isFalse(wire.isOpen, "a refused attempt leaves its wire open")
        return
      }
      this.track("Client", wire, own, peer, () => this.start(exit.value, wire))
    })
  }

  private start(connection: Connector.Connection, wire: FakeWire): boolean {
    if (!connection.isUsable()) return false
    const fiber = this.runtime.fork(Effect.void)
    const request = HttpClientRequest.get("https://peer.internal/")
    connection.unsafeStart({ request, path: "/", fiber, onSettled: () => {} }, () => {})
    this.inFlight.push(() => wire.current?.settle())
    return true
  }

  accept(n: number): void {
    const peer = this.peer(n)
    const wire = this.wire(peer, n)
    const listeners: Array<() => void> = []
    wire.onGone(() => {
      for (const listener of listeners) listener()
    })
    const attempt = this.acceptor.accept({
      address: `10.0.0.${n % 4}:${n}`,
      host: `10.0.0.${n % 4}`,
      destroy: wire.destroy,
      onGone: (listener) => void listeners.push(listener)
    })
    if (attempt === undefined) assert.isFalse(wire.isOpen, "a connection that is not accepted is not destroyed")
    else this.accepted.push({ attempt, wire, peer, own: this.world.own })
  }

  secure(n: number): void {
    const [taken] = this.accepted.splice(n % Math.max(1, this.accepted.length), 1)
    if (taken === undefined || !taken.wire.isOpen) return
    const { attempt, own, peer, wire } = taken
    const verdict = attempt.secured(wire, { canAnnounce: () => n % 2 === 0, announce: () => {}, close: wire.destroy })
    if (verdict._tag !== "Serve") {
      wire.destroy()
      return
    }
    const { connection } = verdict
    this.track("Server", wire, own, peer, () => {
      const request = connection.requestStarted({ method: "GET", target: "/" })
      if (request === undefined) return false
      this.inFlight.push(() => request.ended({ status: 200 }))
      return true
    })
  }

  /** A request begins on some connection, where the layer allows it: then the model must allow it too. */
  request(n: number): void {
    const known = this.known[n % Math.max(1, this.known.length)]
    if (known === undefined || !known.start()) return
    assert.isTrue(known.wire.isOpen, "a request on a connection that is off the wire")
    assert.isBelow(this.wall, known.expiresAt, "a request past the end of a certificate")
    if (known.lostAt === undefined) return
    known.requestsSinceLost++
    assert.strictEqual(known.side, "Server", "a request of ours on a connection nothing stands behind")
    assert.strictEqual(known.requestsSinceLost, 1, "more than one last request")
    assert.isAtMost(this.mono, known.lostAt + lastRequest, "a last request that came too late")
  }

  rotate(authorities: ReadonlyArray<string>, n: number): void {
    const [ca = "A"] = authorities
    const notAfter = n % 3 === 0 ? this.wall + 10_000 : Number.POSITIVE_INFINITY
    this.world.own = certificate("me", ca, notAfter)
    this.world.authorities = authorities
    this.world.withdrawn = false
    this.now(this.identity.set(context(this.world.own, ...authorities)))
    // After a failure it is subscribed to again every 250 milliseconds.
    this.pass(tick)
  }

  withdraw(): void {
    this.world.withdrawn = true
    this.now(this.identity.fail("Withdrawn"))
  }

  /** Lets time pass: each sleeper wakes in its own moment. */
  pass(millis: number): void {
    const { clock } = this.runtime
    for (let left = millis; left > 0; ) {
      const step = Math.min(left, Math.max(1, Math.ceil(clock.untilNext)))
      this.runtime.advance(step)
      this.runtime.flush()
      this.check()
      left -= step
    }
  }

  end(): void {
    if (this.isOver) return
    this.isOver = true
    const closing = this.runtime.fork(Scope.close(this.scope, Exit.void))
    this.runtime.flush()
    for (const wire of this.wires) if (wire.lingers) wire.leave("PeerClosed")
    this.runtime.flush()
    this.pass(grace + tick)
    assert.isNotNull(closing.unsafePoll(), "the scope waits for a connection for longer than its grace")
  }

  /** What must hold at every moment. */
  check(): void {
    const { authorities, withdrawn } = this.world
    for (const known of this.known) {
      const stands = !withdrawn && authorities.includes(known.own.ca) && authorities.includes(known.peer.ca)
      if (!stands) known.lostAt ??= this.mono
      if (this.wall < known.expiresAt) known.expiredAt = undefined
      else known.expiredAt ??= this.mono
      const since = Math.min(known.lostAt ?? Number.POSITIVE_INFINITY, known.expiredAt ?? Number.POSITIVE_INFINITY)
      if (!known.wire.isOpen) continue
      const longest = known.side === "Client" ? timeout : lastRequest + grace
      // The wall clock is looked at every ten seconds at least.
      const late = 10_000
      if (this.mono > since + longest + late) assert.fail("a connection outlives what stood behind it")
    }
  }

  /** What must hold when all is over. */
  conclude(): void {
    this.end()
    assert.isFalse(
      this.wires.some(({ isOpen }) => isOpen),
      "a wire is left open"
    )
    assert.strictEqual(this.runtime.clock.sleeping, 0, "a fiber is left asleep")
    const ends = new Map<string, Array<string>>()
    for (const event of this.recorded.events) {
      if (!("connectionId" in event)) continue
      const key = "requestId" in event ? event.requestId : event.connectionId
      ends.set(key, [...(ends.get(key) ?? []), event._tag.replace(/^(Connection|Request)/, "")])
    }
    const whole = ["Attempted,Refused", "Attempted,Established,Closed", "Started,Ended"]
    for (const [key, tags] of ends) {
      if (!whole.includes(tags.join())) assert.fail(`the record of ${key}: ${tags.join()}`)
    }
  }
}

const steps: ReadonlyArray<(program: Program, n: number) => void> = [
  (program, n) => program.dial(n),
  (program, n) => program.dialing.splice(n % Math.max(1, program.dialing.length), 1)[0]?.(),
  (program, n) => program.dialing.splice(n % Math.max(1, program.dialing.length), 1)[0]?.(),
  (program, n) => program.accept(n),
  (program, n) => program.secure(n),
  (program, n) => program.secure(n),
  (program, n) => program.request(n),
  (program, n) => program.request(n),
  (program, n) => program.request(n),
  (program, n) => program.inFlight.splice(n % Math.max(1, program.inFlight.length), 1)[0]?.(),
  (program, n) => program.rotate(["A"], n),
  (program, n) => program.rotate(["A", "B"], n),
  (program, n) => program.rotate(["B"], n),
  (program, n) => (n % 2 === 0 ? program.withdraw() : undefined),
  (program, n) => program.pass((n % 12) * tick),
  (program, n) => program.pass((n % 4) * 5_000),
  (program, n) => {
    program.runtime.clock.wallOffset += ((n % 9) - 4) * 4_000
  },
  (program, n) => program.wires[n % Math.max(1, program.wires.length)]?.leave(n % 2 === 0 ? "PeerClosed" : "Error"),
  (program, n) => (n % 10 === 0 ? program.end() : undefined)
]

const play = (numbers: ReadonlyArray<number>): void => {
  const program = new Program()
  for (const number of numbers) {
    steps[number % steps.length]?.(program, Math.floor(number / steps.length))
    program.runtime.flush()
    program.check()
  }
  program.conclude()
  program.runtime.clock.wallOffset = 0
}

const run = (numbers: ReadonlyArray<number>): void => {
  let succeeded = false
  try {
    play(numbers)
    succeeded = true
  } finally {
    if (!succeeded) runtime = new ManualRuntime()
  }
}

/** How many programs are played, in parts: between them the event loop runs, without which vitest takes the process for dead. */
const runs = Number(process.env["MODEL_RUNS"] ?? 1_000)
const part = 50
/** Runs of different seeds, a whole number each, play different programs; without one every run plays others. */
const seed = process.env["MODEL_SEED"]

describe("random lives of connections on both sides", () => {
  it.each(Array.from({ length: Math.ceil(runs / part) }, (_, i) => i))(
    "serve nothing past their credentials, leave nothing open, and have one end each on record: part %i",
    async (i) => {
      fc.assert(fc.property(fc.array(fc.nat(100_000), { minLength: 8, maxLength: 24 }), run), {
        numRuns: part,
        ...(seed === undefined ? undefined : { seed: Number(seed) * 100_000 + i })
      })
      await setImmediate()
    },
    300_000
  )
})
