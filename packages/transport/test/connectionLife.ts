import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, type Scope, TestClock } from "effect"
import { LifeRecord, type Presented, type Side } from "./lifeSide.js"

/** A request that is under way, as the titles have it. */
const underWay = { Unanswered: "whose response is awaited", HalfAnswered: "whose response is half sent" } as const

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
    }

    for (const progress of ["Unanswered", "HalfAnswered"] as const) {
      const withRequest = `with a request ${underWay[progress]}`

      for (const cause of ["distrustPeers", "withdraw", "replaceAuthority"] as const) {
        test(`${withRequest} ends it and is closed then after ${cause}`, (side, record) =>
          Effect.gen(function* () {
            const peer = yield* opened(side, record)
            const { answer } = yield* peer.begin(progress)
            yield* side.identity[cause]
            yield* TestClock.adjust("1 second")
            assert.deepStrictEqual(record.all("ConnectionClosed"), [])
            yield* answer
            yield* record.until("Closed")
            const reason = `Closed ${closing[cause]}`
            assert.deepStrictEqual(record.tags.slice(2), ["RequestStarted", "RequestEnded 200", reason])
          }))
      }

      test(`${withRequest} that does not end is cut when its grace is over`, (side, record) =>
        Effect.gen(function* () {
          const peer = yield* opened(side, record)
          yield* TestClock.adjust("1 minute")
          yield* peer.begin(progress)
          yield* side.identity.distrustPeers
          yield* TestClock.adjust("119 minutes")
          assert.deepStrictEqual(record.all("ConnectionClosed"), [])
          yield* TestClock.adjust("62 seconds")
          yield* record.until("Closed")
          assert.deepStrictEqual(record.tags.at(-1), "Closed Distrust")
          assert.lengthOf(record.all("RequestEnded"), 1)
        }))

      test(`${withRequest} ends it past the end of a certificate, and takes no other`, (side, record) =>
        Effect.gen(function* () {
          const peer = yield* opened(side, record, "ShortLived")
          const { answer } = yield* peer.begin(progress)
          yield* TestClock.adjust("11 minutes")
          assert.deepStrictEqual(record.all("ConnectionClosed"), [])
          yield* answer
          yield* record.until("Closed")
          assert.isFalse(yield* peer.request)
          assert.deepStrictEqual(record.tags.slice(2), ["RequestStarted", "RequestEnded 200", "Closed Expiry"])
        }))

      test(`${withRequest} ends it past its age, and takes no other`, (side, record) =>
        Effect.gen(function* () {
          const peer = yield* opened(side, record)
          const { answer } = yield* peer.begin(progress)
          yield* TestClock.adjust("61 minutes")
          assert.deepStrictEqual(record.all("ConnectionClosed"), [])
          yield* answer
          yield* record.until("Closed")
          assert.isFalse(yield* peer.request)
          assert.deepStrictEqual(record.tags.slice(2), ["RequestStarted", "RequestEnded 200", "Closed Age"])
        }))
    }

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
    for (const progress of ["Unanswered", "HalfAnswered"] as const) {
      test(`a connection is closed and on record, and so is its request ${underWay[progress]}; no other begins`, (side, record) =>
        Effect.gen(function* () {
          const peer = yield* opened(side, record)
          const { answer } = yield* peer.begin(progress)
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
    }

    test("an attempt is abandoned and on record as such", (side, record) =>
      Effect.gen(function* () {
        yield* attempt(side, "Silent")
        yield* record.until("Attempted")
        yield* side.end
        assert.deepStrictEqual(record.tags, ["Attempted", side.abandoned])
      }))
  })
}
