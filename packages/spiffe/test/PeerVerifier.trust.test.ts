import { Buffer } from "node:buffer"
import { sign } from "node:crypto"
import { TrustDomain } from "@agentweave/spiffe"
import * as CertificateAuthority from "@agentweave/testkit/CertificateAuthority"
import type * as CertificateProfile from "@agentweave/testkit/CertificateProfile"
import * as KeyPair from "@agentweave/testkit/KeyPair"
import { assert, describe } from "@effect/vitest"
import { Clock, Effect, Either, Redacted } from "effect"
import { type Certificate, readCertificate } from "../src/internal/der/certificate.js"
import { type Anchors, makeReader } from "../src/internal/gate/anchors.js"
import { makeNameCheck } from "../src/internal/gate/pathGuards.js"
import { findPath, maxSignatureChecks } from "../src/internal/gate/pathSearch.js"
import { makeCheck } from "../src/internal/gate/signature.js"
import { type Authority, belowIntermediate, bundleOf, makeRoot, shared, under } from "./support/authorities.js"
import { encode, hex, parse, replace, sequence, tlv } from "./support/der.js"
import { itAtEpoch, verdict } from "./support/gate.js"

describe("trust", () => {
  itAtEpoch("an expired or improper chain that is not signed up to an anchor is untrusted, not expired", () =>
    Effect.gen(function* () {
      const root = (yield* shared).roots[0]
      const anchors = [root.certificate]
      const forged = yield* CertificateAuthority.makeImpostor(root)
      const untrusted = "UntrustedChain trusted-path"
      assert.strictEqual(yield* under(forged, anchors, { validity: "Expired" }, [forged.certificate]), untrusted)
      assert.strictEqual(yield* belowIntermediate({ validity: "Expired", signature: "WrongKey" }), untrusted)
      assert.strictEqual(yield* under(root, anchors, { validity: "Expired" }), "Expired not-after")
      assert.strictEqual(yield* under(root, anchors, { validity: "Future" }), "NotYetValid not-before")
    })
  )

  itAtEpoch("a validity includes both its ends", () =>
    Effect.gen(function* () {
      const root = (yield* shared).roots[0]
      const at = (notBefore: number, notAfter: number) =>
        under(root, [root.certificate], { validity: { notBefore, notAfter } })
      assert.strictEqual(yield* at(0, 0), "Accepted")
      assert.strictEqual(yield* at(-2000, -1000), "Expired not-after")
      assert.strictEqual(yield* at(1000, 2000), "NotYetValid not-before")
    })
  )

  itAtEpoch("one good path among bad ones is enough, in any order", () =>
    Effect.gen(function* () {
      const { trustDomain } = yield* shared
      const root = yield* makeRoot()
      const ca = yield* CertificateAuthority.makeRoot({ trustDomain })
      const profiles: ReadonlyArray<CertificateProfile.CertificateProfile> = [
        { validity: "Expired" },
        { signature: "WrongKey" },
        { basicConstraints: { ca: false } },
        { basicConstraints: { ca: true } }
      ]
      const certified = yield* Effect.forEach(profiles, (profile) => CertificateAuthority.crossSign(root, ca, profile))
      const chain = certified.map(({ certificate }) => certificate)
      assert.strictEqual(yield* under(ca, [root.certificate], {}, chain), "Accepted")
      assert.strictEqual(yield* under(ca, [root.certificate], {}, chain.toReversed()), "Accepted")
      assert.strictEqual(yield* under(ca, [root.certificate], {}, chain.slice(0, 3)), "Expired not-after")
      assert.strictEqual(yield* under(ca, [root.certificate], {}, chain.slice(0, 3).toReversed()), "Expired not-after")
      assert.strictEqual(
        yield* under(ca, [root.certificate], {}, chain.slice(1, 3)),
        "InvalidChain ca-basic-constraints"
      )
      assert.strictEqual(yield* under(ca, [root.certificate], {}, chain.slice(1, 2)), "UntrustedChain trusted-path")
    })
  )

  itAtEpoch("key identifiers that differ rule an issuer out, and absent ones do not", () =>
    Effect.gen(function* () {
      const root = yield* makeRoot()
      const other = { authorityKeyIdentifier: "00".repeat(20) } as const
      assert.strictEqual(yield* under(root, [root.certificate], other), "UntrustedChain trusted-path")
      assert.strictEqual(yield* under(root, [root.certificate], { authorityKeyIdentifier: "Absent" }), "Accepted")
      const silent = yield* makeRoot({ subjectKeyIdentifier: "Absent" })
      assert.strictEqual(yield* under(silent, [silent.certificate], other), "Accepted")
    })
  )

  itAtEpoch("the issuer's name must be the one stated, byte for byte", () =>
    Effect.gen(function* () {
      const root = yield* makeRoot({ subject: "CN=Root" })
      const renamed = { ...root, subject: "CN=root" }
      assert.strictEqual(yield* under(root, [root.certificate]), "Accepted")
      assert.strictEqual(yield* under(renamed, [root.certificate]), "UntrustedChain trusted-path")
      const issuer = yield* CertificateAuthority.makeIntermediate(root, { subject: "CN=Issuer" })
      assert.strictEqual(yield* under(issuer, [root.certificate]), "Accepted")
      const other = { ...issuer, subject: "CN=issuer" }
      assert.strictEqual(yield* under(other, [root.certificate]), "UntrustedChain trusted-path")
    })
  )

  itAtEpoch("a signature that says it is of another kind than it is is none", () =>
    Effect.gen(function* () {
      const root = yield* makeRoot({ keyAlgorithm: "RSA-2048" })
      const { certificates } = yield* CertificateAuthority.issue(root, { keyAlgorithm: "P-256" })
      const relabelled = (algorithm: Buffer) => {
        const labelled = replace(
          replace(certificates[0], [1], () => algorithm),
          [0, 2],
          () => algorithm
        )
        const tbs = encode(parse(labelled).children?.[0] ?? { tag: 0 })
        const signature = sign("sha256", tbs, Redacted.value(root.keyPair.privateKey))
        return replace(labelled, [2], () => tlv(0x03, Buffer.of(0), signature))
      }
      const bundle = yield* bundleOf(root.certificate)
      const rsa = relabelled(hex("300d 0609 2a864886f70d01010b 0500"))
      assert.strictEqual(yield* verdict({ certificates: [rsa], bundle }), "Accepted")
      const ecdsa = relabelled(hex("300a 0608 2a8648ce3d040302"))
      assert.strictEqual(yield* verdict({ certificates: [ecdsa], bundle }), "UntrustedChain trusted-path")
    })
  )

  itAtEpoch("a signature of another kind than the issuer's key is none", () =>
    Effect.gen(function* () {
      const root = yield* makeRoot({ keyAlgorithm: "P-256" })
      const rsa = { ...root, keyPair: yield* KeyPair.make("RSA-2048") }
      assert.strictEqual(
        yield* under(rsa, [root.certificate], { keyAlgorithm: "P-256" }),
        "UntrustedChain trusted-path"
      )
    })
  )

  itAtEpoch("a key whose point is not on its curve is none, of an anchor", () =>
    Effect.gen(function* () {
      const pair = yield* KeyPair.make("P-256")
      const publicKey = Uint8Array.from(pair.publicKey)
      publicKey[publicKey.length - 1] = (publicKey.at(-1) ?? 0) ^ 1
      const root = yield* makeRoot({ keyPair: { ...pair, publicKey } })
      const { certificates } = yield* CertificateAuthority.issue(root, { keyAlgorithm: "P-256" })
      const { trustDomain } = yield* shared
      const bundle = { trustDomain, authorities: [root.certificate], generation: "by hand" }
      assert.strictEqual(yield* verdict({ certificates, bundle }), "InvalidChain ca-key")
    })
  )

  itAtEpoch("nor of a leaf, on any curve", () =>
    Effect.gen(function* () {
      const authority = yield* shared
      for (const algorithm of ["P-256", "P-384", "P-521"] as const) {
        const pair = yield* KeyPair.make(algorithm)
        const publicKey = Uint8Array.from(pair.publicKey)
        publicKey[publicKey.length - 1] = (publicKey.at(-1) ?? 0) ^ 1
        const { certificates } = yield* authority.issueRaw({ keyPair: { ...pair, publicKey } })
        assert.strictEqual(yield* verdict({ certificates, bundle: authority.bundle }), "InvalidLeaf leaf-key")
        const proper = yield* authority.issueRaw({ keyPair: pair })
        assert.strictEqual(yield* verdict({ ...proper, bundle: authority.bundle }), "Accepted")
      }
    })
  )

  itAtEpoch("key identifiers that are critical are refused, of a leaf and of a CA", () =>
    Effect.gen(function* () {
      const authority = yield* shared
      const identifier = tlv(0x04, Buffer.alloc(20, 1))
      const extensions = {
        subject: { oid: "2.5.29.14", critical: true, value: Uint8Array.from(identifier) },
        authority: {
          oid: "2.5.29.35",
          critical: true,
          value: Uint8Array.from(sequence(tlv(0x80, Buffer.alloc(20, 1))))
        }
      }
      for (const profile of [
        { subjectKeyIdentifier: "Absent", extensions: [extensions.subject] },
        { authorityKeyIdentifier: "Absent", extensions: [extensions.authority] }
      ] as const) {
        const { certificates } = yield* authority.issueRaw(profile)
        assert.strictEqual(yield* verdict({ certificates, bundle: authority.bundle }), "InvalidLeaf leaf-readable")
        assert.strictEqual(yield* belowIntermediate(profile), "InvalidChain ca-readable")
      }
    })
  )

  itAtEpoch("a bundle filed under another trust domain's name is no bundle", () =>
    Effect.gen(function* () {
      const { bundle, issueRaw, trustDomain } = yield* shared
      const { certificates } = yield* issueRaw()
      const misfiled = { ...bundle, trustDomain: TrustDomain.make("other.test") }
      const bundles = { bundles: new Map([[trustDomain, misfiled]]), generation: "by hand" }
      assert.strictEqual(yield* verdict({ certificates, bundles }), "NoBundle bundle")
      assert.strictEqual(yield* verdict({ certificates, bundle }), "Accepted")
    })
  )
})

