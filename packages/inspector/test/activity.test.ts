import { Activity } from "@agentweave/inspector"
import { AuditError, AuditLog } from "@agentweave/transport/AuditLog"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, TestClock } from "effect"
import { api, billing, closed, ended, established, refused, started } from "./events.js"

const sum = (counts: ReadonlyArray<number>): number => counts.reduce((all, count) => all + count, 0)

describe("the activity of a process", () => {
  it.effect("counts requests and errors of each direction in slots of two seconds, for five minutes", () =>
    Effect.gen(function* () {
      const { summary, unsafeRecord } = yield* Activity.make
      unsafeRecord(ended({ time: 0 }))
      unsafeRecord(ended({ time: 1_999, status: 503 }))
      unsafeRecord(ended({ time: 2_000, status: 404 }))
      unsafeRecord(ended({ time: 2_500, side: "Server" }))
      yield* TestClock.setTime(3_000)
      const { incoming, outgoing } = yield* summary
      assert.deepInclude(outgoing, { slotMillis: 2_000, endsAt: 4_000, total: 3, totalErrors: 1 })
      assert.deepStrictEqual(outgoing.requests.slice(-3), [0, 2, 1])
      assert.deepStrictEqual(outgoing.errors.slice(-3), [0, 1, 0])
      assert.strictEqual(outgoing.requests.length, 150)
      assert.deepInclude(incoming, { total: 1, totalErrors: 0 })

      yield* TestClock.setTime(301_000)
      const later = (yield* summary).outgoing
      assert.strictEqual(sum(later.requests), 1, "the slot before the last five minutes is forgotten")
      assert.strictEqual(later.total, 3)
    })
  )

  it.effect("a request without a response, or with an error, counts as failed", () =>
    Effect.gen(function* () {
      const { summary, unsafeRecord } = yield* Activity.make
      const { status, ...unanswered } = { ...ended({}), status: undefined }
      if (unanswered._tag === "RequestEnded") unsafeRecord(unanswered)
      unsafeRecord(ended({ error: "Interrupted" }))
      assert.deepInclude((yield* summary).outgoing, { total: 2, totalErrors: 2 })
    })
  )

  it.effect("gives the median and the 99th percentile of durations, each at most a fifth off", () =>
    Effect.gen(function* () {
      const { summary, unsafeRecord } = yield* Activity.make
      for (let millis = 1; millis <= 1_000; millis++) unsafeRecord(ended({ durationMillis: millis }))
      const { p50Millis, p99Millis } = (yield* summary).outgoing
      assert.approximately(p50Millis ?? 0, 500, 100)
      assert.approximately(p99Millis ?? 0, 990, 198)
    })
  )

  it.effect("gives no duration where there were no requests", () =>
    Effect.gen(function* () {
      const { outgoing } = yield* (yield* Activity.make).summary
      assert.deepInclude(outgoing, { p50Millis: null, p99Millis: null, total: 0 })
    })
  )

  it.effect("knows the open connections of each peer and the requests on them", () =>
    Effect.gen(function* () {
      const { summary, unsafeRecord } = yield* Activity.make
      unsafeRecord(established({ connectionId: "c1", time: 5 }))
      unsafeRecord(established({ connectionId: "c2", time: 6 }))
      unsafeRecord(established({ connectionId: "c3", time: 7, peerId: billing, side: "Server" }))
      unsafeRecord(started({ connectionId: "c2" }))
      unsafeRecord(ended({ connectionId: "c2", time: 8 }))
      unsafeRecord(started({ connectionId: "c2" }))
      unsafeRecord(closed({ connectionId: "c1", time: 9 }))
      const { peers } = yield* summary
      assert.deepStrictEqual(
        peers.map(({ id, lastSeen, openConnections }) => ({ id, lastSeen, openConnections })),
        [
          { id: api, lastSeen: 9, openConnections: 1 },
          { id: billing, lastSeen: 7, openConnections: 1 }
        ]
      )
      assert.deepInclude(peers[0]?.connections[0], { connectionId: "c2", requests: 1, inFlight: 1 })
      assert.strictEqual(peers[0]?.outgoing?.total, 1)
      assert.strictEqual(peers[0]?.incoming, null)
    })
  )

  it.effect("a refusal comes with a sentence on where to look first, and a literal without one with none", () =>
    Effect.gen(function* () {
      const { summary, unsafeRecord } = yield* Activity.make
      unsafeRecord(refused({ reason: "UnexpectedPeer" }))
      unsafeRecord(refused({ reason: "NewReason" }))
      const summed = { _tag: "ConnectionsRefused", time: 0, side: "Server", since: 0, description: "" } as const
      unsafeRecord({ ...summed, reason: "IdentityError Withdrawn", count: 3 })
      unsafeRecord({ ...summed, reason: "maxHandshakes", count: 812 })
      const { refusals, totalRefused } = yield* summary
      assert.strictEqual(totalRefused, 817)
      assert.match(refusals[0]?.hint ?? "", /limit of this server/)
      assert.match(refusals[1]?.hint ?? "", /took our identity back/)
      assert.strictEqual(refusals[2]?.hint, null)
      assert.match(refusals[3]?.hint ?? "", /another one than expected/)
    })
  )

  it.effect("keeps the last of each list, newest first, and requests apart from other events", () =>
    Effect.gen(function* () {
      const { summary, unsafeRecord } = yield* Activity.make
      for (let n = 0; n < 300; n++) {
        unsafeRecord(refused({ connectionId: `c${n}` }))
        unsafeRecord(ended({ requestId: `r${n}` }))
        unsafeRecord({ _tag: "IdentityProblem", time: n, problem: "Unavailable", description: "no agent" })
      }
      const { events, history, refusals, requests, totalRefused } = yield* summary
      assert.deepStrictEqual(
        [events.length, refusals.length, requests.length, history.length, totalRefused],
        [100, 50, 50, 32, 300]
      )
      assert.strictEqual(history[0]?.time, 299)
      assert.strictEqual(requests[0]?.requestId, "r299")
      assert.isTrue(events.every(({ _tag }) => _tag !== "RequestEnded"))
    })
  )

  it.effect("tells at most 256 peers apart: one without a connection that was seen longest ago makes room", () =>
    Effect.gen(function* () {
      const { summary, unsafeRecord } = yield* Activity.make
      unsafeRecord(established({ peerId: api, connectionId: "kept", time: 0 }))
      for (let n = 0; n < 1_000; n++) {
        const one = { peerId: `spiffe://example.org/p/${n}`, connectionId: `c${n}` }
        unsafeRecord(established({ ...one, time: n }))
        unsafeRecord(closed({ ...one, time: n }))
      }
      const ids = new Set((yield* summary).peers.map(({ id }) => id))
      assert.strictEqual(ids.size, 256)
      assert.isTrue(ids.has(api), "a peer with an open connection stays")
      assert.isTrue(ids.has("spiffe://example.org/p/999"))
      assert.isFalse(ids.has("spiffe://example.org/p/0"))
    })
  )

  it.effect("cuts long texts of events, whatever a peer sends", () =>
    Effect.gen(function* () {
      const { summary, unsafeRecord } = yield* Activity.make
      unsafeRecord(refused({ description: "x".repeat(1_000_000) }))
      unsafeRecord(ended({ path: `/${"y".repeat(1_000_000)}` }))
      assert.isBelow(JSON.stringify(yield* summary).length, 40_000)
    })
  )

  it.effect("an event goes to the audit log that is given, and its errors come back", () =>
    Effect.gen(function* () {
      const full = new AuditError({ reason: "Full", description: "expected room for an event, got none" })
      const recorded: Array<string> = []
      const log = Layer.succeed(AuditLog, {
        unsafeRecord: (event) => {
          recorded.push(event._tag)
          return event._tag === "ConnectionClosed" ? undefined : full
        }
      })
      const context = yield* Layer.build(Activity.layerAuditLog(log))
      const { unsafeRecord } = Context.get(context, AuditLog)
      assert.strictEqual(unsafeRecord(established()), full)
      assert.strictEqual(unsafeRecord(refused()), full)
      assert.strictEqual(unsafeRecord(closed()), undefined)
      assert.deepStrictEqual(recorded, ["ConnectionEstablished", "ConnectionRefused", "ConnectionClosed"])
      const { events, peers } = yield* Context.get(context, Activity.Activity).summary
      assert.deepStrictEqual(peers, [], "a connection that cannot be recorded does not come to be")
      assert.deepStrictEqual(
        events.map(({ _tag }) => _tag),
        ["ConnectionClosed", "ConnectionRefused"]
      )
    }).pipe(Effect.scoped)
  )
})
