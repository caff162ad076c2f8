import { expect, it } from "@effect/vitest"
import { type Duration, Effect, Fiber, Option, Random, Ref, Schedule, TestClock, TestContext } from "effect"
import { quicken } from "../../spiffe/test/support/quickTestClock.js"
import { authority, garbage, reasonOf } from "./agentMessages.js"
import * as ScriptedAgent from "./support/scriptedAgent.js"

const retried = ["Unavailable", "LimitExceeded", "Ended", "Failed"] as const

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
