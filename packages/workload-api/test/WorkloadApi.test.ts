import { X509Context } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { expect, it } from "@effect/vitest"
import {
  Array as Arr,
  type Duration,
  Effect,
  Exit,
  Fiber,
  Logger,
  LogLevel,
  Option,
  Random,
  Redacted,
  Ref,
  Schedule,
  Scope,
  Stream,
  TestClock,
  TestContext
} from "effect"
import { quicken } from "../../spiffe/test/support/quickTestClock.js"
import * as ScriptedAgent from "./support/scriptedAgent.js"

const authority = DevAuthority.make({ trustDomain: "example.org" })

const garbage = Redacted.make(Uint8Array.of(0x0a, 0xff))

/** Reasons read better than errors in an expectation. */
const reasonOf = <A>(effect: Effect.Effect<A, { readonly reason: string }>) =>
  Effect.match(effect, { onFailure: (error) => error.reason, onSuccess: () => "ok" })

it.scoped("the first update is what x509Context waits for", () =>
  Effect.gen(function* () {
    const { agentHealth, identity, nextCall } = yield* ScriptedAgent.make()
    const waiting = yield* Effect.fork(identity.x509Context)
    const call = yield* nextCall
    expect(yield* agentHealth).toBe("Degraded")
    const context = yield* (yield* authority).context({ path: "/api" })
    yield* call.push(context)
    const received = yield* Fiber.join(waiting)
    expect(received.svid.fingerprint).toBe(context.svid.fingerprint)
    expect(received.svid.spiffeId).toBe("spiffe://example.org/api")
    expect(received.bundles.generation).toBe(context.bundles.generation)
    expect(yield* agentHealth).toBe("Healthy")
  })
)

it.scoped(
  "the initial wait is bounded: Unavailable after it, with the newest reason; and served when the agent comes",
  () =>
    Effect.gen(function* () {
      const { events, agentHealth, identity, nextCall, nextEvent } = yield* ScriptedAgent.make({
        initialTimeout: "10 seconds"
      })
      const waiting = yield* Effect.fork(Effect.flip(identity.x509Context))
      const call = yield* nextCall
      yield* call.pushBytes(garbage)
      yield* nextEvent("UpdateDiscarded")
      yield* TestClock.adjust("9999 millis")
      expect(yield* Fiber.poll(waiting)).toStrictEqual(Option.none())
      yield* TestClock.adjust("1 millis")
      const error = yield* Fiber.join(waiting)
      expect(error.reason).toBe("Unavailable")
      expect(error.message).toContain("truncated varint")
      expect((yield* events.take)._tag).toBe("InitialWaitOver")
      // Nobody waits any more.
      expect(yield* reasonOf(identity.x509Context)).toBe("Unavailable")
      expect(yield* agentHealth).toBe("Degraded")
      yield* call.push(yield* (yield* authority).context())
      yield* nextEvent("Updated")
      expect(yield* reasonOf(identity.x509Context)).toBe("ok")
    })
)

it.scoped("the initial wait is 30 seconds unless told", () =>
  Effect.gen(function* () {
    const { identity } = yield* ScriptedAgent.make()
    const waiting = yield* Effect.fork(reasonOf(identity.x509Context))
    yield* TestClock.adjust("29 seconds")
    expect(yield* Fiber.poll(waiting)).toStrictEqual(Option.none())
    yield* TestClock.adjust("1 seconds")
    expect(yield* Fiber.join(waiting)).toBe("Unavailable")
  })
)

