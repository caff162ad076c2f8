/** Floods of peers that do not prove who they are do not take the space of those that do. */
import type { AuditEvent } from "@agentweave/transport"
import { expect, it } from "@effect/vitest"
import { Effect, TestClock } from "effect"
import { problemsOf } from "../auditReports.js"
import { attempted, established, turnedAway } from "./auditStrangerEvents.js"
import { eventsOf, read, until, world } from "./auditWorld.js"

type Tag = AuditEvent.AuditEvent["_tag"]

const count = (text: string, tag: Tag) => text.split(`"_tag":"${tag}"`).length - 1

it.scoped(
  "a flood is on record with its first hundred attempts a minute, and then as sums with its addresses and reasons",
  () =>
    Effect.gen(function* () {
      const { open, path } = yield* world
      const { close, log } = yield* open()
      const now = Effect.clockWith((clock) => clock.currentTimeMillis)
      const flood = (from: number, to: number) =>
        Effect.map(now, (time) => {
          for (let n = from; n < to; n++) {
            expect(log.unsafeRecord(attempted(n, time))).toBeUndefined()
            expect(log.unsafeRecord(turnedAway(n, time))).toBeUndefined()
          }
        })
      yield* flood(0, 1_000)
      // A peer that proves who it is in the middle of it is on record whole, as is one that is another.
      const time = yield* now
      log.unsafeRecord(attempted(5_000, time))
      log.unsafeRecord(established(5_000, time))
      log.unsafeRecord(attempted(5_001, time))
      log.unsafeRecord(turnedAway(5_001, time, "UnexpectedPeer"))
      yield* TestClock.adjust("61 seconds")
      yield* until(() => count(read(path), "ConnectionsRefused") === 1)
      const text = read(path)
      expect([count(text, "ConnectionAttempted"), count(text, "ConnectionRefused")]).toEqual([102, 101])
      expect(text).toContain('"connectionId":"s5000"')
      expect(eventsOf(text)).toContainEqual(
        expect.objectContaining({
          _tag: "ConnectionsRefused",
          reason: "ConnectionError HandshakeReset",
          count: 900,
          addresses: 3
        })
      )
      // The next minute begins anew; what is not summed yet is summed at the end.
      yield* flood(2_000, 2_150)
      yield* close
      expect(count(read(path), "ConnectionAttempted")).toBe(202)
      expect(eventsOf(read(path))).toContainEqual(expect.objectContaining({ _tag: "ConnectionsRefused", count: 50 }))
      expect(problemsOf(read(path))).toEqual([])
    })
)

it.scoped("peers that prove who they are never use up what strangers have", () =>
  Effect.gen(function* () {
    const { open, path } = yield* world
    const { close, log } = yield* open({ maxStrangers: 10 })
    for (let n = 0; n < 500; n++) {
      log.unsafeRecord(attempted(n, 0))
      log.unsafeRecord(established(n, 0))
    }
    log.unsafeRecord(attempted(500, 0))
    log.unsafeRecord(turnedAway(500, 0))
    yield* close
    const seen = eventsOf(read(path))
    expect(seen.map((event) => "connectionId" in event && event.connectionId)).toEqual(
      Array.from({ length: 1_002 }, (_, n) => `s${Math.floor(n / 2)}`)
    )
  })
)

it.scoped("where space is scarce strangers are only counted, and peers that prove who they are still recorded", () =>
  Effect.gen(function* () {
    const { open, path } = yield* world
    // Three quarters of what may wait is taken: the rest is for them.
    const { close, log } = yield* open({ maxPending: 20 })
    for (let n = 0; n < 100; n++) {
      log.unsafeRecord(attempted(n, 0))
      log.unsafeRecord(turnedAway(n, 0))
    }
    expect(log.unsafeRecord(attempted(200, 0))).toBeUndefined()
    expect(log.unsafeRecord(established(200, 0))).toBeUndefined()
    yield* close
    const text = read(path)
    expect(count(text, "ConnectionAttempted")).toBeLessThan(12)
    expect(text).toContain('"connectionId":"s200"')
    expect(eventsOf(text)).toContainEqual(expect.objectContaining({ _tag: "ConnectionsRefused" }))
    expect(problemsOf(text)).toEqual([])
  })
)
