import { PeerMatcher, PeerVerifier, X509BundleSet } from "@agentweave/spiffe"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, TestClock } from "effect"
import { makeCheck } from "../src/internal/gate/signature.js"
import { makeVerifier } from "../src/internal/gate/verifier.js"
import { describeResult, inputOf, makeShared, type Peer, verdict, verify } from "./support/gate.js"

const shared = makeShared({ intermediates: 1 })

const arrange = (options: DevAuthority.IssueOptions = {}, cacheSize = 16) =>
  Effect.gen(function* () {
    const authority = yield* shared
    const { certificates } = yield* authority.issueRaw(options)
    const counted = { checks: 0 }
    const isSignedBy = makeCheck()
    const verifier = makeVerifier(cacheSize, (certificate, issuer) => {
      counted.checks += 1
      return isSignedBy(certificate, issuer)
    })
    return { authority, certificates, bundle: authority.bundle, verifier, counted }
  })

/** The verdict where the leaf alone settles it; `undefined` where the rest of the chain is read. */
const verifyLeaf = (peer: Peer & { readonly verifier: PeerVerifier.PeerVerifier }) =>
  Effect.map(Clock.currentTimeMillis, (now) => {
    let isRead = false
    const leaf = Uint8Array.from(peer.certificates[0] ?? [])
    const certificates = () => {
      isRead = true
      return [leaf, ...peer.certificates.slice(1)]
    }
    const result = peer.verifier.verify({ ...inputOf(peer, now), chain: { leaf, certificates } })
    return isRead ? undefined : result
  })

const answer = (peer: Parameters<typeof verifyLeaf>[0]) =>
  Effect.map(verifyLeaf(peer), (result) => (result === undefined ? "Read" : describeResult(result)))

describe("a leaf that passed", () => {
  it.effect("is remembered as it was, whatever becomes of the buffer it came in", () =>
    Effect.gen(function* () {
      const peer = yield* arrange()
      const now = yield* Clock.currentTimeMillis
      const [leaf = new Uint8Array(), ...rest] = peer.certificates.map((certificate) => Uint8Array.from(certificate))
      const verifyBuffer = () =>
        describeResult(
          peer.verifier.verify({ ...inputOf(peer, now), chain: { leaf, certificates: () => [leaf, ...rest] } })
        )
      assert.strictEqual(verifyBuffer(), "Accepted")
      // All but its end, by which a remembered leaf is looked up.
      leaf.fill(0, 0, leaf.length - 32)
      assert.notStrictEqual(verifyBuffer(), "Accepted")
    })
  )

  it.effect("passes without its chain and without a signature check, as the peer it was", () =>
    Effect.gen(function* () {
      const peer = yield* arrange()
      const first = yield* Effect.flatten(verify(peer))
      const { checks } = peer.counted
      const again = yield* verifyLeaf(peer)
      assert.deepStrictEqual(again && (yield* again), first)
      assert.strictEqual(peer.counted.checks, checks)
    })
  )

  it.effect("passes without its chain until the earliest notAfter of its path, to the millisecond", () =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org", rootTtl: "5 minutes" })
      const { certificates } = yield* authority.issueRaw({ ttl: "1 hour" })
      const peer = { ...(yield* arrange()), certificates, bundle: authority.bundle }
      yield* Effect.flatten(verify(peer))
      yield* TestClock.setTime(300_000)
      assert.strictEqual(yield* answer(peer), "Accepted")
      yield* TestClock.setTime(300_001)
      assert.strictEqual(yield* answer(peer), "Read")
    })
  )

  it.effect("does not pass without its chain before the latest notBefore, should the clock go back", () =>
    Effect.gen(function* () {
      const peer = yield* arrange({ validity: { notBefore: 0, notAfter: 1_000_000 } })
      yield* Effect.flatten(verify(peer))
      yield* TestClock.setTime(-1)
      assert.strictEqual(yield* answer(peer), "Read")
    })
  )

  it.effect("passes without its chain under the authorities it passed under, and no others", () =>
    Effect.gen(function* () {
      const peer = yield* arrange()
      yield* Effect.flatten(verify(peer))
      const rotated = yield* peer.authority.rotateRoot()
      const retired = yield* rotated.retireOldRoots
      assert.strictEqual(yield* answer(peer), "Accepted")
      assert.strictEqual(yield* answer({ ...peer, bundle: retired.bundle }), "Read")
      assert.strictEqual(yield* answer({ ...peer, bundles: X509BundleSet.empty }), "Read")
      assert.strictEqual(yield* answer(peer), "Accepted")
      assert.strictEqual(yield* answer({ ...peer, bundle: rotated.bundle }), "Read")
      assert.strictEqual(yield* answer({ ...peer, bundle: rotated.bundle }), "Accepted")
    })
  )

  it.effect("passes without its chain in the role it had, and not in the other", () =>
    Effect.gen(function* () {
      const peer = yield* arrange({ extendedKeyUsage: ["serverAuth"] })
      yield* Effect.flatten(verify(peer))
      assert.strictEqual(yield* answer({ ...peer, purpose: "ServerAuth" }), "Accepted")
      assert.strictEqual(yield* answer({ ...peer, purpose: "ClientAuth" }), "Read")
    })
  )

  it.effect("still has to be who the matcher asks for", () =>
    Effect.gen(function* () {
      const peer = yield* arrange({ path: "/a" })
      yield* Effect.flatten(verify(peer))
      const a = PeerMatcher.exactly(peer.authority.id("/a"))
      const b = PeerMatcher.exactly(peer.authority.id("/b"))
      assert.strictEqual(yield* answer({ ...peer, matcher: b }), "UnexpectedPeer matcher")
      assert.strictEqual(yield* answer({ ...peer, matcher: a }), "Accepted")
    })
  )

  it.effect("is one leaf: a single bit more or less, and it is not known", () =>
    Effect.gen(function* () {
      const peer = yield* arrange()
      yield* Effect.flatten(verify(peer))
      const [leaf] = peer.certificates
      for (const at of [leaf.length - 1, leaf.length - 40, 100]) {
        const altered = Uint8Array.from(leaf)
        altered[at] = (altered[at] ?? 0) ^ 1
        assert.strictEqual(yield* answer({ ...peer, certificates: [altered] }), "Read")
      }
    })
  )
})

