import type { SpiffeId } from "@agentweave/spiffe"
import { type AuditEvent, AuditLog, type Connector, PeerMatcher, TransportConfig } from "@agentweave/transport"
import { HttpClientRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Exit, Fiber, Layer, type Scope, TestClock } from "effect"

/**
 * What a peer presents:
 * - `Proper`: what is asked for, for ten hours. `ShortLived`: the same for ten minutes.
 * - `Unexpected`: another SPIFFE ID. `Untrusted`: a certificate of another CA. `Expired`: one that has ended.
 * - `Silent`: nothing, its connection stays open.
 */
export type Presented = "Proper" | "ShortLived" | "Unexpected" | "Untrusted" | "Expired" | "Silent"

/** One connection between us and a peer. */
export interface Opened {
  /** One request, to its end: whether it was answered. */
  readonly request: Effect.Effect<boolean>
  /** A request has begun, and is answered when `answer` is run. */
  readonly begin: Effect.Effect<{ readonly answer: Effect.Effect<void> }, never, Scope.Scope>
  /** The peer ends the connection. */
  readonly leave: Effect.Effect<void>
}

/** One side of connections, made anew for each test; `identity` is ours. */
export interface Side {
  readonly identity: {
    readonly id: SpiffeId.SpiffeId
    /** Another SVID of the same CA. */
    readonly renew: Effect.Effect<void>
    /** It is taken back. */
    readonly withdraw: Effect.Effect<void>
    /** The CA of the peers is no longer in our bundles. */
    readonly distrustPeers: Effect.Effect<void>
    /** Nor is that of the SVID we have shown, which has a successor of a new CA. */
    readonly replaceAuthority: Effect.Effect<void>
  }
  readonly peer: SpiffeId.SpiffeId
  /** Connects to a peer, or has one connect to us. It may fail, or end before the peer is accepted or refused. */
  readonly meet: (presented: Presented) => Effect.Effect<Opened, unknown, Scope.Scope>
  /** What stands on record of an attempt that the end of our layer has cut. */
  readonly abandoned: string
  /** Ends our layer's scope. */
  readonly end: Effect.Effect<void>
}

/** Our audit log, which can be waited for and refuse events. */
export class LifeRecord {
  readonly events: Array<AuditEvent.AuditEvent> = []
  refused: AuditEvent.AuditEvent["_tag"] | undefined
  private readonly waiters = new Set<() => void>()

  readonly layer = Layer.succeed(AuditLog.AuditLog, {
    unsafeRecord: (event) => {
      if (event._tag === this.refused) return new AuditLog.AuditError({ reason: "Full", description: "by the test" })
      this.events.push(event)
      for (const waiter of Array.from(this.waiters)) waiter()
      return undefined
    }
  })

  get tags(): ReadonlyArray<string> {
    return this.events.map((event) => {
      switch (event._tag) {
        case "ConnectionRefused":
          return `Refused ${event.error} ${event.reason}`
        case "ConnectionClosed":
          return `Closed ${event.reason}`
        case "RequestEnded":
          return `RequestEnded ${event.error ?? event.status}`
        default:
          return event._tag.replace(/^Connection/, "")
      }
    })
  }

  all<Tag extends AuditEvent.AuditEvent["_tag"]>(tag: Tag) {
    return this.events.filter((event): event is Extract<AuditEvent.AuditEvent, { _tag: Tag }> => event._tag === tag)
  }

  /** Waits until so many events have this tag, with its reason where it has one. */
  until(tag: string, count = 1): Effect.Effect<void> {
    return Effect.async((resume) => {
      const look = () => {
        if (this.tags.filter((seen) => seen.startsWith(tag)).length < count) return
        this.waiters.delete(look)
        resume(Effect.void)
      }
      this.waiters.add(look)
      look()
      return Effect.sync(() => this.waiters.delete(look))
    })
  }
}

/** Limits that hold on every side of this suite. */
export const limits = { handshake: "10 seconds", age: "1 hour", grace: "2 hours" } as const

