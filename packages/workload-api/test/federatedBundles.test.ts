import { DevAuthority } from "@agentweave/testkit"
import { describe, expect, it } from "@effect/vitest"
import { Effect, TestClock } from "effect"
import * as ScriptedAgent from "./support/scriptedAgent.js"

const setup = Effect.gen(function* () {
  const issuer = yield* DevAuthority.make({ trustDomain: "example.org" })
  const partner = yield* DevAuthority.make({ trustDomain: "partner.org" })
  const friend = yield* DevAuthority.make({ trustDomain: "friend.org" })
  const agent = yield* ScriptedAgent.make()
  /** The trust domains that peers can be verified for, or why there are none. */
  const domains = Effect.match(agent.identity.x509Context, {
    onFailure: ({ reason }) => reason,
    onSuccess: ({ bundles }) => Array.from(bundles.bundles.keys()).join(" ")
  })
  return { ...agent, issuer, partner, friend, domains }
})

describe("federated bundles", () => {
  it.scoped("go with an identity that is withdrawn; at its return there are those that the agent has by then", () =>
    Effect.gen(function* () {
      const { domains, friend, issuer, nextCall, nextEvent, partner } = yield* setup
      const call = yield* nextCall
      yield* call.push(yield* issuer.context({ federatesWith: [partner] }))
      yield* nextEvent("Updated")
      expect(yield* domains).toBe("example.org partner.org")
      yield* call.fail("PermissionDenied")
      yield* nextEvent("Withdrawn")
      expect(yield* domains).toBe("Withdrawn")
      yield* TestClock.adjust("2 seconds")
      const again = yield* nextCall
      yield* again.push(yield* issuer.context({ federatesWith: [friend] }))
      yield* nextEvent("Updated")
      expect(yield* domains).toBe("example.org friend.org")
      yield* again.push(yield* issuer.context({ federatesWith: [friend, partner] }))
      yield* nextEvent("Updated")
      expect(yield* domains).toBe("example.org friend.org partner.org")
    })
  )

  it.scoped("one that an update omits is gone, also with the same SVID, and the next update may bring it again", () =>
    Effect.gen(function* () {
      const { domains, events, identity, issuer, nextCall, nextEvent, partner } = yield* setup
      const call = yield* nextCall
      const whole = yield* issuer.context({ federatesWith: [partner] })
      const { svid } = whole
      const without = { ...whole, bundles: (yield* issuer.context()).bundles }
      for (let round = 0; round < 2; round++) {
        yield* call.push(whole)
        yield* nextEvent("Updated")
        expect(yield* domains).toBe("example.org partner.org")
        expect((yield* identity.x509Context).bundles.bundles.get(partner.trustDomain)).toStrictEqual(partner.bundle)
        yield* call.push(without)
        yield* nextEvent("Updated")
        expect(yield* domains).toBe("example.org")
        expect((yield* identity.x509Context).svid.fingerprint).toBe(svid.fingerprint)
      }
      expect(yield* events.size).toBe(0)
    })
  )
})
