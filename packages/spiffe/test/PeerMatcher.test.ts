import { PeerMatcher, SpiffeId, TrustDomain } from "@agentweave/spiffe"
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"

const domains = ["a.test", "b.test"] as const
const ids = domains.flatMap((domain) => ["/x", "/X", "/x/y"].map((path) => SpiffeId.make(`spiffe://${domain}${path}`)))

const anyId = fc.constantFrom(...ids)

const { matcher: anyMatcher } = fc.letrec<{ matcher: PeerMatcher.PeerMatcher }>((tie) => ({
  matcher: fc.oneof(
    { maxDepth: 3 },
    anyId.map(PeerMatcher.exactly),
    fc.array(anyId, { maxLength: 3 }).map(PeerMatcher.oneOf),
    fc.constantFrom(...domains).map((domain) => PeerMatcher.memberOf(TrustDomain.make(domain))),
    fc.tuple(tie("matcher"), tie("matcher")).map(([left, right]) => PeerMatcher.and(left, right)),
    fc.tuple(tie("matcher"), tie("matcher")).map(([left, right]) => PeerMatcher.or(left, right))
  )
}))

const accepted = (matcher: PeerMatcher.PeerMatcher) => ids.filter((id) => PeerMatcher.matches(matcher, id))

describe("PeerMatcher", () => {
  it("exactly accepts one ID, byte for byte", () => {
    for (const id of ids) assert.deepStrictEqual(accepted(PeerMatcher.exactly(id)), [id])
  })

  it("oneOf accepts what it lists, and nobody when it lists nothing", () => {
    fc.assert(
      fc.property(fc.uniqueArray(anyId), (listed) => {
        const matcher = PeerMatcher.oneOf(listed)
        assert.deepStrictEqual(accepted(matcher).toSorted(), listed.toSorted())
      })
    )
    assert.deepStrictEqual(accepted(PeerMatcher.oneOf([])), [])
  })

  it("oneOf keeps a copy of its list", () => {
    const listed = ids.slice(0, 1)
    const matcher = PeerMatcher.oneOf(listed)
    listed.push(...ids)
    assert.lengthOf(accepted(matcher), 1)
  })

  it("memberOf accepts a trust domain and none that begins or ends like it", () => {
    const member = PeerMatcher.memberOf(TrustDomain.make("a.test"))
    assert.deepStrictEqual(
      accepted(member),
      ids.filter((id) => id.startsWith("spiffe://a.test/"))
    )
    for (const domain of ["a.test.evil", "evil.a.test", "a.tes", "a-test"]) {
      assert.isFalse(PeerMatcher.matches(member, SpiffeId.make(`spiffe://${domain}/x`)))
    }
  })

  it("and accepts what both accept; it is commutative, associative and idempotent", () => {
    fc.assert(
      fc.property(anyMatcher, anyMatcher, anyMatcher, anyId, (a, b, c, id) => {
        const both = PeerMatcher.matches(a, id) && PeerMatcher.matches(b, id)
        assert.strictEqual(PeerMatcher.matches(PeerMatcher.and(a, b), id), both)
        assert.strictEqual(PeerMatcher.matches(PeerMatcher.and(b, a), id), both)
        assert.deepStrictEqual(
          accepted(PeerMatcher.and(PeerMatcher.and(a, b), c)),
          accepted(PeerMatcher.and(a, PeerMatcher.and(b, c)))
        )
        assert.deepStrictEqual(accepted(PeerMatcher.and(a, a)), accepted(a))
      })
    )
  })

  it("or accepts what either accepts; it is commutative, associative, idempotent, and and distributes over it", () => {
    fc.assert(
      fc.property(anyMatcher, anyMatcher, anyMatcher, anyId, (a, b, c, id) => {
        const { and, matches, or } = PeerMatcher
        assert.strictEqual(matches(or(a, b), id), matches(a, id) || matches(b, id))
        assert.deepStrictEqual(accepted(or(a, b)), accepted(or(b, a)))
        assert.deepStrictEqual(accepted(or(or(a, b), c)), accepted(or(a, or(b, c))))
        assert.deepStrictEqual(accepted(or(a, a)), accepted(a))
        assert.deepStrictEqual(accepted(and(a, or(b, c))), accepted(or(and(a, b), and(a, c))))
      })
    )
  })

  it("the IDs a matcher names are accepted by it, and are all of them where it accepts no whole trust domain", () => {
    fc.assert(
      fc.property(anyMatcher, (matcher) => {
        const named = PeerMatcher.ids(matcher)
        for (const id of named) assert.isTrue(PeerMatcher.matches(matcher, id))
        if (JSON.stringify(matcher).includes("MemberOf")) return
        assert.deepStrictEqual(named.toSorted(), accepted(matcher).toSorted())
      })
    )
  })

  it("two matchers with one description accept the same peers", () => {
    fc.assert(
      fc.property(anyMatcher, anyMatcher, (a, b) => {
        if (PeerMatcher.describe(a) === PeerMatcher.describe(b)) assert.deepStrictEqual(accepted(a), accepted(b))
      })
    )
  })

  it("isPeerMatcher accepts matchers and nothing that only looks like one", () => {
    fc.assert(fc.property(anyMatcher, (matcher) => assert.isTrue(PeerMatcher.isPeerMatcher(matcher))))
    const [id] = ids
    for (const other of [
      undefined,
      "spiffe://a.test/x",
      { _tag: "Any" },
      { _tag: "Exactly", id: "spiffe://a.test" },
      { _tag: "OneOf", ids: [id, "anyone"] },
      { _tag: "OneOf", ids: "spiffe://a.test/x" },
      { _tag: "MemberOf", trustDomain: "A.test" },
      { _tag: "And", left: { _tag: "Exactly", id } },
      { _tag: "Or", left: { _tag: "Exactly", id }, right: { _tag: "Any" } }
    ]) {
      assert.isFalse(PeerMatcher.isPeerMatcher(other), JSON.stringify(other))
    }
  })

  it("no combination accepts more than its parts: none accepts everyone", () => {
    const stranger = SpiffeId.make("spiffe://stranger.test/x")
    fc.assert(fc.property(anyMatcher, (matcher) => assert.isFalse(PeerMatcher.matches(matcher, stranger))))
  })

  it("an accepted ID is always of one of the matcher's trust domains", () => {
    fc.assert(
      fc.property(anyMatcher, anyId, (matcher, id) => {
        if (!PeerMatcher.matches(matcher, id)) return
        assert.isTrue(PeerMatcher.trustDomains(matcher).has(SpiffeId.trustDomain(id)))
      })
    )
  })

  it("matches and and are dual", () => {
    fc.assert(
      fc.property(anyMatcher, anyMatcher, anyId, (a, b, id) => {
        assert.deepStrictEqual(PeerMatcher.and(b)(a), PeerMatcher.and(a, b))
        assert.strictEqual(PeerMatcher.matches(id)(a), PeerMatcher.matches(a, id))
      })
    )
  })

  it("describes itself", () => {
    const [first, second] = ids.map(PeerMatcher.exactly)
    assert.isDefined(first)
    assert.isDefined(second)
    if (first === undefined || second === undefined) return
    assert.strictEqual(PeerMatcher.describe(first), "spiffe://a.test/x")
    assert.strictEqual(
      PeerMatcher.describe(PeerMatcher.oneOf(ids.slice(0, 2))),
      "one of (spiffe://a.test/x, spiffe://a.test/X)"
    )
    assert.strictEqual(PeerMatcher.describe(PeerMatcher.memberOf(TrustDomain.make("a.test"))), "any workload of a.test")
    assert.strictEqual(
      PeerMatcher.describe(PeerMatcher.and(first, second)),
      "(spiffe://a.test/x) and (spiffe://a.test/X)"
    )
    assert.strictEqual(
      PeerMatcher.describe(PeerMatcher.or(first, second)),
      "(spiffe://a.test/x) or (spiffe://a.test/X)"
    )
  })
})
