import { Buffer } from "node:buffer"
import { PeerVerifier, X509Bundle } from "@agentweave/spiffe"
import type * as CertificateProfile from "@agentweave/testkit/CertificateProfile"
import type * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as KeyPair from "@agentweave/testkit/KeyPair"
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { encode, parse, replace, sequence, tlv } from "./support/der.js"
import { describeResult, inputOf, itAtEpoch, makeShared, verdict, verify } from "./support/gate.js"
import * as openssl from "./support/openssl.js"

const shared = makeShared()
const sharedRsa = makeShared({ keyAlgorithm: "RSA-2048" })
const sharedEd25519 = makeShared({ keyAlgorithm: "Ed25519" })

/** A leaf for spiffe://example.org/workload with this about it, judged under its own authority. */
const leafVerdict = (
  profile: CertificateProfile.CertificateProfile,
  purpose: PeerVerifier.Purpose = "ServerAuth",
  of: typeof shared = shared
) =>
  Effect.gen(function* () {
    const authority = yield* of
    const { certificates } = yield* authority.issueRaw(profile)
    return yield* verdict({ certificates, bundle: authority.bundle, purpose })
  })

/** A key pair whose certificate states another public key, in any encoding. */
const stating = (publicKey: Uint8Array) =>
  Effect.map(KeyPair.make("P-256"), (pair) => ({ ...pair, publicKey: Uint8Array.from(publicKey) }))

const rsaSpki = (modulus: Buffer, exponent: Buffer) =>
  sequence(
    Buffer.from("300d06092a864886f70d0101010500", "hex"),
    tlv(0x03, Buffer.of(0), sequence(tlv(0x02, modulus), tlv(0x02, exponent)))
  )

/** A positive odd number of so many bits; nothing here needs it to be a product of two primes. */
const modulus = (bits: number) => {
  const bytes = Buffer.alloc(Math.ceil(bits / 8), 0xa5)
  bytes.writeUInt8(bits % 8 === 0 ? 0x80 : 1 << ((bits % 8) - 1), 0)
  bytes.writeUInt8(0x0b, bytes.length - 1)
  return (bytes[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.of(0), bytes]) : bytes
}

const e65537 = Buffer.from("010001", "hex")

