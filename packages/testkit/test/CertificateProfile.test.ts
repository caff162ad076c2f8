import { X509Certificate } from "node:crypto"
import * as CertificateAuthority from "@agentweave/testkit/CertificateAuthority"
import type * as CertificateProfile from "@agentweave/testkit/CertificateProfile"
import { describe, expect, it } from "@effect/vitest"
import { Effect, TestClock } from "effect"
import { loadX509 } from "../src/internal/mint/x509.js"

const x509 = loadX509()

const oids = {
  basicConstraints: "2.5.29.19",
  keyUsage: "2.5.29.15",
  extendedKeyUsage: "2.5.29.37",
  subjectAltName: "2.5.29.17",
  nameConstraints: "2.5.29.30",
  subjectKeyIdentifier: "2.5.29.14",
  authorityKeyIdentifier: "2.5.29.35"
}

const sharedRoot = Effect.runSync(Effect.cached(CertificateAuthority.makeRoot({ trustDomain: "example.org" })))

const issue = Effect.fnUntraced(function* (
  profile: CertificateProfile.CertificateProfile,
  issuer?: CertificateAuthority.CertificateAuthority
) {
  const ca = issuer ?? (yield* sharedRoot)
  const credentials = yield* CertificateAuthority.issue(ca, profile)
  const [der] = credentials.certificates
  const parsed = new x509.X509Certificate(Uint8Array.from(der))
  const node = new X509Certificate(der)
  const extension = (oid: string) => {
    const found = parsed.extensions.find(({ type }) => type === oid)
    return found === undefined ? undefined : { critical: found.critical, hex: Buffer.from(found.value).toString("hex") }
  }
  return {
    ca,
    credentials,
    der,
    parsed,
    node,
    extension,
    signedByCa: node.verify(new X509Certificate(ca.certificate).publicKey)
  }
})

const hex = (text: string) => Buffer.from(text, "latin1").toString("hex")

