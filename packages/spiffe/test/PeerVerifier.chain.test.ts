import { Buffer } from "node:buffer"
import { PeerVerifier, X509Bundle } from "@agentweave/spiffe"
import * as CertificateAuthority from "@agentweave/testkit/CertificateAuthority"
import type * as CertificateProfile from "@agentweave/testkit/CertificateProfile"
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { maxSignatureChecks } from "../src/internal/gate/pathSearch.js"
import { type Authority, belowIntermediate, makeRoot, shared, under } from "./support/authorities.js"
import { sequence, tlv } from "./support/der.js"
import { epochClock, inputOf, itAtEpoch, verdict } from "./support/gate.js"

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