describe("another leaf of a CA below which one passed", () => {
  const seen = Effect.gen(function* () {
    const peer = yield* arrange({ path: "/a" })
    yield* Effect.flatten(verify(peer))
    return peer
  })

  it.effect("is judged without the rest of its chain, down to its own signature", () =>
    Effect.gen(function* () {
      const peer = yield* seen
      const { certificates } = yield* peer.authority.issueRaw({ path: "/b" })
      const { checks } = peer.counted
      const result = yield* verifyLeaf({ ...peer, certificates })
      assert.isAbove(peer.counted.checks, checks)
      assert.deepStrictEqual(result, yield* verify({ ...peer, certificates }))
    })
  )

  it.effect("has to be who the matcher asks for", () =>
    Effect.gen(function* () {
      const peer = yield* seen
      const { certificates } = yield* peer.authority.issueRaw({ path: "/b" })
      const matcher = PeerMatcher.exactly(peer.authority.id("/a"))
      assert.strictEqual(yield* answer({ ...peer, certificates, matcher }), "UnexpectedPeer matcher")
    })
  )

  it.effect("that breaks a rule does not pass without its chain, which tells the fault", () =>
    Effect.gen(function* () {
      const peer = yield* seen
      const faults: ReadonlyArray<DevAuthority.IssueOptions> = [
        { validity: "Expired" },
        { validity: { notBefore: 60_000, notAfter: 120_000 } },
        { extendedKeyUsage: ["clientAuth"] },
        { path: "/b", signature: "WrongKey" },
        { path: "/b", signature: "Altered" }
      ]
      for (const fault of faults) {
        const { certificates } = yield* peer.authority.issueRaw(fault)
        assert.strictEqual(yield* answer({ ...peer, certificates }), "Read")
        assert.notStrictEqual(yield* verdict({ ...peer, certificates }), "Accepted")
      }
    })
  )

  it.effect("does not pass without its chain under other authorities, nor in another trust domain", () =>
    Effect.gen(function* () {
      const peer = yield* seen
      const { certificates } = yield* peer.authority.issueRaw({ path: "/b" })
      const other = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 1 })
      assert.strictEqual(yield* answer({ ...peer, certificates, bundle: other.bundle }), "Read")
      assert.strictEqual(yield* answer({ ...peer, certificates, bundles: X509BundleSet.empty }), "Read")
      const foreign = yield* other.issueRaw({ path: "/b" })
      assert.strictEqual(yield* answer({ ...peer, certificates: foreign.certificates }), "Read")
    })
  )

  it.effect("has above it what was on a path, and nothing else that came with it", () =>
    Effect.gen(function* () {
      const authority = yield* shared
      const stranger = yield* DevAuthority.make({ trustDomain: "other.org" })
      const junk = yield* stranger.issueRaw()
      const peer = yield* arrange({ path: "/a" })
      yield* Effect.flatten(verify({ ...peer, certificates: [...peer.certificates, ...junk.certificates] }))
      const { certificates } = yield* authority.issueRaw({ path: "/b" })
      const result = yield* verifyLeaf({ ...peer, certificates })
      assert.deepStrictEqual(
        result && (yield* result).chain.map((der) => Buffer.from(der).toString("hex")),
        certificates.map((der) => Buffer.from(der).toString("hex"))
      )
    })
  )
})

