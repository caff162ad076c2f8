import { X509Context } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { expect, it } from "@effect/vitest"
import { Array as Arr, Effect, Exit, Fiber, Logger, LogLevel, Option, Ref, Scope, Stream, TestClock } from "effect"
import { settled } from "../../spiffe/test/support/settled.js"
import { authority, garbage, reasonOf } from "./agentMessages.js"
import * as ScriptedAgent from "./support/scriptedAgent.js"

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
    const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
    yield* settled
    expect(closing.unsafePoll()).toEqual(Exit.void)
  })
)
