import { Buffer } from "node:buffer"
import { X509Certificate } from "node:crypto"
import { createRequire } from "node:module"
import * as CertificateAuthority from "@agentweave/testkit/CertificateAuthority"
import type * as CertificateProfile from "@agentweave/testkit/CertificateProfile"
import { assert, describe } from "@effect/vitest"
import { Effect, Either } from "effect"
import { type Certificate, readCertificate } from "../src/internal/der/certificate.js"
import { dotted } from "../src/internal/der/der.js"
import { keyUsageBits } from "../src/internal/der/extensions.js"
import { parse } from "./support/der.js"
import { itAtEpoch, makeShared } from "./support/gate.js"
import { makeRandom, mutate, type Random } from "./support/mutate.js"

/** Only after the testkit has minted something: it sees to what this library needs in order to load. */
const loadX509 = (): typeof import("@peculiar/x509") => createRequire(import.meta.url)("@peculiar/x509")

const shared = makeShared()

const profiles: ReadonlyArray<CertificateProfile.CertificateProfile> = [
  {},
  { dnsNames: ["a.test", "*.b.test"], ipAddresses: ["127.0.0.1"], emails: ["ops@a.test"] },
  { keyAlgorithm: "RSA-2048", keyUsage: ["digitalSignature", "keyEncipherment"] },
  { keyAlgorithm: "P-521", keyUsage: ["digitalSignature", "decipherOnly"], extendedKeyUsage: ["clientAuth"] },
  { keyAlgorithm: "Ed25519", extendedKeyUsage: "Absent", uris: [] },
  {
    basicConstraints: { ca: true, pathLength: 3 },
    keyUsage: ["keyCertSign", "cRLSign"],
    uris: ["spiffe://example.org"]
  },
  { basicConstraints: { ca: true }, keyUsage: "Absent", nameConstraints: { permitted: { uris: ["example.org"] } } },
  { basicConstraints: "Absent", subjectKeyIdentifier: "Absent", authorityKeyIdentifier: "Absent" },
  { serialNumber: "01", validity: { notBefore: Date.UTC(1999, 0), notAfter: Date.UTC(2049, 11, 31, 23, 59, 59) } },
  { serialNumber: `7f${"ff".repeat(19)}`, validity: { notBefore: 0, notAfter: Date.UTC(2050, 0) } },
  {
    subject: "CN=Zoë,O=Ünïcode\\, Inc.,C=AT",
    extensions: [{ oid: "1.2.3.4", critical: true, value: Uint8Array.of(5, 0) }]
  },
  { validity: { notBefore: 0, notAfter: Date.UTC(9999, 11, 31, 23, 59, 59) }, signatureHash: "SHA-512" }
]

const hex = (bytes: ArrayBuffer | Uint8Array) =>
  Buffer.from(bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes)).toString("hex")

/** A serial number as each reader prints it, without the padding they do not agree on. */
const serial = (text: string) => text.toUpperCase().replace(/^0+/, "")

/** What our reader tells of a certificate. */
const ours = ({ extensions, ...certificate }: Certificate) => ({
  serialNumber: serial(certificate.serialNumber),
  notBefore: certificate.notBefore,
  notAfter: certificate.notAfter,
  issuer: hex(Buffer.from(certificate.issuer, "latin1")),
  subject: hex(Buffer.from(certificate.subject, "latin1")),
  publicKey: hex(certificate.publicKey),
  signature: hex(certificate.signature),
  ca: extensions.basicConstraints?.ca,
  pathLength: extensions.basicConstraints?.pathLength,
  keyUsage: extensions.keyUsage,
  extendedKeyUsage: extensions.extendedKeyUsage?.map(dotted),
  uris: extensions.subjectAltNames.filter(({ form }) => form === "uniformResourceIdentifier").map(({ value }) => value),
  dnsNames: extensions.subjectAltNames.filter(({ form }) => form === "dNSName").map(({ value }) => value),
  names: extensions.subjectAltNames.length,
  subjectKeyIdentifier: extensions.subjectKeyIdentifier,
  authorityKeyIdentifier: extensions.authorityKeyIdentifier
})

