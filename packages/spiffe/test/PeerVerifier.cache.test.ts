import { Buffer } from "node:buffer"
import { PeerMatcher, type X509Bundle, X509BundleSet } from "@agentweave/spiffe"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import { assert, describe, it } from "@effect/vitest"
import { Effect, TestClock } from "effect"
import { makeCheck } from "../src/internal/gate/signature.js"
import { makeVerifier } from "../src/internal/gate/verifier.js"
import * as LruCache from "../src/internal/lruCache.js"
import { describeResult, inputOf, makeShared, verdict, verify } from "./support/gate.js"

const shared = makeShared()

/** A verifier that counts the signatures it checks. */
const counting = (cacheSize = 16) => {
  const isSignedBy = makeCheck()
  const counted = { checks: 0 }
  const verifier = makeVerifier(cacheSize, (certificate, issuer) => {
    counted.checks += 1
    return isSignedBy(certificate, issuer)
  })
  return { verifier, counted }
}

const arrange = (options: DevAuthority.IssueOptions = {}) =>
  Effect.gen(function* () {
    const authority = yield* shared
    const { certificates } = yield* authority.issueRaw(options)
    return { authority, certificates, bundle: authority.bundle, ...counting() }
  })

describe("a success", () => {
  it.effect("is remembered: the same chain again costs no signature check and gives the same peer", () =>
    Effect.gen(function* () {
      const peer = yield* arrange()
      const first = yield* Effect.flatten(verify(peer))
      assert.strictEqual(peer.counted.checks, 1)
      const again = { ...peer, certificates: peer.certificates.map((der) => Uint8Array.from(der)) }
      const second = yield* Effect.flatten(verify(again))
      assert.strictEqual(peer.counted.checks, 1)
      assert.deepStrictEqual({ ...second, chain: first.chain }, first)
      assert.strictEqual(second.chain, again.certificates)
      assert.strictEqual(first.bundleGeneration, peer.bundle.generation)
    })
  )

  it.effect("is not remembered with a cache size of 0", () =>
    Effect.gen(function* () {
      const peer = { ...(yield* arrange()), ...counting(0) }
      yield* Effect.flatten(verify(peer))
      yield* Effect.flatten(verify(peer))
      assert.strictEqual(peer.counted.checks, 2)
    })
  )

  it.effect("ends with the earliest notAfter of its path, to the millisecond", () =>
    Effect.gen(function* () {
      const peer = yield* arrange({ ttl: "10 minutes" })
      const { notAfter } = yield* Effect.flatten(verify(peer))
      assert.strictEqual(notAfter, 600_000)
      yield* TestClock.setTime(notAfter)
      assert.strictEqual(yield* verdict(peer), "Accepted")
      assert.strictEqual(peer.counted.checks, 1)
      yield* TestClock.setTime(notAfter + 1)
      assert.strictEqual(yield* verdict(peer), "Expired not-after")
    })
  )

  it.effect("ends with the anchor's notAfter when that is earlier than the leaf's", () =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org", rootTtl: "5 minutes" })
      const { certificates } = yield* authority.issueRaw({ ttl: "1 hour" })
      const peer = { certificates, bundle: authority.bundle, ...counting() }
      const { notAfter } = yield* Effect.flatten(verify(peer))
      assert.strictEqual(notAfter, 300_000)
      yield* TestClock.setTime(notAfter + 1)
      assert.strictEqual(yield* verdict(peer), "Expired not-after")
    })
  )

  it.effect("does not hold before the latest notBefore, should the clock go back", () =>
    Effect.gen(function* () {
      const peer = yield* arrange({ validity: { notBefore: 0, notAfter: 1_000_000 } })
      assert.strictEqual(yield* verdict(peer), "Accepted")
      yield* TestClock.setTime(-1)
      assert.strictEqual(yield* verdict(peer), "NotYetValid not-before")
    })
  )

  it.effect("does not answer at a time that is no number", () =>
    Effect.gen(function* () {
      const peer = yield* arrange()
      assert.strictEqual(yield* verdict(peer), "Accepted")
      const result = peer.verifier.verify(inputOf(peer, Number.NaN))
      assert.strictEqual(describeResult(result), "VerifierFault")
    })
  )

  it.effect("holds for one bundle: other authorities, or none, are judged anew", () =>
    Effect.gen(function* () {
      const peer = yield* arrange()
      const { authority } = peer
      assert.strictEqual(yield* verdict(peer), "Accepted")
      const rotated = yield* authority.rotateRoot()
      const retired = yield* rotated.retireOldRoots
      assert.strictEqual(yield* verdict({ ...peer, bundle: retired.bundle }), "UntrustedChain trusted-path")
      assert.strictEqual(yield* verdict({ ...peer, bundles: X509BundleSet.empty }), "NoBundle bundle")
      assert.strictEqual(yield* verdict({ ...peer, bundle: rotated.bundle }), "Accepted")
      // A generation that lies changes nothing: the authorities themselves are compared.
      const lying: X509Bundle.X509Bundle = { ...retired.bundle, generation: rotated.bundle.generation }
      assert.strictEqual(yield* verdict({ ...peer, bundle: lying }), "UntrustedChain trusted-path")
    })
  )

  it.effect("holds for one purpose", () =>
    Effect.gen(function* () {
      const peer = yield* arrange({ extendedKeyUsage: ["serverAuth"] })
      assert.strictEqual(yield* verdict({ ...peer, purpose: "ServerAuth" }), "Accepted")
      assert.strictEqual(yield* verdict({ ...peer, purpose: "ClientAuth" }), "InvalidLeaf leaf-extended-key-usage")
    })
  )

  it.effect("holds for one chain: the leaf with other certificates after it is judged anew", () =>
    Effect.gen(function* () {
      const { certificates } = yield* Effect.flatMap(
        DevAuthority.make({ trustDomain: "example.org", intermediates: 1 }),
        (authority) => authority.issueRaw()
      )
      const peer = yield* arrange()
      assert.strictEqual(yield* verdict(peer), "Accepted")
      const [leaf] = peer.certificates
      const altered = Uint8Array.from(leaf)
      altered[altered.length - 1] = (altered.at(-1) ?? 0) ^ 1
      assert.strictEqual(yield* verdict({ ...peer, certificates: [leaf, altered] }), "Accepted")
      assert.strictEqual(yield* verdict({ ...peer, certificates: [altered, leaf] }), "UntrustedChain trusted-path")
      assert.strictEqual(yield* verdict({ ...peer, certificates: [...certificates] }), "UntrustedChain trusted-path")
    })
  )

  it.effect("holds for certificates as they were cut: the same bytes cut elsewhere are judged anew", () =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 1 })
      const { certificates } = yield* authority.issueRaw()
      const peer = { bundle: authority.bundle, ...counting() }
      assert.strictEqual(yield* verdict({ ...peer, certificates }), "Accepted")
      const joined = [Buffer.concat(certificates)]
      assert.strictEqual(yield* verdict({ ...peer, certificates: joined }), "InvalidLeaf leaf-readable")
    })
  )

  it.effect("does not answer for the matcher", () =>
    Effect.gen(function* () {
      const peer = yield* arrange({ path: "/a" })
      const { authority } = peer
      const a = PeerMatcher.exactly(authority.id("/a"))
      const b = PeerMatcher.exactly(authority.id("/b"))
      assert.strictEqual(yield* verdict({ ...peer, matcher: a }), "Accepted")
      assert.strictEqual(yield* verdict({ ...peer, matcher: b }), "UnexpectedPeer matcher")
      assert.strictEqual(yield* verdict({ ...peer, matcher: a }), "Accepted")
      assert.strictEqual(peer.counted.checks, 1)
    })
  )
})