describe("the leaf's profile", () => {
  const rows: ReadonlyArray<readonly [string, CertificateProfile.CertificateProfile, string]> = [
    ["proper", {}, "Accepted"],
    ["128 names", { dnsNames: Array.from({ length: 127 }, (_, i) => `n${i}.test`) }, "Accepted"],
    ["129 names", { dnsNames: Array.from({ length: 128 }, (_, i) => `n${i}.test`) }, "LimitExceeded leaf-names-limit"],
    ["CA=true", { basicConstraints: { ca: true } }, "InvalidLeaf leaf-not-ca"],
    ["a path length", { basicConstraints: { ca: false, pathLength: 0 } }, "InvalidLeaf leaf-no-path-length"],
    ["no key usage", { keyUsage: "Absent" }, "InvalidLeaf leaf-key-usage"],
    ["no digitalSignature", { keyUsage: ["keyEncipherment"] }, "InvalidLeaf leaf-digital-signature"],
    ["keyCertSign", { keyUsage: ["digitalSignature", "keyCertSign"] }, "InvalidLeaf leaf-no-cert-sign"],
    ["cRLSign", { keyUsage: ["digitalSignature", "cRLSign"] }, "InvalidLeaf leaf-no-crl-sign"],
    ["anyExtendedKeyUsage alone", { extendedKeyUsage: ["2.5.29.37.0"] }, "InvalidLeaf leaf-extended-key-usage"],
    ["a P-256 signature over SHA-1", { signatureHash: "SHA-1" }, "InvalidLeaf leaf-signature-algorithm"],
    ["no URI", { uris: [], dnsNames: ["a.test"] }, "InvalidSpiffeId leaf-one-uri"],
    ["the same URI twice", { uris: Array(2).fill("spiffe://example.org/x") }, "InvalidSpiffeId leaf-one-uri"],
    ["an https URI", { uris: ["https://example.org/x"] }, "InvalidSpiffeId leaf-spiffe-id"],
    [
      "an unknown critical extension",
      { extensions: [{ oid: "1.2.3.4", critical: true, value: Uint8Array.of(5, 0) }] },
      "InvalidLeaf leaf-critical-extensions"
    ],
    [
      "a critical policy constraints extension, which is not processed",
      { extensions: [{ oid: "2.5.29.36", critical: true, value: Uint8Array.of(0x30, 0x03, 0x80, 0x01, 0x00) }] },
      "InvalidLeaf leaf-critical-extensions"
    ],
    [
      "key usage twice",
      { extensions: [{ oid: "2.5.29.15", critical: true, value: Uint8Array.of(3, 2, 7, 0x80) }] },
      "InvalidLeaf leaf-readable"
    ]
  ]
  for (const [name, profile, expected] of rows) {
    itAtEpoch(`${name}: ${expected}`, () =>
      Effect.map(leafVerdict(profile), (answer) => assert.strictEqual(answer, expected))
    )
  }

  itAtEpoch("an extended key usage must hold the purpose it is judged for, and need not hold the other", () =>
    Effect.gen(function* () {
      const refused = "InvalidLeaf leaf-extended-key-usage"
      assert.strictEqual(yield* leafVerdict({ extendedKeyUsage: ["serverAuth"] }, "ServerAuth"), "Accepted")
      assert.strictEqual(yield* leafVerdict({ extendedKeyUsage: ["serverAuth"] }, "ClientAuth"), refused)
      assert.strictEqual(yield* leafVerdict({ extendedKeyUsage: ["clientAuth"] }, "ClientAuth"), "Accepted")
      assert.strictEqual(yield* leafVerdict({ extendedKeyUsage: ["clientAuth"] }, "ServerAuth"), refused)
      assert.strictEqual(yield* leafVerdict({ extendedKeyUsage: "Absent" }, "ClientAuth"), "Accepted")
    })
  )

  itAtEpoch("a refusal tells the ID the leaf claims once it can be read, and null otherwise", () =>
    Effect.gen(function* () {
      const authority = yield* shared
      const claim = Effect.fnUntraced(function* (profile: DevAuthority.IssueOptions) {
        const { certificates } = yield* authority.issueRaw(profile)
        const error = yield* Effect.flip(Effect.flatten(verify({ certificates, bundle: authority.bundle })))
        return error.actualId
      })
      assert.strictEqual(yield* claim({ keyUsage: "Absent" }), "spiffe://example.org/workload")
      assert.isNull(yield* claim({ uris: ["spiffe://example.org/workload/"] }))
      assert.isNull(yield* claim({ uris: ["spiffe://example.org/a", "spiffe://example.org/b"] }))
    })
  )
})