it.scoped("changes: the current snapshot first, then every rotation, then the error when the identity is lost", () =>
  Effect.gen(function* () {
    const issuer = yield* authority
    const { identity, nextCall, nextEvent } = yield* ScriptedAgent.make()
    const call = yield* nextCall
    const contexts = yield* Effect.all(Arr.makeBy(3, () => issuer.context()))
    yield* call.push(contexts[0] ?? (yield* Effect.dieMessage("no context")))
    yield* nextEvent("Updated")
    const seen = yield* Ref.make<ReadonlyArray<string>>([])
    const follower = yield* identity.changes.pipe(
      Stream.runForEach(({ svid }) => Ref.update(seen, (all) => [...all, svid.fingerprint])),
      Effect.flip,
      Effect.fork
    )
    yield* TestClock.adjust(1)
    for (const context of contexts.slice(1)) yield* call.push(context)
    yield* nextEvent("Updated")
    yield* nextEvent("Updated")
    yield* call.fail("PermissionDenied")
    expect((yield* Fiber.join(follower)).reason).toBe("Withdrawn")
    expect(yield* Ref.get(seen)).toStrictEqual(contexts.map((context) => context.svid.fingerprint))
    // Subscribed again: the answer of now, at once.
    expect(yield* reasonOf(Stream.runHead(identity.changes))).toBe("Withdrawn")
  })
)

it.scoped("an update that repeats what is known is no rotation", () =>
  Effect.gen(function* () {
    const issuer = yield* authority
    const { events, agentHealth, identity, nextCall, nextEvent } = yield* ScriptedAgent.make()
    const call = yield* nextCall
    const context = yield* issuer.context()
    yield* call.push(context)
    yield* nextEvent("Updated")
    const before = yield* identity.x509Context
    yield* call.fail("Unavailable")
    yield* nextEvent("Disconnected")
    expect(yield* agentHealth).toBe("Degraded")
    yield* TestClock.adjust("1 seconds")
    const again = yield* nextCall
    yield* again.push(context)
    yield* TestClock.adjust(1)
    expect(yield* identity.x509Context).toBe(before)
    expect(yield* agentHealth).toBe("Healthy")
    expect(yield* events.size).toBe(0)
  })
)

it.scoped("an update that omits a bundle removes it; SVIDs and bundles come as one snapshot", () =>
  Effect.gen(function* () {
    const issuer = yield* authority
    const partner = yield* DevAuthority.make({ trustDomain: "partner.org" })
    const { identity, nextCall, nextEvent } = yield* ScriptedAgent.make()
    const call = yield* nextCall
    yield* call.push(yield* issuer.context({ federatesWith: [partner] }))
    expect((yield* nextEvent("Updated")).trustDomains).toStrictEqual(["example.org", "partner.org"])
    expect((yield* identity.x509Context).bundles.bundles.get(partner.trustDomain)).toStrictEqual(partner.bundle)
    const next = yield* issuer.context()
    yield* call.push(next)
    yield* nextEvent("Updated")
    const context = yield* identity.x509Context
    expect(context.svid.fingerprint).toBe(next.svid.fingerprint)
    expect(Array.from(context.bundles.bundles.keys())).toStrictEqual(["example.org"])
  })
)

const twoSvids = Effect.gen(function* () {
  const issuer = yield* authority
  const internal = yield* issuer.issue({ path: "/web", hint: "internal" })
  const external = yield* issuer.issue({ path: "/shop", hint: "external" })
  const context = X509Context.make({
    svid: internal,
    others: [external],
    bundles: yield* DevAuthority.bundles([issuer])
  })
  return { context, internal, external }
})

it.scoped("two SVIDs: the first is the default", () =>
  Effect.gen(function* () {
    const { context } = yield* twoSvids
    const { identity, nextCall } = yield* ScriptedAgent.make()
    yield* (yield* nextCall).push(context)
    const { svid, svids } = yield* identity.x509Context
    expect(svid.spiffeId).toBe("spiffe://example.org/web")
    expect(svids.map(({ spiffeId }) => spiffeId)).toStrictEqual([
      "spiffe://example.org/web",
      "spiffe://example.org/shop"
    ])
  })
)

it.scoped("two SVIDs: one is selected by its hint, or by its SPIFFE ID", () =>
  Effect.gen(function* () {
    const { context, external } = yield* twoSvids
    for (const select of [{ hint: "external" }, { spiffeId: external.spiffeId }]) {
      const { identity, nextCall } = yield* ScriptedAgent.make({ select })
      yield* (yield* nextCall).push(context)
      const { svid, svids } = yield* identity.x509Context
      expect(svid.hint).toBe("external")
      expect(svid.spiffeId).toBe("spiffe://example.org/shop")
      expect(svids.map(({ hint }) => hint)).toStrictEqual(["external", "internal"])
    }
  })
)