const config = Either.getOrThrow(
  TransportConfig.make({ connectTimeout: limits.handshake, timeout: limits.grace, maxConnectionAge: limits.age })
)

/** What a side that asks for connections is made of: a connector, and where a peer is that presents this. */
export interface Asking {
  readonly connector: Connector.Connector["Type"]
  readonly peer: SpiffeId.SpiffeId
  readonly record: LifeRecord
  readonly find: (presented: Presented) => Effect.Effect<
    {
      readonly host: string
      readonly port: number
      /** Answers what is asked for under `/held`. */
      readonly answer: Effect.Effect<void>
      readonly leave: Effect.Effect<void>
    },
    unknown,
    Scope.Scope
  >
}

/** One exchange, whose response is read to its end. */
const exchange = (connection: Connector.Connection, path: string): Effect.Effect<boolean> =>
  Effect.withFiberRuntime<boolean, unknown>((fiber) =>
    Effect.async((resume) => {
      if (!connection.isUsable()) return resume(Effect.succeed(false))
      const cancel = connection.unsafeStart(
        { request: HttpClientRequest.get(path), path, fiber, onSettled: () => {} },
        (result) =>
          resume(
            Effect.as(
              Effect.flatMap(result, ({ text }) => text),
              true
            )
          )
      )
      return Effect.sync(cancel)
    })
  ).pipe(Effect.orElseSucceed(() => false))

/** `meet` of a side that asks for connections. */
export const meetBy =
  ({ connector, find, peer, record }: Asking): Side["meet"] =>
  (presented) =>
    Effect.gen(function* () {
      const { answer, host, leave, port } = yield* find(presented)
      const matcher = PeerMatcher.exactly(peer)
      const connection = yield* connector.connect({ matcher, host, port, config, onClose: () => {} })
      const begin = Effect.gen(function* () {
        const started = record.all("RequestStarted").length
        const running = yield* Effect.forkScoped(exchange(connection, "/held"))
        yield* record.until("RequestStarted", started + 1)
        return { answer: Effect.zipRight(answer, Effect.asVoid(Fiber.await(running))) }
      })
      return { request: exchange(connection, "/"), begin, leave }
    })

/**
 * The life of a connection, the same on every side: how it is attempted and refused, what ends it and when, and what stands
 * on record of it, event by event. `make` builds a side that puts its events on the record it is given.
 */