describe("the leaf's key and signature", () => {
  itAtEpoch("RSA of 2048 to 8192 bits with an odd exponent of at most 31 bits", () =>
    Effect.gen(function* () {
      const judge = (bits: number, exponent = e65537) =>
        Effect.flatMap(stating(rsaSpki(modulus(bits), exponent)), (keyPair) => leafVerdict({ keyPair }))
      assert.strictEqual(yield* judge(2048), "Accepted")
      assert.strictEqual(yield* judge(8192), "Accepted")
      assert.strictEqual(yield* judge(2047), "InvalidLeaf leaf-key")
      assert.strictEqual(yield* judge(8193), "InvalidLeaf leaf-key")
      assert.strictEqual(yield* judge(2048, Buffer.of(3)), "Accepted")
      assert.strictEqual(yield* judge(2048, Buffer.of(1)), "InvalidLeaf leaf-key")
      assert.strictEqual(yield* judge(2048, Buffer.of(4)), "InvalidLeaf leaf-key")
      assert.strictEqual(yield* judge(2048, Buffer.from("7fffffff", "hex")), "Accepted")
      assert.strictEqual(yield* judge(2048, Buffer.from("0080000001", "hex")), "InvalidLeaf leaf-key")
      const proper = rsaSpki(modulus(2048), e65537)
      const trailing = [
        replace(proper, [1], (bits) => tlv(0x03, bits.subarray(4), Buffer.of(5, 0))),
        replace(proper, [1], (bits) => {
          const key = parse(bits.subarray(5))
          return tlv(0x03, Buffer.of(0), sequence(...(key.children ?? []).map(encode), Buffer.of(5, 0)))
        })
      ]
      for (const publicKey of trailing) {
        const keyPair = yield* stating(publicKey)
        assert.strictEqual(yield* leafVerdict({ keyPair }), "InvalidLeaf leaf-readable")
      }
      const even = modulus(2048)
      even.writeUInt8(0x0a, even.length - 1)
      const keyPair = yield* stating(rsaSpki(even, e65537))
      assert.strictEqual(yield* leafVerdict({ keyPair }), "InvalidLeaf leaf-key")
    })
  )

  itAtEpoch(
    "an EC point must be uncompressed, an Ed25519 key of 32 bytes, and other curves and kinds are refused",
    () =>
      Effect.gen(function* () {
        const judge = (publicKey: Uint8Array) =>
          Effect.flatMap(stating(publicKey), (keyPair) => leafVerdict({ keyPair }))
        const p256 = (yield* KeyPair.make("P-256")).publicKey
        const compressed = replace(p256, [1], (bits) =>
          tlv(0x03, Buffer.of(0, 0x02 | ((bits.at(-1) ?? 0) & 1)), bits.subarray(4, 36))
        )
        assert.strictEqual(yield* judge(p256), "Accepted")
        assert.strictEqual(yield* judge(compressed), "InvalidLeaf leaf-key")
        const hybrid = replace(p256, [1], (bits) => tlv(0x03, Buffer.of(0, 0x06), bits.subarray(4)))
        assert.strictEqual(yield* judge(hybrid), "InvalidLeaf leaf-key")
        const shortened = replace(p256, [1], (bits) => tlv(0x03, bits.subarray(2, -1)))
        assert.strictEqual(yield* judge(shortened), "InvalidLeaf leaf-key")
        const ed25519 = (yield* KeyPair.make("Ed25519")).publicKey
        assert.strictEqual(yield* judge(ed25519), "Accepted")
        const short = replace(ed25519, [1], (bits) => tlv(0x03, bits.subarray(2, -1)))
        assert.strictEqual(yield* judge(short), "InvalidLeaf leaf-key")
        assert.strictEqual(yield* leafVerdict({ keyAlgorithm: "secp256k1" }), "InvalidLeaf leaf-key")
        assert.strictEqual(yield* leafVerdict({ keyAlgorithm: "Ed448" }), "InvalidLeaf leaf-key")
      })
  )

  itAtEpoch("every scheme of SHA-256 or better is verified: PKCS#1, PSS, ECDSA, Ed25519", () =>
    Effect.gen(function* () {
      const keyAlgorithm = "P-256"
      for (const signatureHash of ["SHA-256", "SHA-384", "SHA-512"] as const) {
        for (const signaturePadding of ["PKCS1", "PSS"] as const) {
          const profile = { keyAlgorithm, signatureHash, signaturePadding } as const
          const forged = { ...profile, signature: "Altered" } as const
          assert.strictEqual(yield* leafVerdict(profile, "ServerAuth", sharedRsa), "Accepted")
          assert.strictEqual(yield* leafVerdict(forged, "ServerAuth", sharedRsa), "UntrustedChain trusted-path")
        }
        assert.strictEqual(yield* leafVerdict({ keyAlgorithm, signatureHash }), "Accepted")
      }
      assert.strictEqual(yield* leafVerdict({}, "ServerAuth", sharedEd25519), "Accepted")
      const altered = { signature: "Altered" } as const
      assert.strictEqual(yield* leafVerdict(altered, "ServerAuth", sharedEd25519), "UntrustedChain trusted-path")
    })
  )

  for (const [digest, pem] of Object.entries(openssl.leaves)) {
    itAtEpoch(`PSS with ${digest} as OpenSSL writes it`, () =>
      Effect.gen(function* () {
        const { trustDomain } = yield* shared
        const bundle = yield* X509Bundle.fromPem(trustDomain, openssl.authority)
        const { authorities: certificates } = yield* X509Bundle.fromPem(trustDomain, pem)
        const input = inputOf({ certificates, bundle }, Date.UTC(2030, 0))
        assert.strictEqual(describeResult(PeerVerifier.make().verify(input)), "Accepted")
        const tampered = Buffer.from(certificates[0] ?? [])
        tampered.writeUInt8(tampered.readUInt8(20) ^ 1, 20)
        const changed = { ...input, chain: [tampered] }
        assert.strictEqual(describeResult(PeerVerifier.make().verify(changed)), "UntrustedChain trusted-path")
      })
    )
  }

  itAtEpoch("PSS over SHA-1 and PKCS#1 over SHA-1 are refused", () =>
    Effect.gen(function* () {
      for (const signaturePadding of ["PKCS1", "PSS"] as const) {
        const profile = { keyAlgorithm: "P-256", signatureHash: "SHA-1", signaturePadding } as const
        assert.strictEqual(yield* leafVerdict(profile, "ServerAuth", sharedRsa), "InvalidLeaf leaf-signature-algorithm")
      }
    })
  )
})

