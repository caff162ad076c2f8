import { IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { type AuditEvent, AuditLog, IdentityMonitor } from "@agentweave/transport"
import type { WorkloadApi } from "@agentweave/workload-api"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Layer, Redacted, TestClock } from "effect"
import { messageOf } from "./support/messages.js"
import * as ScriptedAgent from "./support/scriptedAgent.js"
import { unusableUpdates } from "./support/unusableUpdates.js"

/** A provider on a scripted agent, and what its audit log holds. */
const audited = Effect.fnUntraced(function* (options: WorkloadApi.ProviderOptions = {}) {
  const events: Array<AuditEvent.AuditEvent> = []
  const agent = yield* ScriptedAgent.make(options)
  yield* Layer.build(
    IdentityMonitor.layer({ interval: "1 day" }).pipe(
      Layer.provide(Layer.succeed(IdentityProvider.IdentityProvider, agent.identity)),
      Layer.provide(AuditLog.layerMemory(events))
    )
  )
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const problems = () =>
    events.flatMap((event) => (event._tag === "IdentityProblem" ? [`${event.problem}: ${event.reason}`] : []))
  /** Lets pass what is under way, and the longest backoff. */
  const settle = TestClock.adjust("3 seconds")
  return { ...agent, authority, audit: events, problems, settle }
})

const garbage = Redacted.make(Uint8Array.of(0x0b, 0xff, 0xff))

describe("what goes wrong is on record by itself, once for each cause", () => {
  it.scoped("every update that is discarded, with its reason, while the last good one serves", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(Date.UTC(2030, 0))
      const { audit, authority, identity, nextCall } = yield* audited({ maxAuthorities: 3 })
      const call = yield* nextCall
      const context = yield* authority.context()
      yield* call.push(context)
      const good = yield* identity.x509Context
      for (const { bytes, reason, says } of unusableUpdates) {
        audit.length = 0
        yield* call.pushBytes(Redacted.make(yield* bytes({ authority, good: messageOf(context) })))
        yield* TestClock.adjust(1)
        expect(audit).toEqual([
          {
            _tag: "IdentityProblem",
            time: expect.any(Number),
            problem: "Discarded",
            reason,
            description: expect.stringContaining(says)
          }
        ])
        expect(yield* identity.x509Context).toBe(good)
      }
    })
  )

  it.scoped("garbage twice on one stream is two problems; repeated after a reconnect it is none", () =>
    Effect.gen(function* () {
      const { authority, nextCall, problems, settle } = yield* audited()
      const first = yield* nextCall
      yield* first.push(yield* authority.context())
      yield* first.pushBytes(garbage)
      yield* first.pushBytes(garbage)
      yield* TestClock.adjust(1)
      expect(problems()).toEqual(["Discarded: Malformed", "Discarded: Malformed"])
      yield* first.end
      yield* settle
      const second = yield* nextCall
      yield* second.pushBytes(garbage)
      yield* TestClock.adjust(1)
      expect(problems().slice(2)).toEqual(["Unavailable: Ended"])
      yield* second.pushBytes(garbage)
      yield* TestClock.adjust(1)
      expect(problems().slice(3)).toEqual(["Discarded: Malformed"])
      yield* second.push(yield* authority.context())
      yield* second.end
      yield* settle
      yield* (yield* nextCall).pushBytes(garbage)
      yield* TestClock.adjust(1)
      expect(problems().slice(4)).toEqual(["Unavailable: Ended", "Discarded: Malformed"])
    })
  )

  it.scoped("an agent that is away is told once for each reason until it is back", () =>
    Effect.gen(function* () {
      const { authority, nextCall, problems, settle } = yield* audited()
      let call = yield* nextCall
      for (const round of [1, 2]) {
        yield* call.push(yield* authority.context())
        for (const reason of ["Ended", "Unavailable", "Unavailable", "Failed", "Unavailable"] as const) {
          yield* call.fail(reason)
          yield* settle
          call = yield* nextCall
        }
        expect(problems().slice((round - 1) * 3)).toEqual([
          "Unavailable: Ended",
          "Unavailable: Unavailable",
          "Unavailable: Failed"
        ])
      }
    })
  )

  it.scoped("an identity that is withdrawn, however often the agent says so, and its return and next withdrawal", () =>
    Effect.gen(function* () {
      const { audit, authority, nextCall, problems, settle } = yield* audited()
      let call = yield* nextCall
      for (const round of [1, 2]) {
        yield* call.push(yield* authority.context())
        yield* TestClock.adjust("1 second")
        expect(audit.filter(({ _tag }) => _tag === "SvidRotated")).toHaveLength(round)
        for (let n = 0; n < 3; n++) {
          yield* call.fail("PermissionDenied")
          yield* settle
          call = yield* nextCall
        }
        expect(problems()).toEqual(Array.from({ length: round }, () => "Withdrawn: Withdrawn"))
      }
    })
  )

  it.scoped("an identity the agent never had for us, or not the one that was selected", () =>
    Effect.gen(function* () {
      const { authority, nextCall, problems, settle } = yield* audited({
        select: { hint: "billing" },
        initialTimeout: "5 minutes"
      })
      let call = yield* nextCall
      yield* call.push(yield* authority.context())
      yield* call.push(yield* authority.context())
      yield* call.fail("PermissionDenied")
      yield* settle
      call = yield* nextCall
      expect(problems()).toEqual(["Unavailable: NotSelected"])
      yield* call.push(yield* authority.context({ hint: "billing" }))
      yield* call.push(yield* authority.context())
      yield* call.push(yield* authority.context())
      yield* TestClock.adjust("1 second")
      expect(problems().slice(1)).toEqual(["Withdrawn: Withdrawn"])
    })
  )

  it.scoped("an SVID that expires with the stream open: the end of that stream is no other problem", () =>
    Effect.gen(function* () {
      const { authority, nextCall, problems } = yield* audited()
      yield* (yield* nextCall).push(yield* authority.context({ ttl: "1 minute" }))
      yield* TestClock.adjust("61 seconds")
      expect(problems()).toHaveLength(2)
      expect(problems()[0]).toBe("Stale: undefined")
      expect(problems()[1]).toMatch(/^Expired/)
    })
  )

  it.scoped("callers that wait no longer, and an agent that is not asked any more", () =>
    Effect.gen(function* () {
      const { audit, nextCall, problems } = yield* audited({ initialTimeout: "10 seconds" })
      const call = yield* nextCall
      yield* TestClock.adjust("10 seconds")
      yield* call.fail("InvalidArgument")
      yield* TestClock.adjust("1 minute")
      expect(problems()).toEqual(["Unavailable: InitialWaitOver", "Unavailable: Stopped"])
      expect(audit.at(-1)).toHaveProperty("description", expect.stringContaining("not asked any more"))
    })
  )

  it.scoped("an answer larger than allowed is a discarded update", () =>
    Effect.gen(function* () {
      const { authority, nextCall, problems, settle } = yield* audited()
      const call = yield* nextCall
      yield* call.push(yield* authority.context())
      yield* call.fail("LimitExceeded")
      yield* settle
      expect(problems()).toEqual(["Discarded: LimitExceeded"])
    })
  )

  it.scoped("a hook that takes its time does not hold up the record", () =>
    Effect.gen(function* () {
      const released = yield* Deferred.make<void>()
      const { nextCall, problems } = yield* audited({ onEvent: () => Deferred.await(released) })
      yield* (yield* nextCall).pushBytes(garbage)
      yield* TestClock.adjust(1)
      expect(problems()).toEqual(["Discarded: Malformed"])
      yield* Deferred.succeed(released, undefined)
    })
  )
})