describe("the work of a search", () => {
  const read = (der: Uint8Array): Certificate => Either.getOrThrow(readCertificate(der))

  const search = (issuer: Authority, chain: ReadonlyArray<Uint8Array>, anchored: ReadonlyArray<Uint8Array>) =>
    Effect.gen(function* () {
      const { trustDomain } = yield* shared
      const { certificates } = yield* CertificateAuthority.issue(issuer)
      const anchors: Anchors = makeReader()({ trustDomain, authorities: anchored, generation: "" })
      const now = yield* Clock.currentTimeMillis
      return findPath({
        leaf: read(certificates[0]),
        candidates: chain.map(read),
        anchors,
        rules: { trustDomain, purpose: "ServerAuth", now, names: makeNameCheck() },
        isSignedBy: makeCheck()
      })
    })

  itAtEpoch("a loop of CAs costs one signature check a CA", () =>
    Effect.gen(function* () {
      const root = yield* makeRoot()
      for (const size of [2, 3, 5]) {
        const loop = yield* CertificateAuthority.makeLoop({ trustDomain: "example.org", size })
        const found = yield* search(loop, loop.chain, [root.certificate])
        assert.strictEqual(found.signatureChecks, size)
        assert.strictEqual(Either.getOrThrow(Either.flip(found.outcome)).rule, "trusted-path")
      }
    })
  )

  itAtEpoch("a CA under several certificates is one CA: a path does not come back to it", () =>
    Effect.gen(function* () {
      const root = yield* makeRoot()
      const [a, b] = [yield* makeRoot(), yield* makeRoot()]
      const first = yield* CertificateAuthority.crossSign(b, a)
      const second = yield* CertificateAuthority.crossSign(b, a)
      const back = yield* CertificateAuthority.crossSign(a, b)
      const chain = [first, second, back].map(({ certificate }) => certificate)
      // The leaf by either certificate of a, and each of these by b; nothing further.
      const found = yield* search(a, chain, [root.certificate])
      assert.strictEqual(found.signatureChecks, 4)
    })
  )

  itAtEpoch("nine certificates that all certify one another stay within the checks allowed", () =>
    Effect.gen(function* () {
      const root = yield* makeRoot()
      const like = { subject: "CN=same", subjectKeyIdentifier: "Absent", authorityKeyIdentifier: "Absent" } as const
      const cas = yield* Effect.replicateEffect(makeRoot(like), 3)
      const pairs = cas.flatMap((issuer) => cas.map((subject) => [issuer, subject] as const))
      const mesh = yield* Effect.forEach(pairs, ([issuer, subject]) =>
        CertificateAuthority.crossSign(issuer, subject, like)
      )
      const [first] = mesh
      assert.isDefined(first)
      const chain = mesh.map(({ certificate }) => certificate)
      const found = yield* search(first ?? root, chain, [root.certificate])
      assert.isAtMost(found.signatureChecks, maxSignatureChecks)
      assert.isTrue(Either.isLeft(found.outcome))
    })
  )

  itAtEpoch("the key identifier leads to the right one of many roots of one name at once", () =>
    Effect.gen(function* () {
      const roots = yield* Effect.replicateEffect(makeRoot({ subject: "CN=same" }), 5)
      const silent = yield* makeRoot({ subject: "CN=same", subjectKeyIdentifier: "Absent" })
      const certificates = [silent, ...roots].map(({ certificate }) => certificate)
      const found = yield* search(roots[4] ?? silent, [], certificates)
      assert.isTrue(Either.isRight(found.outcome))
      assert.strictEqual(found.signatureChecks, 1)
    })
  )
})
