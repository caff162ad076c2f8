/**
 * From a profile to a signed certificate.
 */
import { webcrypto } from "node:crypto"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import type { CertificateProfile, GeneralSubtrees, NameConstraints, Validity } from "../../CertificateProfile.js"
import * as KeyPair from "../../KeyPair.js"
import { MintError } from "../../MintError.js"
import { alterSerialNumber, sequence, tlv } from "./derWriter.js"
import { check } from "./profileOptions.js"
import { loadX509, type X509 } from "./x509.js"

/** A certificate with what its holder needs to use it. */
export interface Minted {
  readonly certificate: Uint8Array
  readonly subject: string
  readonly keyPair: KeyPair.KeyPair
  /** As the certificate states it. */
  readonly keyIdentifier: string
}

/** The issuer. Absent: the certificate is self-signed. */
export interface Signer {
  readonly subject: string
  readonly keyPair: KeyPair.KeyPair
  readonly keyIdentifier: string
}

/** The defaults of each kind of certificate, where its profile says nothing. */
export interface Kind {
  readonly ca: boolean
  readonly subject: string
  readonly uri: string
  readonly ttl: Duration.DurationInput
  readonly keyAlgorithm: KeyPair.KeyAlgorithm
}

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text)

const generalNames = {
  email: (value: string) => tlv(0x81, ascii(value)),
  dns: (value: string) => tlv(0x82, ascii(value)),
  uri: (value: string | Uint8Array) => tlv(0x86, typeof value === "string" ? ascii(value) : value),
  ip: (value: string) => tlv(0x87, Uint8Array.from(value.split("."), Number))
}

/** An address and a mask (RFC 5280 section 4.2.1.10). */
const ipRange = (range: string): Uint8Array => {
  const [address = "", prefix] = range.split("/")
  const mask = Array.from(
    { length: 4 },
    (_, index) => 0xff & (0xff00 >> Math.min(8, Math.max(0, Number(prefix) - 8 * index)))
  )
  return tlv(0x87, Uint8Array.from(address.split("."), Number), Uint8Array.from(mask))
}

const subtrees = (x509: X509, tag: number, trees: GeneralSubtrees | undefined): ReadonlyArray<Uint8Array> => {
  const names = [
    ...(trees?.ipRanges ?? []).map(ipRange),
    ...(trees?.directoryNames ?? []).map((name) => tlv(0xa4, new Uint8Array(new x509.Name(name).toArrayBuffer()))),
    ...(trees?.emails ?? []).map(generalNames.email),
    ...(trees?.dnsNames ?? []).map(generalNames.dns),
    ...(trees?.uris ?? []).map(generalNames.uri)
  ]
  return names.length === 0 ? [] : [tlv(tag, ...names.map((name) => sequence(name)))]
}

const nameConstraints = (x509: X509, constraints: NameConstraints): Uint8Array<ArrayBuffer> =>
  sequence(...subtrees(x509, 0xa0, constraints.permitted), ...subtrees(x509, 0xa1, constraints.excluded))

const purposes: Record<string, string> = { serverAuth: "1.3.6.1.5.5.7.3.1", clientAuth: "1.3.6.1.5.5.7.3.2" }