describe("a refusal", () => {
  it.effect("is never remembered", () =>
    Effect.gen(function* () {
      const peer = yield* arrange({ validity: { notBefore: 60_000, notAfter: 120_000 } })
      assert.strictEqual(yield* verdict(peer), "NotYetValid not-before")
      assert.strictEqual(yield* verdict(peer), "NotYetValid not-before")
      assert.strictEqual(peer.counted.checks, 2)
      yield* TestClock.setTime(60_000)
      assert.strictEqual(yield* verdict({ ...peer, bundles: X509BundleSet.empty }), "NoBundle bundle")
      assert.strictEqual(yield* verdict(peer), "Accepted")
    })
  )
})

describe("LruCache", () => {
  it("keeps the entries used last, and no more than its size", () => {
    const cache = LruCache.make<number>(2)
    cache.set("a", 1)
    cache.set("b", 2)
    assert.strictEqual(cache.get("a"), 1)
    cache.set("c", 3)
    assert.deepStrictEqual([cache.get("a"), cache.get("b"), cache.get("c")], [1, undefined, 3])
    cache.set("a", 4)
    cache.set("d", 5)
    assert.deepStrictEqual([cache.get("a"), cache.get("c"), cache.get("d")], [4, undefined, 5])
  })

  it("keeps nothing with a size of zero or less", () => {
    for (const size of [0, -1]) {
      const cache = LruCache.make<number>(size)
      cache.set("a", 1)
      assert.isUndefined(cache.get("a"))
    }
  })
})
