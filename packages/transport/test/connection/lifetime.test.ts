import { assert, describe, it } from "@effect/vitest"
import type { AuditEvent } from "../../src/index.js"
import {
  admits,
  agree,
  cut,
  dateOf,
  deadlineOf,
  type Event,
  end,
  type Facts,
  gone,
  open,
  type Rules,
  requestEnded,
  requestStarted,
  type State,
  step,
  type Terms,
  timePassed
} from "../../src/internal/connection/lifetime.js"

const server: Rules = { lastRequestMillis: { age: 5_000, other: 500 }, graceMillis: 20_000 }
const client: Rules = { lastRequestMillis: { age: 0, other: 0 }, graceMillis: 30_000 }
const never = Number.POSITIVE_INFINITY
const epoch = 1_000_000

/** Old at 100,000; its certificates end at 1,200,000 by the wall clock; the moments of the table say both clocks. */
const terms = (rules: Rules): Terms => ({
  ageAt: 100_000,
  retireAt: epoch + 190_000,
  expiresAt: epoch + 200_000,
  rules
})
const idle: Facts = { inFlight: 0, requests: 3, idleAt: never, canAnnounce: false, takesRequests: true }
const busy: Facts = { inFlight: 1, requests: 3, idleAt: never, canAnnounce: false, takesRequests: true }
const announceable: Facts = { ...busy, canAnnounce: true }
const upgraded: Facts = { ...idle, takesRequests: false }
const unused: Facts = { ...idle, requests: 0, idleAt: 65_000 }
const at = (mono: number, wall = mono) => ({ mono, wall: epoch + wall })

const last = (reason: AuditEvent.CloseReason, until: number): State => ({ phase: "LastRequest", reason, until })
const draining = (reason: AuditEvent.CloseReason, cutAt = never): State => ({ phase: "Draining", reason, cutAt })
const closed = (reason: AuditEvent.CloseReason, inOrder = false): State => ({ phase: "Closed", reason, inOrder })

type Row = readonly [
  title: string,
  rules: Rules,
  state: State,
  event: Event,
  facts: Facts,
  moment: ReturnType<typeof at>,
  after: State
]