const extensions = (
  x509: X509,
  profile: CertificateProfile,
  kind: Kind,
  identifiers: { readonly subject: string; readonly authority: string }
) => {
  const list: Array<InstanceType<X509["Extension"]>> = []
  const raw = (oid: string, critical: boolean, value: Uint8Array) =>
    list.push(new x509.Extension(oid, critical, Uint8Array.from(value)))

  const basic = profile.basicConstraints ?? { ca: kind.ca }
  if (basic !== "Absent") list.push(new x509.BasicConstraintsExtension(basic.ca, basic.pathLength, true))

  const usage = profile.keyUsage ?? (kind.ca ? ["keyCertSign", "cRLSign"] : ["digitalSignature"])
  if (usage !== "Absent") {
    const flags = usage.reduce((sum, name) => sum | x509.KeyUsageFlags[name], 0)
    list.push(new x509.KeyUsagesExtension(flags, true))
  }

  const extended = profile.extendedKeyUsage ?? (kind.ca ? "Absent" : ["serverAuth", "clientAuth"])
  if (extended !== "Absent") {
    list.push(new x509.ExtendedKeyUsageExtension(extended.map((purpose) => purposes[purpose] ?? purpose)))
  }

  if (profile.subjectKeyIdentifier !== "Absent") list.push(new x509.SubjectKeyIdentifierExtension(identifiers.subject))
  if (profile.authorityKeyIdentifier !== "Absent") {
    list.push(new x509.AuthorityKeyIdentifierExtension(identifiers.authority))
  }

  const names = [
    ...(profile.emails ?? []).map(generalNames.email),
    ...(profile.dnsNames ?? []).map(generalNames.dns),
    ...(profile.uris ?? [kind.uri]).map(generalNames.uri),
    ...(profile.ipAddresses ?? []).map(generalNames.ip)
  ]
  if (names.length > 0) raw("2.5.29.17", false, sequence(...names))
  if (profile.nameConstraints !== undefined) raw("2.5.29.30", true, nameConstraints(x509, profile.nameConstraints))
  for (const extension of profile.extensions ?? []) raw(extension.oid, extension.critical, extension.value)
  return list
}

const curveHash = { "P-256": "SHA-256", "P-384": "SHA-384", "P-521": "SHA-512" } as const

const saltLengths = { "SHA-1": 20, "SHA-256": 32, "SHA-384": 48, "SHA-512": 64 } as const

type ImportParams = webcrypto.AlgorithmIdentifier | webcrypto.RsaHashedImportParams | webcrypto.EcKeyImportParams

/** Keys as WebCrypto has them: a CA signs often, and importing its key costs more than signing. */
const imported = new WeakMap<KeyPair.KeyPair, Map<string, Promise<webcrypto.CryptoKey>>>()

const importKey = (keyPair: KeyPair.KeyPair, params: ImportParams): Promise<webcrypto.CryptoKey> => {
  const keys = imported.get(keyPair) ?? new Map<string, Promise<webcrypto.CryptoKey>>()
  imported.set(keyPair, keys)
  const name = JSON.stringify(params)
  const key =
    keys.get(name) ??
    webcrypto.subtle.importKey(
      "pkcs8",
      Redacted.value(keyPair.privateKey).export({ type: "pkcs8", format: "der" }),
      params,
      false,
      ["sign"]
    )
  keys.set(name, key)
  return key
}

/** How a key signs. An RSA key is bound to its digest in WebCrypto. */
const signing = async (keyPair: KeyPair.KeyPair, { signatureHash: hash, signaturePadding }: CertificateProfile) => {
  const { algorithm } = keyPair
  switch (algorithm) {
    case "P-256":
    case "P-384":
    case "P-521":
      return {
        signingKey: await importKey(keyPair, { name: "ECDSA", namedCurve: algorithm }),
        signingAlgorithm: { name: "ECDSA", hash: hash ?? curveHash[algorithm] }
      }
    case "Ed25519":
    case "Ed448":
      return {
        signingKey: await importKey(keyPair, { name: algorithm }),
        signingAlgorithm: { name: algorithm, hash: "SHA-512" }
      }
    default: {
      const rsa = { name: signaturePadding === "PSS" ? "RSA-PSS" : "RSASSA-PKCS1-v1_5", hash: hash ?? "SHA-256" }
      return {
        signingKey: await importKey(keyPair, rsa),
        signingAlgorithm: { ...rsa, saltLength: saltLengths[rsa.hash] }
      }
    }
  }
}

const second = 1000
const hour = 3_600_000

const window = (validity: Validity, ttl: number, now: number): { notBefore: number; notAfter: number } => {
  switch (validity) {
    case "Current":
      return { notBefore: now - Math.min(60 * second, ttl / 10), notAfter: now + ttl }
    case "Expired":
      return { notBefore: now - hour - Math.max(ttl, hour), notAfter: now - hour }
    case "Future":
      return { notBefore: now + hour, notAfter: now + hour + Math.max(ttl, hour) }
    default:
      return validity
  }
}

const hexadecimal = /^([0-9A-Fa-f]{2})+$/
const objectIdentifier = /^[0-2](\.\d+)+$/