/** What @peculiar/x509 tells of it. */
const theirs = (der: Uint8Array): ReturnType<typeof ours> => {
  const x509 = loadX509()
  const certificate = new x509.X509Certificate(Uint8Array.from(der))
  const basic = certificate.getExtension(x509.BasicConstraintsExtension)
  const names = certificate.getExtension(x509.SubjectAlternativeNameExtension)?.names.items ?? []
  return {
    serialNumber: serial(certificate.serialNumber),
    notBefore: certificate.notBefore.getTime(),
    notAfter: certificate.notAfter.getTime(),
    issuer: hex(certificate.issuerName.toArrayBuffer()),
    subject: hex(certificate.subjectName.toArrayBuffer()),
    publicKey: hex(certificate.publicKey.rawData),
    signature: hex(certificate.signature),
    ca: basic?.ca,
    pathLength: basic?.pathLength,
    keyUsage: certificate.getExtension(x509.KeyUsagesExtension)?.usages,
    extendedKeyUsage: certificate.getExtension(x509.ExtendedKeyUsageExtension)?.usages.map(String),
    uris: names.filter(({ type }) => type === "url").map(({ value }) => value),
    dnsNames: names.filter(({ type }) => type === "dns").map(({ value }) => value),
    names: names.length,
    subjectKeyIdentifier: certificate.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId,
    authorityKeyIdentifier: certificate.getExtension(x509.AuthorityKeyIdentifierExtension)?.keyId
  }
}

/** What OpenSSL, as Node shows it, tells of it: less, in other words. */
const nodes = (der: Uint8Array) => {
  const certificate = new X509Certificate(der)
  return {
    serialNumber: serial(certificate.serialNumber),
    notBefore: Date.parse(certificate.validFrom),
    notAfter: Date.parse(certificate.validTo),
    ca: certificate.ca,
    extendedKeyUsage: certificate.keyUsage as ReadonlyArray<string> | undefined,
    fingerprint: certificate.fingerprint256.replaceAll(":", "").toLowerCase()
  }
}

const differences = (a: object, b: object): ReadonlyArray<string> => {
  const other = new Map<string, unknown>(Object.entries(b))
  return Object.entries(a).flatMap(([field, value]) =>
    other.has(field) && JSON.stringify(value) !== JSON.stringify(other.get(field))
      ? [`${field}: ${JSON.stringify(value)} and ${JSON.stringify(other.get(field))}`]
      : []
  )
}

const attempt = <A>(read: () => A): Either.Either<A, unknown> => Either.try(read)

const extensionIds = (der: Uint8Array): string =>
  (parse(der).children?.[0]?.children?.at(-1)?.children?.[0]?.children ?? [])
    .map((extension) => extension.children?.[0]?.bytes?.toString("hex"))
    .join(" ")

/** Of the same length, so that more than a few are read: one byte changed, at random. */
const touch = (random: Random, der: Uint8Array): Buffer => {
  const bytes = Buffer.from(der)
  const at = random.below(bytes.length)
  bytes.writeUInt8(random.below(2) === 0 ? bytes.readUInt8(at) ^ (1 << random.below(8)) : random.below(256), at)
  return bytes
}

/** Compares the three readers, wherever ours reads; the answer is whether it did. */
const compare = (der: Uint8Array, original: Uint8Array): boolean => {
  const read = readCertificate(der)
  if (Either.isLeft(read)) return false
  const context = Buffer.from(der).toString("hex")
  const { extensions, keyKind } = read.right
  const isKnownKey = keyKind._tag === "Acceptable"
  // What is inside of an extension, a key or a form of name that ours does not process is for others to judge.
  const plain = ["uniformResourceIdentifier", "dNSName", "rfc822Name", "iPAddress"]
  const isKnown = isKnownKey && extensions.subjectAltNames.every(({ form }) => plain.includes(form))
  const mayRefuse = !isKnown || extensionIds(der) !== extensionIds(original)
  const { publicKey, ...fields } = ours(read.right)
  const expected = isKnownKey ? { ...fields, publicKey } : fields

  const peculiar = attempt(() => theirs(der))
  if (Either.isRight(peculiar)) assert.deepStrictEqual(differences(expected, peculiar.right), [], context)
  else assert.isTrue(mayRefuse, `@peculiar/x509: ${peculiar.left} ${context}`)

  const openssl = attempt(() => nodes(der))
  if (Either.isLeft(openssl)) {
    assert.isTrue(mayRefuse, `OpenSSL: ${openssl.left} ${context}`)
    return true
  }
  const signsCertificates = extensions.keyUsage === undefined || (extensions.keyUsage & keyUsageBits.keyCertSign) !== 0
  const ca = expected.ca === true && signsCertificates
  assert.deepStrictEqual(differences({ ...expected, ca }, openssl.right), [], context)
  return true
}

describe("our reader, @peculiar/x509 and OpenSSL", () => {
  itAtEpoch("tell the same of every certificate that ours reads, as minted and changed", () =>
    Effect.gen(function* () {
      const { issuer } = yield* shared
      const random = makeRandom(4)
      let changed = 0
      for (const profile of profiles) {
        const { certificates } = yield* CertificateAuthority.issue(issuer, profile)
        const [der] = certificates
        assert.isTrue(compare(der, der), JSON.stringify(profile))
        for (let i = 0; i < 30; i++) if (compare(touch(random, der), der)) changed += 1
        for (let i = 0; i < 10; i++) if (compare(mutate(random, der), der)) changed += 1
      }
      assert.isAbove(changed, 100)
    })
  )
})
