import { Buffer } from "node:buffer"
import { sign } from "node:crypto"
import { PeerVerifier, TrustDomain, X509Bundle } from "@agentweave/spiffe"
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
import { encode, hex, parse, replace, sequence, tlv } from "./support/der.js"
import { epochClock, inputOf, itAtEpoch, makeShared, verdict } from "./support/gate.js"

type Authority = CertificateAuthority.CertificateAuthority

const shared = makeShared()

const bundleOf = (...authorities: ReadonlyArray<Uint8Array>) =>
  Effect.flatMap(shared, ({ trustDomain }) => X509Bundle.fromDer(trustDomain, authorities))

/** What the gate says of a leaf below `issuer`, trusting `anchors`. */
const under = (
  issuer: Authority,
  anchors: ReadonlyArray<Uint8Array>,
  leaf: CertificateProfile.CertificateProfile = {},
  chain: ReadonlyArray<Uint8Array> = issuer.chain
) =>
  Effect.gen(function* () {
    const { certificates } = yield* CertificateAuthority.issue(CertificateAuthority.withChain(issuer, chain), leaf)
    return yield* verdict({ certificates, bundle: yield* bundleOf(...anchors) })
  })

const makeRoot = (profile: CertificateProfile.CertificateProfile = {}) =>
  CertificateAuthority.makeRoot({ trustDomain: "example.org", ...profile })

/** A leaf below an intermediate with this about it, below a proper root. */
const belowIntermediate = (
  profile: CertificateProfile.CertificateProfile,
  leaf: CertificateProfile.CertificateProfile = {}
) =>
  Effect.gen(function* () {
    const root = (yield* shared).roots[0]
    const issuer = yield* CertificateAuthority.makeIntermediate(root, profile)
    return yield* under(issuer, [root.certificate], leaf)
  })

const belowRoot = (profile: CertificateProfile.CertificateProfile, leaf: CertificateProfile.CertificateProfile = {}) =>
  Effect.flatMap(makeRoot(profile), (root) => under(root, [root.certificate], leaf))

/** Certificates that carry a CA's name and key on, below one another. */
const descend = (from: Authority, depth: number) =>
  Effect.iterate(
    { issuer: from, left: depth },
    {
      while: ({ left }) => left > 0,
      body: ({ issuer, left }) =>
        Effect.map(CertificateAuthority.makeIntermediate(issuer), (next) => ({ issuer: next, left: left - 1 }))
    }
  )

/** The same certificate with another version: nobody signed that, and nobody needs to. */
const version1 = (certificate: Uint8Array): Uint8Array => {
  const der = Buffer.from(certificate)
  der.writeUInt8(0, der.indexOf(Buffer.from("a003020102", "hex")) + 4)
  return der
}

describe("every CA of a path", () => {
  const unknownCritical = [{ oid: "1.2.3.4", critical: true, value: Uint8Array.of(5, 0) }]
  const rows: ReadonlyArray<readonly [string, CertificateProfile.CertificateProfile, string]> = [
    ["CA=false with keyCertSign", { basicConstraints: { ca: false } }, "InvalidChain ca-basic-constraints"],
    ["no basic constraints", { basicConstraints: "Absent" }, "InvalidChain ca-basic-constraints"],
    ["no keyCertSign", { keyUsage: ["cRLSign", "digitalSignature"] }, "InvalidChain ca-key-usage"],
    ["no key usage", { keyUsage: "Absent" }, "Accepted"],
    ["an unknown critical extension", { extensions: unknownCritical }, "InvalidChain ca-critical-extensions"],
    ["an RSA-1024 key", { keyAlgorithm: "RSA-1024" }, "InvalidChain ca-key"],
    [
      "an extended key usage without ours",
      { extendedKeyUsage: ["clientAuth", "1.3.6.1.5.5.7.3.17"] },
      "InvalidChain ca-extended-key-usage"
    ],
    ["an extended key usage for anything", { extendedKeyUsage: ["2.5.29.37.0"] }, "InvalidChain ca-extended-key-usage"],
    ["an extended key usage with ours", { extendedKeyUsage: ["clientAuth", "serverAuth"] }, "Accepted"],
    [
      "constraints that do not permit the leaf",
      { nameConstraints: { permitted: { uris: ["other.test"] } } },
      "InvalidChain ca-name-constraints"
    ],
    [
      "constraints that exclude the leaf",
      { nameConstraints: { excluded: { uris: ["example.org"] } } },
      "InvalidChain ca-name-constraints"
    ],
    ["constraints that permit the leaf", { nameConstraints: { permitted: { uris: ["example.org"] } } }, "Accepted"],
    ["expired", { validity: "Expired" }, "Expired not-after"],
    ["not valid yet", { validity: "Future" }, "NotYetValid not-before"],
    ["path length 0", { basicConstraints: { ca: true, pathLength: 0 } }, "Accepted"]
  ]
  for (const [name, profile, expected] of rows) {
    itAtEpoch(`intermediate, ${name}: ${expected}`, () =>
      Effect.gen(function* () {
        const answer = yield* belowIntermediate(profile, { keyAlgorithm: "P-256" })
        assert.strictEqual(answer, expected)
      })
    )
    itAtEpoch(`root, ${name}: ${expected}`, () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* belowRoot(profile, { keyAlgorithm: "P-256" }), expected)
      })
    )
  }
})