describe("the limits before anything is read", () => {
  itAtEpoch("no certificate, ten and eleven certificates, 64 KiB and one byte more", () =>
    Effect.gen(function* () {
      const authority = yield* shared
      const { certificates } = yield* authority.issueRaw()
      const [leaf] = certificates
      const root = authority.roots[0].certificate
      const judge = (chain: ReadonlyArray<Uint8Array>) => verdict({ certificates: chain, bundle: authority.bundle })
      const rest = 64 * 1024 - leaf.length
      assert.strictEqual(yield* judge([]), "NoCertificate certificate-present")
      assert.strictEqual(yield* judge([leaf, ...Array<Uint8Array>(9).fill(root)]), "Accepted")
      assert.strictEqual(yield* judge([leaf, ...Array<Uint8Array>(10).fill(root)]), "LimitExceeded certificates-limit")
      assert.strictEqual(yield* judge([leaf, new Uint8Array(rest)]), "Accepted")
      assert.strictEqual(yield* judge([leaf, new Uint8Array(rest + 1)]), "LimitExceeded bytes-limit")
    })
  )
})

describe("a fault inside", () => {
  itAtEpoch("is a refusal with reason VerifierFault, never a throw", () =>
    Effect.gen(function* () {
      const authority = yield* shared
      const { certificates } = yield* authority.issueRaw()
      const proper = { certificates, bundle: authority.bundle }
      assert.strictEqual(yield* verdict(proper), "Accepted")
      const unreadable = { ...authority.bundle, authorities: [Uint8Array.of(0x30, 0x00)] }
      assert.strictEqual(yield* verdict({ certificates, bundle: unreadable }), "VerifierFault")
      const matcher = { _tag: "OneOf", ids: null } as never
      assert.strictEqual(yield* verdict({ ...proper, matcher }), "VerifierFault")
      assert.strictEqual(yield* verdict({ ...proper, matcher: { _tag: "Any" } as never }), "UnexpectedPeer matcher")
      const broken: ReadonlyArray<unknown> = [undefined, null, {}, { chain: null, now: 0 }, { chain: [null], now: 0 }]
      for (const input of broken) {
        const result = PeerVerifier.make().verify(input as PeerVerifier.VerifyInput)
        const error = yield* Effect.flip(Effect.suspend(() => result))
        assert.strictEqual(error.reason, "VerifierFault")
        assert.isNull(error.actualId)
        assert.isFalse(error.isRetryable)
      }
    })
  )

  itAtEpoch("a time that is no number is one", () =>
    Effect.gen(function* () {
      const authority = yield* shared
      const { certificates } = yield* authority.issueRaw()
      for (const now of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
        const input = inputOf({ certificates, bundle: authority.bundle }, now)
        assert.strictEqual(describeResult(PeerVerifier.make().verify(input)), "VerifierFault")
      }
    })
  )
})