export const connectionLife = (make: (record: LifeRecord) => Effect.Effect<Side, unknown, Scope.Scope>): void => {
  const test = (
    name: string,
    body: (side: Side, record: LifeRecord) => Effect.Effect<unknown, unknown, Scope.Scope>
  ): void => {
    it.scoped(name, () => {
      const record = new LifeRecord()
      return Effect.flatMap(make(record), (side) => body(side, record))
    })
  }

  /** The peer of an established connection. */
  const opened = (side: Side, record: LifeRecord, presented: Presented = "Proper") =>
    Effect.gen(function* () {
      const before = record.all("ConnectionEstablished").length
      const peer = yield* side.meet(presented)
      yield* record.until("Established", before + 1)
      return peer
    })

  /** An attempt that is not waited for. */
  const attempt = (side: Side, presented: Presented) => Effect.forkScoped(Effect.exit(side.meet(presented)))

  const closing = {
    distrustPeers: "Distrust",
    withdraw: "Withdrawn",
    replaceAuthority: "Withdrawn"
  } as const

  describe("an attempt", () => {
    test("is on record once, then as established, then with each request, and then as closed", (side, record) =>
      Effect.gen(function* () {
        const peer = yield* opened(side, record)
        for (const count of [1, 2]) {
          assert.isTrue(yield* peer.request)
          yield* record.until("RequestEnded", count)
        }
        yield* peer.leave
        yield* record.until("Closed")
        assert.deepStrictEqual(record.tags, [
          "Attempted",
          "Established",
          ...["RequestStarted", "RequestEnded 200", "RequestStarted", "RequestEnded 200"],
          "Closed PeerClosed"
        ])
        const [established] = record.all("ConnectionEstablished")
        const { address = "", connectionId = "" } = record.all("ConnectionAttempted")[0] ?? {}
        assert.deepInclude(established, { peerId: side.peer, ownId: side.identity.id })
        for (const event of record.events) assert.deepInclude(event, { connectionId, address })
        assert.deepInclude(record.all("ConnectionClosed")[0], { peerId: side.peer, requests: 2 })
        assert.deepInclude(record.all("RequestStarted")[0], { method: "GET", path: "/", peerId: side.peer })
      }))

    const refusals = { Unexpected: "UnexpectedPeer", Untrusted: "UntrustedChain", Expired: "Expired" } as const
    for (const presented of ["Unexpected", "Untrusted", "Expired"] as const) {
      const reason = refusals[presented]
      test(`by or to a peer that is to be refused for ${reason} is on record as that, and nothing else is`, (side, record) =>
        Effect.gen(function* () {
          yield* attempt(side, presented)
          yield* record.until("Refused")
          assert.deepStrictEqual(record.tags, ["Attempted", `Refused PeerVerificationError ${reason}`])
        }))
    }

    test("of a peer that says nothing ends at its limit", (side, record) =>
      Effect.gen(function* () {
        yield* attempt(side, "Silent")
        yield* record.until("Attempted")
        yield* TestClock.adjust("9999 millis")
        assert.deepStrictEqual(record.tags, ["Attempted"])
        yield* TestClock.adjust("1 millis")
        yield* record.until("Refused")
        assert.deepStrictEqual(record.tags, ["Attempted", "Refused TimeoutError Connect"])
        assert.deepInclude(record.all("ConnectionRefused")[0], { durationMillis: 10_000 })
      }))

    test("without an identity of ours is refused as our own fault", (side, record) =>
      Effect.gen(function* () {
        yield* side.identity.withdraw
        yield* attempt(side, "Proper")
        yield* record.until("Refused")
        assert.deepStrictEqual(record.tags, ["Attempted", "Refused IdentityError Withdrawn"])
      }))

    test("presents our newest SVID, and the connections of the one before it go on", (side, record) =>
      Effect.gen(function* () {
        const first = yield* opened(side, record)
        yield* side.identity.renew
        yield* opened(side, record)
        assert.isTrue(yield* first.request)
        const shown = record.all("ConnectionEstablished").map(({ ownFingerprint }) => ownFingerprint)
        assert.notStrictEqual(shown[0], shown[1])
        assert.deepStrictEqual(record.all("ConnectionClosed"), [])
      }))

    test("that cannot be put on record is not made", (side, record) =>
      Effect.gen(function* () {
        record.refused = "ConnectionAttempted"
        const exit = yield* Effect.exit(side.meet("Proper"))
        // A peer that connects to us hears of it when it asks.
        if (Exit.isSuccess(exit)) assert.isFalse(yield* exit.value.request)
        assert.deepStrictEqual(record.tags, [])
      }))

    test("whose success cannot be put on record is refused", (side, record) =>
      Effect.gen(function* () {
        record.refused = "ConnectionEstablished"
        yield* attempt(side, "Proper")
        yield* record.until("Refused")
        assert.deepStrictEqual(record.tags, ["Attempted", "Refused AuditError Full"])
      }))
  })

  describe("a connection", () => {
    test("carries no request whose start cannot be put on record", (side, record) =>
      Effect.gen(function* () {
        const peer = yield* opened(side, record)
        record.refused = "RequestStarted"
        assert.isFalse(yield* peer.request)
        assert.deepStrictEqual(record.all("RequestEnded"), [])
      }))

    for (const cause of ["distrustPeers", "withdraw", "replaceAuthority"] as const) {
      const reason = closing[cause]
      test(`that is idle is closed soon after ${cause}, and takes no further request`, (side, record) =>
        Effect.gen(function* () {
          const peer = yield* opened(side, record)
          yield* peer.request
          yield* record.until("RequestEnded")
          yield* side.identity[cause]
          yield* TestClock.adjust("1 second")
          yield* record.until("Closed")
          assert.isFalse(yield* peer.request)
          assert.deepStrictEqual(record.tags.slice(2), ["RequestStarted", "RequestEnded 200", `Closed ${reason}`])
        }))

      test(`ends its request and is closed then after ${cause}`, (side, record) =>
        Effect.gen(function* () {
          const peer = yield* opened(side, record)
          const { answer } = yield* peer.begin
          yield* side.identity[cause]
          yield* TestClock.adjust("1 second")
          assert.deepStrictEqual(record.all("ConnectionClosed"), [])
          yield* answer
          yield* record.until("Closed")
          assert.deepStrictEqual(record.tags.slice(2), ["RequestStarted", "RequestEnded 200", `Closed ${reason}`])
        }))
    }

    test("whose request does not end is cut when its grace is over", (side, record) =>
      Effect.gen(function* () {
        const peer = yield* opened(side, record)
        yield* TestClock.adjust("1 minute")
        yield* peer.begin
        yield* side.identity.distrustPeers
        yield* TestClock.adjust("119 minutes")
        assert.deepStrictEqual(record.all("ConnectionClosed"), [])
        yield* TestClock.adjust("62 seconds")
        yield* record.until("Closed")
        assert.deepStrictEqual(record.tags.at(-1), "Closed Distrust")
        assert.lengthOf(record.all("RequestEnded"), 1)
      }))

    test("ends before the earliest certificate on it does", (side, record) =>
      Effect.gen(function* () {
        const peer = yield* opened(side, record, "ShortLived")
        yield* peer.request
        yield* TestClock.adjust("8 minutes")
        assert.deepStrictEqual(record.all("ConnectionClosed"), [])
        yield* TestClock.adjust("2 minutes")
        yield* record.until("Closed")
        assert.strictEqual(record.tags.at(-1), "Closed Expiry")
        assert.isAtMost(record.all("ConnectionClosed")[0]?.durationMillis ?? 0, 600_000)
      }))

    test("ends its request past the end of a certificate on it, and takes no other", (side, record) =>
      Effect.gen(function* () {
        const peer = yield* opened(side, record, "ShortLived")
        const { answer } = yield* peer.begin
        yield* TestClock.adjust("11 minutes")
        assert.deepStrictEqual(record.all("ConnectionClosed"), [])
        yield* answer
        yield* record.until("Closed")
        assert.isFalse(yield* peer.request)
        assert.deepStrictEqual(record.tags.slice(2), ["RequestStarted", "RequestEnded 200", "Closed Expiry"])
      }))

    test("ends at its age, at most a tenth earlier", (side, record) =>
      Effect.gen(function* () {
        const peer = yield* opened(side, record)
        yield* peer.request
        yield* TestClock.adjust("53 minutes")
        assert.deepStrictEqual(record.all("ConnectionClosed"), [])
        // A server waits for one more request for five seconds.
        yield* TestClock.adjust("425 seconds")
        yield* record.until("Closed")
        assert.strictEqual(record.tags.at(-1), "Closed Age")
      }))
  })

  describe("when the scope of its layer ends", () => {
    test("a connection is closed and on record, a request on it too, and no other begins", (side, record) =>
      Effect.gen(function* () {
        const peer = yield* opened(side, record)
        const { answer } = yield* peer.begin
        const ending = yield* Effect.fork(side.end)
        yield* answer
        yield* Fiber.join(ending)
        assert.deepStrictEqual(
          record.events.slice(2).map(({ _tag }) => _tag),
          ["RequestStarted", "RequestEnded", "ConnectionClosed"]
        )
        assert.strictEqual(record.tags.at(-1), "Closed Shutdown")
        const before = record.events.length
        assert.isFalse(yield* peer.request)
        yield* Effect.exit(Effect.flatMap(side.meet("Proper"), ({ request }) => request))
        assert.lengthOf(record.events, before)
      }))

    test("an attempt is abandoned and on record as such", (side, record) =>
      Effect.gen(function* () {
        yield* attempt(side, "Silent")
        yield* record.until("Attempted")
        yield* side.end
        assert.deepStrictEqual(record.tags, ["Attempted", side.abandoned])
      }))
  })
}