const table: ReadonlyArray<Row> = [
  // Time, open.
  ["nothing is due", server, open, timePassed, idle, at(99_999), open],
  ["a server's connection is old and idle", server, open, timePassed, idle, at(100_000), last("Age", 105_000)],
  ["a client's connection is old and idle", client, open, timePassed, idle, at(100_000), closed("Age")],
  ["a client's connection is old and busy", client, open, timePassed, busy, at(100_000), draining("Age")],
  [
    "it is old, and the response in flight can say so",
    server,
    open,
    timePassed,
    announceable,
    at(100_000),
    draining("Age")
  ],
  [
    "it is old, and the response in flight cannot say so",
    server,
    open,
    timePassed,
    busy,
    at(100_000),
    last("Age", 105_000)
  ],
  ["its certificates are about to end", server, open, timePassed, idle, at(9, 190_000), last("Expiry", 509)],
  ["the same at a client", client, open, timePassed, idle, at(9, 190_000), closed("Expiry")],
  ["the same at a busy client", client, open, timePassed, busy, at(9, 190_000), draining("Expiry")],
  ["the same where it is no longer HTTP", server, open, timePassed, upgraded, at(9, 190_000), closed("Expiry")],
  [
    "they end under a request",
    client,
    draining("Expiry"),
    timePassed,
    busy,
    at(9, 200_000),
    draining("Expiry", 30_009)
  ],
  ["its certificates have ended", server, open, timePassed, idle, at(9, 200_000), closed("Expiry")],
  ["they have ended under a request", server, open, timePassed, busy, at(9, 200_000), draining("Expiry", 20_009)],
  ["it was never used for long", server, open, timePassed, unused, at(65_000), closed("Idle")],
  ["it is in use for longer than it may idle", server, open, timePassed, { ...busy, idleAt: 1 }, at(2), open],
  // Time, last request.
  ["the last request has not come yet", server, last("Age", 500), timePassed, idle, at(499), last("Age", 500)],
  ["the last request never came", server, last("Age", 500), timePassed, idle, at(500), closed("Age")],
  [
    "the time for it ends under an earlier one",
    server,
    last("Distrust", 500),
    timePassed,
    busy,
    at(500),
    draining("Distrust", 20_500)
  ],
  ["the certificates end meanwhile", server, last("Age", 500), timePassed, idle, at(9, 200_000), closed("Expiry")],
  // Time, draining.
  [
    "what is in flight has time left",
    server,
    draining("Distrust", 50),
    timePassed,
    busy,
    at(49),
    draining("Distrust", 50)
  ],
  ["what is in flight has none left", server, draining("Distrust", 50), timePassed, busy, at(50), closed("Distrust")],
  [
    "an old one's certificates end under a request",
    client,
    draining("Age"),
    timePassed,
    busy,
    at(7, 200_000),
    draining("Age", 30_007)
  ],
  // Requests.
  ["a request on an open connection", server, open, requestStarted, busy, at(1), open],
  ["the last request", server, last("Distrust", 500), requestStarted, busy, at(1), draining("Distrust", 20_001)],
  ["the last request of an old one", server, last("Age", 500), requestStarted, busy, at(1), draining("Age")],
  ["a request ends on an open connection", server, open, requestEnded, idle, at(1), open],
  ["a request ends before the last one", server, last("Age", 500), requestEnded, idle, at(1), last("Age", 500)],
  ["the last one of several ends", server, draining("Age"), requestEnded, idle, at(1), closed("Age", true)],
  ["one of several ends", server, draining("Age"), requestEnded, busy, at(1), draining("Age")],
  // Ends.
  ["distrusted while idle", server, open, end("Distrust"), idle, at(1), last("Distrust", 501)],
  ["distrusted before it was served anything", server, open, end("Distrust"), unused, at(1), closed("Distrust")],
  ["distrusted while idle, at a client", client, open, end("Distrust"), idle, at(1), closed("Distrust")],
  ["distrusted under a request, at a client", client, open, end("Distrust"), busy, at(1), draining("Distrust", 30_001)],
  ["our identity is withdrawn", server, open, end("Withdrawn"), unused, at(1), last("Withdrawn", 501)],
  [
    "our identity is withdrawn under a request, at a client",
    client,
    open,
    end("Withdrawn"),
    busy,
    at(1),
    draining("Withdrawn", 30_001)
  ],
  ["the pool has no use for it", client, open, end("Idle"), idle, at(1), closed("Idle")],
  [
    "the pool has no use for it once its request is over",
    client,
    open,
    end("Evicted"),
    busy,
    at(1),
    draining("Evicted")
  ],
  ["the server shuts down, idle", server, open, end("Shutdown"), idle, at(1), closed("Shutdown")],
  [
    "the server shuts down under a request",
    server,
    open,
    end("Shutdown"),
    announceable,
    at(1),
    draining("Shutdown", 20_001)
  ],
  [
    "the server shuts down while the last request is waited for",
    server,
    last("Age", 500),
    end("Shutdown"),
    idle,
    at(1),
    closed("Shutdown")
  ],
  [
    "a second reason gives no more time",
    server,
    last("Distrust", 300),
    end("Distrust"),
    idle,
    at(200),
    last("Distrust", 300)
  ],
  [
    "a second reason gives less time",
    server,
    last("Age", 5_000),
    end("Distrust"),
    idle,
    at(200),
    last("Distrust", 700)
  ],
  [
    "a second reason presses what is in flight",
    client,
    draining("Age"),
    end("Distrust"),
    busy,
    at(5),
    draining("Age", 30_005)
  ],
  [
    "a second reason does not press what has little time",
    client,
    draining("Distrust", 9),
    end("Withdrawn"),
    busy,
    at(5),
    draining("Distrust", 9)
  ],
  ["a second reason that does not press", client, draining("Age"), end("Evicted"), busy, at(5), draining("Age")],
  // Cuts.
  ["cut, whatever is in flight", client, open, cut("Shutdown"), busy, at(1), closed("Shutdown")],
  [
    "cut while it drains, which was for its first reason",
    client,
    draining("Age"),
    cut("Shutdown"),
    busy,
    at(1),
    closed("Age")
  ],
  ["the peer is gone", server, open, gone("PeerClosed"), busy, at(1), closed("PeerClosed")],
  [
    "the peer is gone while what is in flight was to end",
    server,
    draining("Age"),
    gone("PeerClosed"),
    busy,
    at(1),
    closed("Age")
  ],
  [
    "the peer is gone before its last request",
    server,
    last("Age", 500),
    gone("PeerClosed"),
    idle,
    at(1),
    closed("PeerClosed")
  ]
]