describe("a signature over SHA-1", () => {
  itAtEpoch("on an intermediate refuses the chain", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* belowIntermediate({ signatureHash: "SHA-1" }), "InvalidChain ca-signature-algorithm")
    })
  )

  itAtEpoch("on an anchor is asked of nobody: it is trusted for being in the bundle", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* belowRoot({ signatureHash: "SHA-1" }), "Accepted")
      const root = yield* makeRoot({ signatureHash: "SHA-1" })
      const { issuer } = yield* descend(root, 2)
      assert.strictEqual(yield* under(issuer, [root.certificate]), "Accepted")
      const whole = [...issuer.chain, root.certificate]
      assert.strictEqual(yield* under(issuer, [root.certificate], {}, whole), "Accepted")
    })
  )

  itAtEpoch("on a root that the peer sent makes no anchor of it", () =>
    Effect.gen(function* () {
      const root = yield* makeRoot({ signatureHash: "SHA-1" })
      const trusted = yield* makeRoot()
      const answer = yield* under(root, [trusted.certificate], {}, [root.certificate])
      assert.strictEqual(answer, "InvalidChain ca-signature-algorithm")
    })
  )
})

describe("an intermediate's SPIFFE ID", () => {
  const rows: ReadonlyArray<readonly [string, ReadonlyArray<string>, boolean]> = [
    ["its own trust domain's", ["spiffe://example.org"], true],
    ["none", [], true],
    ["a URI of another scheme", ["https://ca.test/example.org"], true],
    ["another domain's", ["spiffe://other.test"], false],
    ["one with a path", ["spiffe://example.org/ca"], false],
    ["one with the root path", ["spiffe://example.org/"], false],
    ["another domain's, scheme in capitals", ["SPIFFE://other.test"], false],
    ["two", ["spiffe://example.org", "spiffe://other.test"], false],
    ["its own and another URI", ["spiffe://example.org", "https://ca.test/"], false]
  ]
  for (const [name, uris, accepted] of rows) {
    itAtEpoch(`${name}: ${accepted ? "accepted" : "refused"}`, () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* belowIntermediate({ uris }), accepted ? "Accepted" : "InvalidChain ca-spiffe-id")
      })
    )
  }

  itAtEpoch("an anchor's is not judged: the bundle says whose authority it is", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* belowRoot({ uris: ["spiffe://other.test/x"] }), "Accepted")
    })
  )
})