it.scoped("two SVIDs with one hint: the first of them is selected", () =>
  Effect.gen(function* () {
    const issuer = yield* authority
    const svids = yield* Effect.all(
      ["/a", "/b", "/c"].map((path) => issuer.issue({ path, hint: path === "/a" ? "x" : "y" }))
    )
    const [svid = yield* issuer.issue(), ...others] = svids
    const { identity, nextCall } = yield* ScriptedAgent.make({ select: { hint: "y" } })
    yield* (yield* nextCall).push(X509Context.make({ svid, others, bundles: yield* DevAuthority.bundles([issuer]) }))
    expect((yield* identity.x509Context).svid.spiffeId).toBe("spiffe://example.org/b")
  })
)

it.scoped("the SVID selected is not among those delivered any more: withdrawn, and no other takes its place", () =>
  Effect.gen(function* () {
    const { context, internal } = yield* twoSvids
    const { identity, nextCall, nextEvent } = yield* ScriptedAgent.make({ select: { hint: "external" } })
    const call = yield* nextCall
    yield* call.push(context)
    yield* nextEvent("Updated")
    yield* call.push(X509Context.make({ svid: internal, bundles: context.bundles }))
    expect((yield* nextEvent("Withdrawn")).description).toContain("external")
    expect(yield* reasonOf(identity.x509Context)).toBe("Withdrawn")
    yield* call.push(context)
    yield* nextEvent("Updated")
    expect(yield* reasonOf(identity.x509Context)).toBe("ok")
  })
)

it.scoped("garbage is discarded with an event; the last good identity serves on, Stale until a good update comes", () =>
  Effect.gen(function* () {
    const issuer = yield* authority
    const { agentHealth, identity, nextCall, nextEvent, openCalls } = yield* ScriptedAgent.make()
    const call = yield* nextCall
    yield* call.push(yield* issuer.context())
    yield* nextEvent("Updated")
    const good = yield* identity.x509Context
    yield* call.pushBytes(garbage)
    expect(yield* nextEvent("UpdateDiscarded")).toMatchObject({ reason: "Malformed", time: 0 })
    expect(yield* identity.x509Context).toBe(good)
    expect(yield* agentHealth).toBe("Degraded")
    expect(yield* openCalls).toBe(1)
    yield* call.push(yield* issuer.context())
    yield* nextEvent("Updated")
    expect(yield* agentHealth).toBe("Healthy")
  })
)

it.scoped(
  "PermissionDenied withdraws the identity; the agent is asked on, and it serves again when it comes back",
  () =>
    Effect.gen(function* () {
      const issuer = yield* authority
      const { agentHealth, identity, nextCall, nextEvent } = yield* ScriptedAgent.make()
      const call = yield* nextCall
      yield* call.push(yield* issuer.context())
      yield* nextEvent("Updated")
      yield* call.fail("PermissionDenied")
      expect((yield* nextEvent("Withdrawn")).description).toContain("PermissionDenied")
      yield* nextEvent("Disconnected")
      expect(yield* reasonOf(identity.x509Context)).toBe("Withdrawn")
      expect(yield* agentHealth).toBe("Degraded")
      // That the agent cannot be reached afterwards gives nothing back.
      yield* TestClock.adjust("1 seconds")
      yield* (yield* nextCall).fail("Unavailable")
      yield* nextEvent("Disconnected")
      expect(yield* reasonOf(identity.x509Context)).toBe("Withdrawn")
      yield* TestClock.adjust("1 seconds")
      yield* (yield* nextCall).push(yield* issuer.context())
      yield* nextEvent("Updated")
      expect(yield* reasonOf(identity.x509Context)).toBe("ok")
    })
)

it.scoped("PermissionDenied before the first identity is waited out: the agent may not know the workload yet", () =>
  Effect.gen(function* () {
    const issuer = yield* authority
    const { identity, nextCall } = yield* ScriptedAgent.make()
    const waiting = yield* Effect.fork(identity.x509Context)
    yield* (yield* nextCall).fail("PermissionDenied")
    yield* TestClock.adjust("1 seconds")
    expect(yield* Fiber.poll(waiting)).toStrictEqual(Option.none())
    const context = yield* issuer.context()
    yield* (yield* nextCall).push(context)
    expect((yield* Fiber.join(waiting)).svid.fingerprint).toBe(context.svid.fingerprint)
  })
)