describe("the life of a connection", () => {
  it.each(table)("%s", (_title, rules, state, event, facts, moment, after) => {
    const next = step(terms(rules), state, event, facts, moment)
    assert.deepStrictEqual(next, after)
    // Where nothing changes the very same value comes back.
    if (JSON.stringify(next) === JSON.stringify(state)) assert.strictEqual(next, state)
  })

  it("is over once it is closed, whatever happens then", () => {
    const events = [timePassed, requestStarted, requestEnded, end("Distrust"), cut("Shutdown"), gone("Error")]
    for (const event of events) {
      const over = closed("Idle")
      assert.strictEqual(step(terms(server), over, event, idle, at(1_000_000)), over)
    }
  })

  it("admits requests until its certificates end by the wall clock, whatever the monotonic clock says", () => {
    const t = terms(server)
    assert.isTrue(admits(t, open, epoch + 199_999))
    assert.isFalse(admits(t, open, epoch + 200_000))
    assert.isTrue(admits(t, last("Age", 1), epoch))
    assert.isFalse(admits(t, draining("Age"), epoch))
    assert.isFalse(admits(t, closed("Age"), epoch))
  })

  it("wakes for the end that comes next on either clock", () => {
    const t = terms(server)
    const wake = (state: State, facts: Facts) => [deadlineOf(t, state, facts), dateOf(t, state)]
    assert.deepStrictEqual(wake(open, idle), [100_000, epoch + 190_000])
    assert.deepStrictEqual(wake(open, unused), [65_000, epoch + 190_000])
    assert.deepStrictEqual(wake(open, { ...unused, inFlight: 1 }), [100_000, epoch + 190_000])
    assert.deepStrictEqual(wake(last("Age", 7), idle), [7, epoch + 200_000])
    assert.deepStrictEqual(wake(draining("Age"), busy), [never, epoch + 200_000])
    assert.deepStrictEqual(wake(draining("Distrust", 8), busy), [8, never])
    assert.deepStrictEqual(wake(closed("Age"), idle), [never, never])
  })

  it("ends up to a tenth earlier than it must, for its age and for its certificates alike, on either side", () => {
    for (const rules of [client, server]) {
      const options = { maxAgeMillis: 1_000, expiresAt: epoch + 100_000 }
      const full = agree(rules, { ...options, drawn: 0 }, at(50, 0))
      const least = agree(rules, { ...options, drawn: 1 }, at(50, 0))
      assert.deepStrictEqual([full.ageAt, least.ageAt], [1_050, 950])
      assert.deepStrictEqual(
        [full.retireAt, least.retireAt],
        [epoch + 100_000 - rules.lastRequestMillis.other, epoch + 90_000]
      )
      assert.strictEqual(least.expiresAt, epoch + 100_000)
    }
  })

  it("has no end where neither age nor certificates set one", () => {
    const t = agree(client, { maxAgeMillis: never, expiresAt: never, drawn: 0.5 }, at(0))
    assert.deepStrictEqual([deadlineOf(t, open, idle), dateOf(t, open)], [never, never])
    assert.isTrue(admits(t, open, Number.MAX_SAFE_INTEGER))
  })
})