describe("limits of a path", () => {
  itAtEpoch("six certificates above the leaf are read, a seventh is not", () =>
    Effect.gen(function* () {
      const root = yield* makeRoot()
      const six = yield* descend(root, 5)
      assert.strictEqual(yield* under(six.issuer, [root.certificate]), "Accepted")
      const seven = yield* descend(root, 6)
      assert.strictEqual(yield* under(seven.issuer, [root.certificate]), "LimitExceeded depth-limit")
    })
  )

  itAtEpoch("128 names in an intermediate are read, 129 are not", () =>
    Effect.gen(function* () {
      const dnsNames = Array.from({ length: 128 }, (_, i) => `n${i}.test`)
      assert.strictEqual(yield* belowIntermediate({ uris: [], dnsNames }), "Accepted")
      assert.strictEqual(yield* belowIntermediate({ dnsNames }), "LimitExceeded names-limit")
    })
  )

  itAtEpoch(
    "certificates besides that cannot be used are left out, and named where no path is found without them",
    () =>
      Effect.gen(function* () {
        const root = yield* makeRoot()
        const issuer = yield* CertificateAuthority.makeIntermediate(root)
        const crowded = yield* makeRoot({ dnsNames: Array.from({ length: 129 }, (_, i) => `n${i}.test`) })
        const extras: ReadonlyArray<readonly [Uint8Array, string]> = [
          [Uint8Array.of(0x30, 0x03, 0x02, 0x01, 0x00), "InvalidChain ca-readable"],
          [new Uint8Array(0), "InvalidChain ca-readable"],
          [version1(root.certificate), "InvalidChain ca-readable"],
          [crowded.certificate, "LimitExceeded names-limit"]
        ]
        for (const [extra, reason] of extras) {
          for (const certificates of [
            [extra, issuer.certificate],
            [issuer.certificate, extra]
          ]) {
            const peer = CertificateAuthority.withChain(issuer, certificates)
            assert.strictEqual(yield* under(peer, [root.certificate]), "Accepted")
          }
          const alone = CertificateAuthority.withChain(issuer, [extra])
          assert.strictEqual(yield* under(alone, [root.certificate]), reason)
        }
      })
  )

  itAtEpoch("32 signature checks find the last of 32 roots of one name, and not the 33rd", () =>
    Effect.gen(function* () {
      const like = { subject: "CN=same", subjectKeyIdentifier: "Absent", authorityKeyIdentifier: "Absent" } as const
      const root = yield* makeRoot(like)
      const others = yield* Effect.replicateEffect(makeRoot(like), maxSignatureChecks)
      const certificates = others.map((other) => other.certificate)
      const leaf = { authorityKeyIdentifier: "Absent" } as const
      assert.strictEqual(yield* under(root, [...certificates.slice(1), root.certificate], leaf), "Accepted")
      assert.strictEqual(yield* under(root, [...certificates, root.certificate], leaf), "LimitExceeded signature-limit")
    })
  )
})

describe("path length", () => {
  itAtEpoch("counts intermediates, but not those that carry their issuer's own name", () =>
    Effect.gen(function* () {
      const root = yield* makeRoot({ basicConstraints: { ca: true, pathLength: 0 } })
      const named = yield* CertificateAuthority.makeIntermediate(root)
      assert.strictEqual(yield* under(named, [root.certificate]), "InvalidChain ca-path-length")
      const selfIssued = yield* CertificateAuthority.makeIntermediate(root, { subject: root.subject })
      assert.strictEqual(yield* under(selfIssued, [root.certificate]), "Accepted")
    })
  )

  itAtEpoch("of an intermediate bounds those below it", () =>
    Effect.gen(function* () {
      const root = yield* makeRoot()
      const above = yield* CertificateAuthority.makeIntermediate(root, {
        basicConstraints: { ca: true, pathLength: 1 }
      })
      const one = yield* descend(above, 1)
      const two = yield* descend(above, 2)
      assert.strictEqual(yield* under(one.issuer, [root.certificate]), "Accepted")
      assert.strictEqual(yield* under(two.issuer, [root.certificate]), "InvalidChain ca-path-length")
    })
  )
})