for (const reason of ["InvalidArgument", "Unimplemented"] as const) {
  it.scoped(`${reason} is final: callers are told at once, and the agent is not called again`, () =>
    Effect.gen(function* () {
      const { identity, nextCall, nextEvent, pendingCalls } = yield* ScriptedAgent.make()
      const waiting = yield* Effect.fork(Effect.flip(identity.x509Context))
      yield* (yield* nextCall).fail(reason)
      const error = yield* Fiber.join(waiting)
      expect(error.reason).toBe("Unavailable")
      expect(error.message).toContain(reason)
      expect(yield* nextEvent("Stopped")).toMatchObject({ reason })
      yield* TestClock.adjust("1 days")
      expect(yield* pendingCalls).toBe(0)
    })
  )
}

it.scoped("InvalidArgument after an identity came: it serves until it expires", () =>
  Effect.gen(function* () {
    const issuer = yield* authority
    const { agentHealth, identity, nextCall, nextEvent } = yield* ScriptedAgent.make()
    const call = yield* nextCall
    yield* call.push(yield* issuer.context({ ttl: "1 hour" }))
    yield* nextEvent("Updated")
    yield* call.fail("InvalidArgument")
    yield* nextEvent("Stopped")
    expect(yield* reasonOf(identity.x509Context)).toBe("ok")
    expect(yield* agentHealth).toBe("Degraded")
    yield* TestClock.adjust("61 minutes")
    expect(yield* reasonOf(identity.x509Context)).toBe("Expired")
  })
)

const retried = ["Unavailable", "LimitExceeded", "Ended", "Failed"] as const

it.scoped("every other end of the stream is followed by another call, the end without an error too", () =>
  Effect.gen(function* () {
    const { nextCall, nextEvent } = yield* ScriptedAgent.make()
    for (const reason of retried) {
      yield* (yield* nextCall).fail(reason)
      expect((yield* nextEvent("Disconnected")).reason).toBe(reason)
      yield* TestClock.adjust("30 seconds")
    }
    yield* (yield* nextCall).end
    expect((yield* nextEvent("Disconnected")).reason).toBe("Ended")
    yield* TestClock.adjust("30 seconds")
    yield* nextCall
  })
)

/** The times between the calls of an agent that fails every one, after it gave an identity that lives that long. */
const delays = (seed: string, ttl: Duration.DurationInput = "1 day") =>
  Effect.gen(function* () {
    yield* quicken
    const { nextCall, nextEvent } = yield* ScriptedAgent.make()
    const call = yield* nextCall
    yield* call.push(yield* (yield* authority).context({ ttl }))
    yield* nextEvent("Updated")
    yield* call.fail("Unavailable")
    const times = yield* Ref.make<ReadonlyArray<number>>([])
    yield* Effect.forkScoped(
      Effect.forever(
        Effect.gen(function* () {
          const { at, fail } = yield* nextCall
          yield* Ref.update(times, (all) => [...all, at])
          yield* fail("Unavailable")
        })
      )
    )
    yield* TestClock.adjust("5 minutes")
    const all = yield* Ref.get(times)
    return all.map((at, index) => at - (all[index - 1] ?? 0))
  }).pipe(Effect.scoped, Effect.withRandom(Random.make(seed)))

it.effect(
  "the delay before a call doubles from 100 ms to 30 seconds, of which a random half to the whole is waited",
  () =>
    Effect.gen(function* () {
      const measured = yield* delays("a")
      expect(measured.length).toBeGreaterThan(12)
      for (const [attempt, delay] of measured.entries()) {
        const most = Math.min(100 * 2 ** attempt, 30_000)
        expect(delay).toBeGreaterThanOrEqual(most / 2 - 1)
        expect(delay).toBeLessThanOrEqual(most)
      }
      expect(new Set(measured.slice(-5)).size).toBe(5)
    })
)