describe("a chain is read", () => {
  it.effect("of a peer that was refused", () =>
    Effect.gen(function* () {
      const peer = yield* arrange({ validity: { notBefore: 60_000, notAfter: 120_000 } })
      assert.strictEqual(yield* verdict(peer), "NotYetValid not-before")
      yield* TestClock.setTime(60_000)
      assert.strictEqual(yield* answer(peer), "Read")
    })
  )

  it.effect("with a cache size of 0", () =>
    Effect.gen(function* () {
      const peer = yield* arrange({}, 0)
      yield* Effect.flatten(verify(peer))
      assert.strictEqual(yield* answer(peer), "Read")
      const { certificates } = yield* peer.authority.issueRaw()
      assert.strictEqual(yield* answer({ ...peer, certificates }), "Read")
    })
  )

  it.effect(
    "without a signature check of the leaf that was not seen for longest, once there are more than the cache holds",
    () =>
      Effect.gen(function* () {
        const peer = yield* arrange({}, 2)
        const others = yield* Effect.replicateEffect(peer.authority.issueRaw(), 2)
        yield* Effect.flatten(verify(peer))
        for (const { certificates } of others) yield* Effect.flatten(verify({ ...peer, certificates }))
        const checksOf = (certificates: Peer["certificates"]) =>
          Effect.gen(function* () {
            const { checks } = peer.counted
            assert.strictEqual(yield* answer({ ...peer, certificates }), "Accepted")
            return peer.counted.checks - checks
          })
        for (const { certificates } of others) assert.strictEqual(yield* checksOf(certificates), 0)
        assert.isAbove(yield* checksOf(peer.certificates), 0)
      })
  )
})

describe("a chain that is read", () => {
  it.effect("has the verdict that it has when it is given at once", () =>
    Effect.gen(function* () {
      const { bundle, certificates } = yield* arrange()
      const input = inputOf({ bundle, certificates }, 0)
      const [leaf, ...above] = certificates
      for (const chain of [certificates, [leaf], [leaf, leaf, ...above]]) {
        const lazy = { leaf, certificates: () => chain }
        assert.deepStrictEqual(
          PeerVerifier.make().verify({ ...input, chain: lazy }),
          PeerVerifier.make().verify({ ...input, chain })
        )
      }
      assert.strictEqual(
        describeResult(PeerVerifier.make().verify({ ...input, chain: { leaf, certificates: () => [] } })),
        "NoCertificate certificate-present"
      )
    })
  )

  it.effect("of another leaf, or that cannot be read, is refused", () =>
    Effect.gen(function* () {
      const { authority, bundle, certificates } = yield* arrange()
      const other = yield* authority.issueRaw()
      const [leaf] = other.certificates
      const verdictOf = (read: () => ReadonlyArray<Uint8Array>) =>
        describeResult(
          PeerVerifier.make().verify({ ...inputOf({ bundle, certificates }, 0), chain: { leaf, certificates: read } })
        )
      assert.strictEqual(
        verdictOf(() => certificates),
        "VerifierFault"
      )
      assert.strictEqual(
        verdictOf(() => {
          throw new Error("as the test has it")
        }),
        "VerifierFault"
      )
      assert.strictEqual(
        verdictOf(() => other.certificates),
        "Accepted"
      )
    })
  )
})