describe("name constraints", () => {
  itAtEpoch("of a root hold for all that is below its intermediates", () =>
    Effect.gen(function* () {
      const root = yield* makeRoot({ nameConstraints: { permitted: { dnsNames: ["internal"] } } })
      const { issuer } = yield* descend(root, 2)
      assert.strictEqual(yield* under(issuer, [root.certificate], { dnsNames: ["a.internal"] }), "Accepted")
      assert.strictEqual(
        yield* under(issuer, [root.certificate], { dnsNames: ["a.evil.test"] }),
        "InvalidChain ca-name-constraints"
      )
    })
  )

  itAtEpoch(
    "hold for the names of an intermediate, unless it carries its issuer's own name, and of a leaf always",
    () =>
      Effect.gen(function* () {
        const root = yield* makeRoot({ nameConstraints: { permitted: { dnsNames: ["internal"] } } })
        const profile = { dnsNames: ["ca.evil.test"] }
        const named = yield* CertificateAuthority.makeIntermediate(root, profile)
        assert.strictEqual(yield* under(named, [root.certificate]), "InvalidChain ca-name-constraints")
        const selfIssued = yield* CertificateAuthority.makeIntermediate(root, { ...profile, subject: root.subject })
        assert.strictEqual(yield* under(selfIssued, [root.certificate]), "Accepted")
        const leaf = { dnsNames: ["leaf.evil.test"], subject: root.subject }
        assert.strictEqual(yield* under(root, [root.certificate], leaf), "InvalidChain ca-name-constraints")
      })
  )

  const constrained: ReadonlyArray<
    readonly [
      string,
      CertificateProfile.GeneralSubtrees,
      CertificateProfile.CertificateProfile,
      CertificateProfile.CertificateProfile
    ]
  > = [
    ["IP ranges", { ipRanges: ["10.1.0.0/16"] }, { ipAddresses: ["10.1.2.3"] }, { ipAddresses: ["10.2.2.3"] }],
    ["email addresses", { emails: ["internal"] }, { emails: ["ops@internal"] }, { emails: ["ops@evil.test"] }],
    [
      "directory names",
      { directoryNames: ["C=AT,O=Bank"] },
      { subject: "C=AT,O=bank,CN=api" },
      { subject: "C=AT,O=Other,CN=api" }
    ],
    [
      "an email address in the subject",
      { emails: ["internal"] },
      { subject: "E=ops@internal,CN=api" },
      { subject: "E=ops@evil.test,CN=api" }
    ]
  ]
  for (const [name, subtrees, inside, outside] of constrained) {
    itAtEpoch(`on ${name} are judged: within what is permitted, and out of what is excluded`, () =>
      Effect.gen(function* () {
        const permitting = { nameConstraints: { permitted: subtrees }, subject: "C=AT,O=Bank,CN=ca" }
        const excluding = { nameConstraints: { excluded: subtrees } }
        const refused = "InvalidChain ca-name-constraints"
        assert.strictEqual(yield* belowRoot(permitting, inside), "Accepted")
        assert.strictEqual(yield* belowRoot(permitting, outside), refused)
        assert.strictEqual(yield* belowIntermediate(permitting, outside), refused)
        assert.strictEqual(yield* belowRoot(excluding, outside), "Accepted")
        assert.strictEqual(yield* belowRoot(excluding, inside), refused)
        assert.strictEqual(yield* belowIntermediate(excluding, inside), refused)
      })
    )
  }

  itAtEpoch("of 7,000 bases against 63 names on 7 paths are refused within 10 milliseconds", () =>
    Effect.gen(function* () {
      const subtree = Array.from({ length: 7000 }, (_, i) => sequence(tlv(0x82, Buffer.from(i.toString(36)))))
      const value = Uint8Array.from(sequence(tlv(0xa1, ...subtree)))
      const root = yield* makeRoot({ extensions: [{ oid: "2.5.29.30", critical: true, value }] })
      const crosses = yield* Effect.replicateEffect(CertificateAuthority.makeIntermediate(root, { subject: "CN=x" }), 7)
      const [first = root] = crosses
      const chain = crosses.map(({ certificate }) => certificate)
      const dnsNames = Array.from({ length: 62 }, (_, i) => `name${i}.test`)
      const issuer = CertificateAuthority.withChain(first, chain)
      const { certificates } = yield* CertificateAuthority.issue(issuer, { dnsNames, keyAlgorithm: "P-256" })
      const { trustDomain } = yield* shared
      const bundle = yield* X509Bundle.fromDer(trustDomain, [root.certificate])
      const peer = { certificates, bundle, verifier: PeerVerifier.make() }
      assert.strictEqual(yield* verdict(peer), "LimitExceeded ca-name-constraints-limit")
      const best = (work: () => unknown): number =>
        Math.min(
          ...Array.from({ length: 5 }, () => {
            const begun = performance.now()
            work()
            return performance.now() - begun
          })
        )
      assert.isBelow(
        best(() => peer.verifier.verify(inputOf(peer, 0))),
        10
      )
      const input = inputOf(peer, 0)
      assert.isBelow(
        best(() => Effect.runSync(Effect.withClock(PeerVerifier.explain(input), epochClock))),
        50
      )
    })
  )

  itAtEpoch("with a minimum or maximum, or empty, are not readable", () =>
    Effect.gen(function* () {
      const base = tlv(0x86, Buffer.from("example.org"))
      const values = [
        sequence(),
        sequence(tlv(0xa0)),
        sequence(tlv(0xa0, sequence(base, tlv(0x80, Buffer.of(0))))),
        sequence(tlv(0xa0, sequence(base, tlv(0x81, Buffer.of(1)))))
      ]
      for (const value of values) {
        const extensions = [{ oid: "2.5.29.30", critical: true, value: Uint8Array.from(value) }]
        assert.strictEqual(yield* belowIntermediate({ extensions }), "InvalidChain ca-readable")
      }
      const value = Uint8Array.from(sequence(tlv(0xa0, sequence(base))))
      assert.strictEqual(
        yield* belowIntermediate({ extensions: [{ oid: "2.5.29.30", critical: true, value }] }),
        "Accepted"
      )
    })
  )
})

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