it.effect("once the identity has expired, the next call comes within one to two seconds, never after 30", () =>
  Effect.gen(function* () {
    const measured = yield* delays("a", "90 seconds")
    const at = measured.map((_, index) => measured.slice(0, index + 1).reduce((sum, delay) => sum + delay, 0))
    const later = measured.filter((_, index) => (at[index] ?? 0) > 92_001)
    const held = measured.filter((_, index) => (at[index] ?? 0) <= 90_000)
    expect(Math.max(...held)).toBeGreaterThan(10_000)
    // The backoff that was under way when it expired is cut short.
    expect(at.find((time) => time > 90_000)).toBeLessThanOrEqual(92_001)
    expect(later.length).toBeGreaterThan(100)
    expect(Math.min(...later)).toBeGreaterThanOrEqual(1000)
    expect(Math.max(...later)).toBeLessThanOrEqual(2000)
    expect(new Set(later).size).toBeGreaterThan(50)
  })
)

it.scoped("while no identity has come yet, the agent is asked every one to two seconds at the latest", () =>
  Effect.gen(function* () {
    yield* quicken
    const { nextCall } = yield* ScriptedAgent.make()
    const times = yield* Ref.make<ReadonlyArray<number>>([])
    yield* Effect.forkScoped(
      Effect.forever(
        Effect.flatMap(nextCall, ({ at, fail }) =>
          Effect.zipRight(
            Ref.update(times, (all) => [...all, at]),
            fail("PermissionDenied")
          )
        )
      )
    )
    yield* TestClock.adjust("5 minutes")
    const all = yield* Ref.get(times)
    expect(Math.max(...all.slice(1).map((at, index) => at - (all[index] ?? 0)))).toBeLessThanOrEqual(2000)
    expect(all.length).toBeLessThan(320)
  })
)

it.effect("the jitter comes from Effect's Random: one seed, one schedule", () =>
  Effect.gen(function* () {
    const first = yield* delays("a")
    expect(yield* Effect.provide(delays("a"), TestContext.TestContext)).toStrictEqual(first)
    expect(yield* Effect.provide(delays("b"), TestContext.TestContext)).not.toStrictEqual(first)
  })
)

it.scoped("a good update begins the backoff anew, garbage does not", () =>
  Effect.gen(function* () {
    const issuer = yield* authority
    const { nextCall, nextEvent } = yield* ScriptedAgent.make()
    const given = yield* nextCall
    yield* given.push(yield* issuer.context({ ttl: "1 day" }))
    yield* given.fail("Unavailable")
    yield* nextEvent("Disconnected")
    yield* TestClock.adjust("30 seconds")
    const failAfter = (first: Effect.Effect<void>, call: ScriptedAgent.Call) =>
      Effect.gen(function* () {
        yield* first
        yield* call.fail("Unavailable")
        const { time } = yield* nextEvent("Disconnected")
        yield* TestClock.adjust("30 seconds")
        const next = yield* nextCall
        return { delay: next.at - time, next }
      })
    let call = yield* nextCall
    let delay = 0
    for (let attempt = 0; attempt < 8; attempt++) {
      const failed = yield* failAfter(call.pushBytes(garbage), call)
      call = failed.next
      delay = failed.delay
    }
    expect(delay).toBeGreaterThanOrEqual(6_400)
    const context = yield* issuer.context()
    expect((yield* failAfter(call.push(context), call)).delay).toBeLessThanOrEqual(100)
  })
)

it.scoped("a reconnect schedule of one's own is followed; when it ends, the agent is not called again", () =>
  Effect.gen(function* () {
    const { identity, nextCall, nextEvent, pendingCalls } = yield* ScriptedAgent.make({
      reconnectSchedule: Schedule.addDelay(Schedule.recurs(1), () => "7 seconds")
    })
    yield* (yield* nextCall).fail("Unavailable")
    yield* nextEvent("Disconnected")
    yield* TestClock.adjust("7 seconds")
    const last = yield* nextCall
    expect(last.at).toBe(7000)
    yield* last.fail("Unavailable")
    expect(yield* nextEvent("Stopped")).toMatchObject({ reason: "Unavailable" })
    expect(yield* reasonOf(identity.x509Context)).toBe("Unavailable")
    yield* TestClock.adjust("1 days")
    expect(yield* pendingCalls).toBe(0)
  })
)

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

