import { Explanation, PeerMatcher, PeerVerifier } from "@agentweave/spiffe"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as PeerCase from "@agentweave/testkit/PeerCase"
import { describe, expect, it } from "@effect/vitest"
import { Effect, TestClock } from "effect"
import { itAtEpoch, makeShared } from "./support/gate.js"

const shared = makeShared()

const present = (peer: PeerCase.PeerCase) =>
  Effect.gen(function* () {
    const { bundles, credentials, expects } = yield* peer.arrange(yield* shared)
    return yield* PeerVerifier.explain({
      chain: credentials.certificates,
      bundles,
      matcher: PeerMatcher.exactly(expects),
      purpose: peer.purpose ?? "ServerAuth"
    })
  })

/** What differs from run to run: serial numbers, generations, dates. */
const stable = (text: string) =>
  text
    .replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, "<date>")
    .replace(/\b[0-9A-Fa-f]{12,}\b/g, "<hex>")
    .replace(/(bytes of certificates; seen: )\d+/, "$1<size>")

describe("as people read it", () => {
  const reasons = [...new Set(PeerCase.all.map((peer) => peer.verdict))].sort()
  for (const reason of reasons) {
    const peer = PeerCase.all.find((one) => one.verdict === reason)
    if (peer === undefined) continue
    itAtEpoch(`${reason}, for example: ${peer.name}`, () =>
      Effect.gen(function* () {
        const explanation = yield* present(peer)
        expect(stable(Explanation.render(explanation))).toMatchSnapshot()
      })
    )
  }

  it.effect("says by how much the clock is off when dates are the cause", () =>
    Effect.gen(function* () {
      const own = yield* DevAuthority.make({ trustDomain: "example.org" })
      const svid = yield* own.issue({ path: "/web", ttl: "1 hour" })
      const { bundles } = yield* own.context({ path: "/api" })
      yield* TestClock.adjust("3 hours")
      const explanation = yield* PeerVerifier.explain({
        chain: svid.certificates,
        bundles,
        matcher: PeerMatcher.exactly(svid.spiffeId)
      })
      expect(explanation.failure).toMatchObject({ reason: "Expired", rule: "not-after", clockSkewMillis: 7_200_000 })
      expect(Explanation.render(explanation)).toContain("the clock is 2 h outside the validity")
    })
  )

  it.effect("a chain too large or empty is explained without being read", () =>
    Effect.gen(function* () {
      const { bundles } = yield* (yield* DevAuthority.make({ trustDomain: "example.org" })).context()
      const matcher = PeerMatcher.oneOf([])
      const none = yield* PeerVerifier.explain({ chain: [], bundles, matcher })
      expect(none.failure).toMatchObject({ reason: "NoCertificate", rule: "certificate-present" })
      const many = yield* PeerVerifier.explain({
        chain: Array.from({ length: 11 }, () => new Uint8Array(4)),
        bundles,
        matcher
      })
      expect(many.failure).toMatchObject({ reason: "LimitExceeded", rule: "certificates-limit" })
    })
  )
})