describe("CertificateProfile: what it says is in the certificate", () => {
  it.effect("a leaf's extensions by default, and their criticality", () =>
    Effect.gen(function* () {
      const { credentials, ca, extension, parsed } = yield* issue({})
      expect(parsed.extensions.length).toBe(6)
      expect(extension(oids.basicConstraints)).toEqual({ critical: true, hex: "3000" })
      expect(extension(oids.keyUsage)).toEqual({ critical: true, hex: "03020780" })
      expect(extension(oids.extendedKeyUsage)).toMatchObject({ critical: false })
      expect(extension(oids.subjectAltName)?.hex).toContain(hex("spiffe://example.org/workload"))
      expect(extension(oids.subjectKeyIdentifier)).toEqual({ critical: false, hex: `0414${credentials.keyIdentifier}` })
      expect(extension(oids.authorityKeyIdentifier)?.hex).toBe(`30168014${ca.keyIdentifier}`)
    })
  )

  it.effect("basic constraints: CA, path length (also zero), absent", () =>
    Effect.gen(function* () {
      const value = (profile: CertificateProfile.CertificateProfile) =>
        Effect.map(issue(profile), ({ extension }) => extension(oids.basicConstraints)?.hex)
      expect(yield* value({ basicConstraints: { ca: true } })).toBe("30030101ff")
      expect(yield* value({ basicConstraints: { ca: true, pathLength: 0 } })).toBe("30060101ff020100")
      expect(yield* value({ basicConstraints: { ca: true, pathLength: 3 } })).toBe("30060101ff020103")
      expect(yield* value({ basicConstraints: { ca: false, pathLength: 3 } })).toBe("3003020103")
      expect(yield* value({ basicConstraints: "Absent" })).toBeUndefined()
    })
  )

  it.effect("key usages: every bit, none, absent", () =>
    Effect.gen(function* () {
      const value = (profile: CertificateProfile.CertificateProfile) =>
        Effect.map(issue(profile), ({ extension }) => extension(oids.keyUsage)?.hex)
      expect(yield* value({ keyUsage: ["keyCertSign"] })).toBe("03020204")
      expect(yield* value({ keyUsage: ["cRLSign"] })).toBe("03020102")
      expect(yield* value({ keyUsage: ["digitalSignature", "keyCertSign", "cRLSign"] })).toBe("03020186")
      expect(yield* value({ keyUsage: ["nonRepudiation", "keyEncipherment"] })).toBe("03020560")
      expect(yield* value({ keyUsage: "Absent" })).toBeUndefined()
    })
  )

  it.effect("extended key usages: one, any OID, absent", () =>
    Effect.gen(function* () {
      const value = (profile: CertificateProfile.CertificateProfile) =>
        Effect.map(issue(profile), ({ node }) => node.keyUsage)
      expect(yield* value({ extendedKeyUsage: ["serverAuth"] })).toEqual(["1.3.6.1.5.5.7.3.1"])
      expect(yield* value({ extendedKeyUsage: ["clientAuth"] })).toEqual(["1.3.6.1.5.5.7.3.2"])
      expect(yield* value({ extendedKeyUsage: ["1.3.6.1.5.5.7.3.3"] })).toEqual(["1.3.6.1.5.5.7.3.3"])
      expect((yield* issue({ extendedKeyUsage: "Absent" })).extension(oids.extendedKeyUsage)).toBeUndefined()
    })
  )

  it.effect("names, byte for byte: any URI, several, none, other forms, 70 of them", () =>
    Effect.gen(function* () {
      const value = (profile: CertificateProfile.CertificateProfile) =>
        Effect.map(issue(profile), ({ extension }) => extension(oids.subjectAltName)?.hex)
      for (const uri of ["spiffe://A.org:1/%78/..//x?y#z", "https://example.org/", "", "spiffe://x/\u0000"]) {
        const name = `86${uri.length.toString(16).padStart(2, "0")}${hex(uri)}`
        const length = (name.length / 2).toString(16).padStart(2, "0")
        expect(yield* value({ uris: [uri] })).toBe(`30${length}${name}`)
      }
      expect(yield* value({ uris: [Uint8Array.of(0xff, 0x00)] })).toBe("30048602ff00")
      expect(yield* value({ uris: ["a", "b"] })).toBe("3006860161860162")
      expect(yield* value({ uris: [] })).toBeUndefined()
      expect(yield* value({ uris: [], emails: ["e"], dnsNames: ["d"], ipAddresses: ["127.0.0.1"] })).toBe(
        "300c81016582016487047f000001"
      )
      const { node } = yield* issue({ dnsNames: Array.from({ length: 69 }, (_, index) => `n${index}`) })
      expect(node.subjectAltName?.split(", ").length).toBe(70)
    })
  )

  it.effect("name constraints, permitted and excluded", () =>
    Effect.gen(function* () {
      const { extension } = yield* issue({
        nameConstraints: { permitted: { uris: ["a"], emails: ["e"] }, excluded: { dnsNames: ["d"] } }
      })
      expect(extension(oids.nameConstraints)).toEqual({
        critical: true,
        hex: `3013${"a00a"}${"3003810165"}${"3003860161"}${"a105"}${"3003820164"}`
      })
    })
  )

  it.effect("key identifiers: others, absent", () =>
    Effect.gen(function* () {
      const other = yield* issue({ subjectKeyIdentifier: "aabb", authorityKeyIdentifier: "ccdd" })
      expect(other.extension(oids.subjectKeyIdentifier)?.hex).toBe("0402aabb")
      expect(other.extension(oids.authorityKeyIdentifier)?.hex).toBe("30048002ccdd")
      const none = yield* issue({ subjectKeyIdentifier: "Absent", authorityKeyIdentifier: "Absent" })
      expect(none.extension(oids.subjectKeyIdentifier)).toBeUndefined()
      expect(none.extension(oids.authorityKeyIdentifier)).toBeUndefined()
    })
  )

  it.effect("raw extensions, critical or not, also a second one of the same kind", () =>
    Effect.gen(function* () {
      const value = Uint8Array.of(0x05, 0x00)
      const { parsed } = yield* issue({
        extensions: [
          { oid: "1.2.3.4", critical: true, value },
          { oid: "1.2.3.4", critical: false, value }
        ]
      })
      const twice = parsed.extensions.filter(({ type }) => type === "1.2.3.4")
      expect(twice.map(({ critical }) => critical)).toEqual([true, false])
    })
  )

  it.effect("keys: weak and foreign ones, or one that is given", () =>
    Effect.gen(function* () {
      const details = (profile: CertificateProfile.CertificateProfile) =>
        Effect.map(issue(profile), ({ node }) => node.publicKey)
      expect((yield* details({ keyAlgorithm: "RSA-1024" })).asymmetricKeyDetails?.modulusLength).toBe(1024)
      expect((yield* details({ keyAlgorithm: "secp256k1" })).asymmetricKeyDetails?.namedCurve).toBe("secp256k1")
      expect((yield* details({ keyAlgorithm: "Ed448" })).asymmetricKeyType).toBe("ed448")
      const first = yield* issue({})
      const again = yield* issue({ keyPair: first.credentials.keyPair })
      expect(again.node.publicKey.equals(first.node.publicKey)).toBe(true)
    })
  )

  it.effect("signatures: digest and padding as asked for", () =>
    Effect.gen(function* () {
      // OIDs in DER of ecdsa-with-SHA1, sha1WithRSAEncryption and id-RSASSA-PSS.
      const ecdsaSha1 = yield* issue({ signatureHash: "SHA-1" })
      expect(Buffer.from(ecdsaSha1.der).includes(Buffer.from("06072a8648ce3d0401", "hex"))).toBe(true)
      const rsa = yield* CertificateAuthority.makeRoot({ trustDomain: "example.org", keyAlgorithm: "RSA-2048" })
      const { keyPair } = yield* CertificateAuthority.issue(yield* sharedRoot)
      const rsaSha1 = yield* issue({ signatureHash: "SHA-1", keyPair }, rsa)
      expect(Buffer.from(rsaSha1.der).includes(Buffer.from("06092a864886f70d010105", "hex"))).toBe(true)
      const pss = yield* issue({ signaturePadding: "PSS", signatureHash: "SHA-384", keyPair }, rsa)
      expect(Buffer.from(pss.der).includes(Buffer.from("06092a864886f70d01010a", "hex"))).toBe(true)
      expect([ecdsaSha1.signedByCa, rsaSha1.signedByCa, pss.signedByCa]).toEqual([true, true, true])
    })
  )

  it.effect("signatures that do not hold: another key, or altered afterwards", () =>
    Effect.gen(function* () {
      const proper = yield* issue({})
      const wrong = yield* issue({ signature: "WrongKey" })
      const altered = yield* issue({ signature: "Altered", serialNumber: "4001" })
      expect([proper.signedByCa, wrong.signedByCa, altered.signedByCa]).toEqual([true, false, false])
      expect(altered.node.serialNumber).toBe("4000")
      for (const { ca, node } of [wrong, altered]) {
        expect(node.checkIssued(new X509Certificate(ca.certificate))).toBe(true)
      }
    })
  )

  it.effect("validity: current, expired, in the future", () =>
    Effect.gen(function* () {
      const now = Date.UTC(2030, 0, 1)
      yield* TestClock.setTime(now)
      const hour = 3_600_000
      const window = (validity: CertificateProfile.Validity) =>
        Effect.map(issue({ validity }), ({ node }) => [
          Date.parse(node.validFrom) - now,
          Date.parse(node.validTo) - now
        ])
      expect(yield* window("Current")).toEqual([-60_000, hour])
      expect(yield* window("Expired")).toEqual([-2 * hour, -hour])
      expect(yield* window("Future")).toEqual([hour, 2 * hour])
    })
  )

  it.effect("names and serial numbers", () =>
    Effect.gen(function* () {
      const { node } = yield* issue({ subject: "CN=web,OU=blue", serialNumber: "7f01" })
      expect(node.subject).toBe("CN=web\nOU=blue")
      expect(node.serialNumber).toBe("7F01")
      const many = yield* Effect.forEach(Array.from({ length: 20 }), () => issue({}))
      expect(new Set(many.map(({ node }) => node.serialNumber)).size).toBe(20)
      for (const { node } of many) expect(node.serialNumber).toMatch(/^[4-7][0-9A-F]{31}$/)
    })
  )
})