it.scoped("a call that brings no first answer is given up, and another one is made", () =>
  Effect.gen(function* () {
    const issuer = yield* authority
    const { identity, nextCall, nextEvent, openCalls } = yield* ScriptedAgent.make({ responseTimeout: "5 seconds" })
    yield* nextCall
    yield* TestClock.adjust("4999 millis")
    expect(yield* openCalls).toBe(1)
    yield* TestClock.adjust("1 millis")
    expect((yield* nextEvent("Disconnected")).reason).toBe("Stalled")
    expect(yield* openCalls).toBe(0)
    yield* TestClock.adjust("1 seconds")
    const call = yield* nextCall
    yield* call.push(yield* issuer.context())
    yield* nextEvent("Updated")
    // One that has answered may be silent for long.
    yield* TestClock.adjust("50 minutes")
    expect(yield* openCalls).toBe(1)
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

it.scoped("an event hook that dies changes nothing", () =>
  Effect.gen(function* () {
    const issuer = yield* authority
    const { identity, nextCall } = yield* ScriptedAgent.make({ onEvent: () => Effect.dieMessage("the hook") })
    const call = yield* nextCall
    yield* call.pushBytes(garbage)
    yield* call.push(yield* issuer.context())
    expect(yield* reasonOf(identity.x509Context)).toBe("ok")
  }).pipe(Logger.withMinimumLogLevel(LogLevel.None))
)

it.scoped("the log of an event is one line with its dates as ISO 8601", () =>
  Effect.gen(function* () {
    const lines: Array<string> = []
    const logger = Logger.make((entry) => {
      lines.push(Logger.logfmtLogger.log(entry))
    })
    const withLog = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      effect.pipe(
        Effect.provide(Logger.replace(Logger.defaultLogger, logger)),
        Logger.withMinimumLogLevel(LogLevel.Debug)
      )
    const { nextCall, nextEvent } = yield* withLog(ScriptedAgent.make())
    const call = yield* nextCall
    yield* call.push(yield* (yield* authority).context({ ttl: "1 hour" }))
    yield* nextEvent("Updated")
    yield* TestClock.adjust("3600001 millis")
    yield* nextEvent("Expired")
    const ours = lines.filter((line) => line.includes("workload API"))
    expect(ours.join("\n")).not.toMatch(/(time|notAfter|notBefore)=\d+(\s|$)/)
    expect(ours[0]).toMatch(/Updated.* time=1970-01-01T00:00:00.000Z .*notAfter=1970-01-01T01:00:00.000Z/)
    expect(ours[1]).toMatch(/Expired.* time=1970-01-01T01:00:00.001Z/)
    expect(ours.every((line) => !line.includes("\n"))).toBe(true)
  })
)

it.effect("the end of the scope ends the call, those who wait and those who listen", () =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const { identity, nextCall, openCalls } = yield* Scope.extend(ScriptedAgent.make(), scope)
    yield* nextCall
    expect(yield* openCalls).toBe(1)
    const waiting = yield* Effect.fork(Effect.flip(identity.x509Context))
    const listening = yield* Effect.fork(Stream.runDrain(identity.changes))
    yield* TestClock.adjust(1)
    yield* Scope.close(scope, Exit.void)
    expect(yield* openCalls).toBe(0)
    expect((yield* Fiber.join(waiting)).reason).toBe("Unavailable")
    yield* Fiber.join(listening)
    yield* TestClock.adjust("1 hours")
    expect(yield* openCalls).toBe(0)
  })
)

it.effect("the end of the scope does not wait for timers", () =>
  Effect.gen(function* () {
    const issuer = yield* authority
    const scope = yield* Scope.make()
    const { nextCall, nextEvent } = yield* Scope.extend(ScriptedAgent.make(), scope)
    yield* (yield* nextCall).push(yield* issuer.context())
    yield* nextEvent("Updated")
    yield* Scope.close(scope, Exit.void)
  })
)