/** Values that `@peculiar/x509` would write without complaint, and as something else: what was expected, and what came. */
const unwritable = (
  { basicConstraints, extendedKeyUsage, extensions = [], serialNumber }: CertificateProfile,
  dates: { readonly notBefore: number; readonly notAfter: number }
): string | undefined => {
  if (serialNumber !== undefined && !hexadecimal.test(serialNumber)) {
    return `expected a serial number of hexadecimal digits in pairs, got ${JSON.stringify(serialNumber)}`
  }
  const usages = extendedKeyUsage === "Absent" ? [] : (extendedKeyUsage ?? [])
  const identifiers = [...usages.map((usage) => purposes[usage] ?? usage), ...extensions.map(({ oid }) => oid)]
  const strange = identifiers.find((oid) => !objectIdentifier.test(oid))
  if (strange !== undefined) {
    return `expected an object identifier in dotted form or the name of a purpose, got ${JSON.stringify(strange)}`
  }
  const pathLength = basicConstraints === "Absent" ? undefined : basicConstraints?.pathLength
  if (pathLength !== undefined && !(Number.isSafeInteger(pathLength) && pathLength >= 0)) {
    return `expected a path length that is a whole number and not negative, got ${pathLength}`
  }
  if (!Number.isFinite(dates.notBefore) || !Number.isFinite(dates.notAfter)) {
    return `expected dates in milliseconds since the epoch, got ${dates.notBefore} and ${dates.notAfter}`
  }
  return undefined
}

const wholeSeconds = (millis: number): Date => new Date(Math.floor(millis / second) * second)

/** Positive and never zero: the first byte is 0x40 to 0x7f. */
const randomSerial = Effect.map(
  Effect.all([Random.nextIntBetween(0x40, 0x80), ...Array.from({ length: 15 }, () => Random.nextIntBetween(0, 256))]),
  (bytes) => Buffer.from(bytes).toString("hex")
)

export const mint = Effect.fnUntraced(function* (
  profile: CertificateProfile,
  kind: Kind,
  issuer: Signer | undefined
): Effect.fn.Return<Minted, MintError> {
  yield* check(profile)
  const now = yield* Clock.currentTimeMillis
  const serialNumber = profile.serialNumber ?? (yield* randomSerial)
  const keyPair = profile.keyPair ?? (yield* KeyPair.make(profile.keyAlgorithm ?? kind.keyAlgorithm))
  const subject = profile.subject ?? kind.subject
  const stated = profile.subjectKeyIdentifier
  const keyIdentifier = stated === undefined || stated === "Absent" ? keyPair.identifier : stated
  const signer = issuer ?? { subject, keyPair, keyIdentifier }
  const signingPair = profile.signature === "WrongKey" ? yield* KeyPair.make(signer.keyPair.algorithm) : signer.keyPair
  const dates = window(profile.validity ?? "Current", Duration.toMillis(profile.ttl ?? kind.ttl), now)
  const { notAfter, notBefore } = dates
  const refusal = unwritable(profile, dates)
  if (refusal !== undefined) return yield* new MintError({ reason: "InvalidProfile", description: refusal })
  const certificate = yield* Effect.tryPromise({
    try: async () => {
      const x509 = loadX509()
      const created = await x509.X509CertificateGenerator.create(
        {
          serialNumber,
          subject,
          issuer: signer.subject,
          notBefore: wholeSeconds(notBefore),
          notAfter: wholeSeconds(notAfter),
          publicKey: Uint8Array.from(keyPair.publicKey),
          ...(await signing(signingPair, profile)),
          extensions: extensions(x509, profile, kind, {
            subject: keyIdentifier,
            authority: profile.authorityKeyIdentifier ?? signer.keyIdentifier
          })
        },
        webcrypto
      )
      return new Uint8Array(created.rawData)
    },
    catch: (cause) =>
      new MintError({
        reason: "InvalidProfile",
        description: `expected a profile that can be written as a certificate, got one for ${subject} that cannot`,
        cause
      })
  })
  return {
    certificate: profile.signature === "Altered" ? alterSerialNumber(certificate) : certificate,
    subject,
    keyPair,
    keyIdentifier
  }
})
