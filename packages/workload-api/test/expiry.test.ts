import { expect, it } from "@effect/vitest"
import { Effect, Fiber, Option, Schedule, Stream, TestClock } from "effect"
import { quicken } from "../../spiffe/test/support/quickTestClock.js"
import { authority, reasonOf } from "./agentMessages.js"
import * as ScriptedAgent from "./support/scriptedAgent.js"

it.scoped(
  "the agent vanishes for longer than the SVID lives: served to its last second, then Expired, and served again when the agent is back",
  () =>
    Effect.gen(function* () {
      const issuer = yield* authority
      const { agentHealth, identity, nextCall, nextEvent } = yield* ScriptedAgent.make({
        reconnectSchedule: Schedule.spaced("10 minutes")
      })
      const call = yield* nextCall
      yield* call.push(yield* issuer.context({ ttl: "1 hour" }))
      yield* nextEvent("Updated")
      const lost = yield* Effect.fork(Effect.flip(Stream.runDrain(identity.changes)))
      yield* call.fail("Unavailable")
      const agentIsAway = yield* Effect.fork(
        Effect.forever(Effect.flatMap(nextCall, (call) => call.fail("Unavailable")))
      )
      yield* TestClock.adjust("1 hours")
      expect(yield* reasonOf(identity.x509Context)).toBe("ok")
      expect(yield* agentHealth).toBe("Degraded")
      yield* TestClock.adjust("1 millis")
      const error = yield* Effect.flip(identity.x509Context)
      expect(error.reason).toBe("Expired")
      expect(error.message).toContain("1970-01-01T01:00:00.000Z")
      expect(yield* agentHealth).toBe("Degraded")
      expect((yield* Fiber.join(lost)).reason).toBe("Expired")
      expect(yield* nextEvent("Expired")).toMatchObject({ time: 3_600_001, notAfter: 3_600_000 })
      yield* Fiber.interrupt(agentIsAway)
      yield* TestClock.adjust("10 minutes")
      yield* (yield* nextCall).push(yield* issuer.context())
      yield* nextEvent("Updated")
      expect(yield* reasonOf(identity.x509Context)).toBe("ok")
      expect(yield* agentHealth).toBe("Healthy")
    })
)

it.scoped("the SVID expires while the stream is open and silent: Expired at once, and the agent is asked again", () =>
  Effect.gen(function* () {
    const issuer = yield* authority
    const { identity, nextCall, nextEvent, openCalls } = yield* ScriptedAgent.make()
    const call = yield* nextCall
    yield* call.push(yield* issuer.context({ ttl: "1 hour" }))
    yield* nextEvent("Updated")
    yield* TestClock.adjust("3600001 millis")
    expect(yield* reasonOf(identity.x509Context)).toBe("Expired")
    expect((yield* nextEvent("Disconnected")).reason).toBe("Stalled")
    yield* TestClock.adjust("1 seconds")
    const again = yield* nextCall
    expect(yield* openCalls).toBe(1)
    yield* again.push(yield* issuer.context())
    yield* nextEvent("Updated")
    expect(yield* reasonOf(identity.x509Context)).toBe("ok")
  })
)

it.scoped("an SVID that is not valid yet: the one before it serves until it begins", () =>
  Effect.gen(function* () {
    const issuer = yield* authority
    const { agentHealth, identity, nextCall, nextEvent } = yield* ScriptedAgent.make()
    const call = yield* nextCall
    const now = yield* issuer.context({ ttl: "1 hour" })
    const later = yield* issuer.context({ validity: { notBefore: 1_800_000, notAfter: 7_200_000 } })
    yield* call.push(now)
    yield* nextEvent("Updated")
    yield* call.push(later)
    expect(yield* nextEvent("Updated")).toMatchObject({ notBefore: 1_800_000 })
    const current = Effect.map(identity.x509Context, ({ svid }) => svid.fingerprint)
    expect(yield* current).toBe(now.svid.fingerprint)
    expect(yield* agentHealth).toBe("Healthy")
    const rotation = yield* Effect.fork(Stream.runHead(Stream.drop(identity.changes, 1)))
    yield* TestClock.adjust("1799999 millis")
    expect(yield* current).toBe(now.svid.fingerprint)
    expect(yield* Fiber.poll(rotation)).toStrictEqual(Option.none())
    yield* TestClock.adjust("1 millis")
    expect(yield* current).toBe(later.svid.fingerprint)
    expect(Option.map(yield* Fiber.join(rotation), ({ svid }) => svid.fingerprint)).toStrictEqual(
      Option.some(later.svid.fingerprint)
    )
  })
)

it.scoped("the only SVID is not valid yet: NotYetValid at once, and served from its first second", () =>
  Effect.gen(function* () {
    const issuer = yield* authority
    const { agentHealth, identity, nextCall, nextEvent } = yield* ScriptedAgent.make()
    yield* (yield* nextCall).push(yield* issuer.context({ validity: { notBefore: 60_000, notAfter: 7_200_000 } }))
    yield* nextEvent("Updated")
    expect(yield* reasonOf(identity.x509Context)).toBe("NotYetValid")
    expect(yield* agentHealth).toBe("Healthy")
    yield* TestClock.adjust("1 minutes")
    expect(yield* reasonOf(identity.x509Context)).toBe("ok")
    yield* TestClock.adjust("2 hours")
    expect(yield* reasonOf(identity.x509Context)).toBe("Expired")
  })
)

it.scoped("a rotation that lives shorter than the one before it expires on its own date", () =>
  Effect.gen(function* () {
    const issuer = yield* authority
    const { identity, nextCall, nextEvent } = yield* ScriptedAgent.make()
    const call = yield* nextCall
    yield* call.push(yield* issuer.context({ ttl: "10 hours" }))
    yield* nextEvent("Updated")
    yield* call.push(yield* issuer.context({ ttl: "1 hour" }))
    yield* nextEvent("Updated")
    const lost = yield* Effect.fork(Effect.flip(Stream.runDrain(identity.changes)))
    yield* TestClock.adjust("3600001 millis")
    expect((yield* Fiber.join(lost)).reason).toBe("Expired")
  })
)

it.scoped("no timer is longer than the platform's timers are", () =>
  Effect.gen(function* () {
    yield* quicken
    const issuer = yield* authority
    const { identity, nextCall, nextEvent } = yield* ScriptedAgent.make()
    yield* (yield* nextCall).push(yield* issuer.context({ ttl: "100 days" }))
    yield* nextEvent("Updated")
    yield* TestClock.adjust("40 days")
    const now = 40 * 86_400_000
    expect(Math.max(...(yield* TestClock.sleeps()))).toBeLessThan(now + 2 ** 31)
    yield* TestClock.adjust("59 days")
    expect(yield* reasonOf(identity.x509Context)).toBe("ok")
    yield* TestClock.adjust("86400001 millis")
    expect(yield* nextEvent("Expired")).toMatchObject({ time: 100 * 86_400_000 + 1 })
  })
)
