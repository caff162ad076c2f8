/**
 * From a profile to a signed certificate.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type { CertificateProfile, Validity } from "../CertificateProfile.js"
import * as KeyPair from "../KeyPair.js"
import { MintError } from "../MintError.js"
import {
  alterSerialNumber,
  bitString,
  fromHex,
  generalizedTime,
  integer,
  sequence,
  smallInteger,
  tlv,
  utcTime
} from "./der.js"
import { extensions } from "./extensions.js"
import { sign, signatureAlgorithm } from "./signing.js"
import { loadX509 } from "./x509.js"

/** A certificate with what its holder needs to use it. */
export interface Minted {
  readonly certificate: Uint8Array
  readonly subject: string
  readonly keyPair: KeyPair.KeyPair
  /** As the certificate states it. */
  readonly keyIdentifier: string
}

/** Who signs. Absent: the certificate is self-signed. */
export interface Signer {
  readonly subject: string
  readonly keyPair: KeyPair.KeyPair
  readonly keyIdentifier: string
}

/** What a certificate of some kind has where its profile says nothing. */
export interface Kind {
  readonly ca: boolean
  readonly subject: string
  readonly uri: string
  readonly ttl: Duration.DurationInput
  readonly keyAlgorithm: KeyPair.KeyAlgorithm
}

const second = 1000
const hour = 3_600_000

const window = (validity: Validity, ttl: number, now: number): { notBefore: number; notAfter: number } => {
  switch (validity) {
    case "Current":
      return { notBefore: now - 60 * second, notAfter: now + ttl }
    case "Expired":
      return { notBefore: now - hour - Math.max(ttl, hour), notAfter: now - hour }
    case "Future":
      return { notBefore: now + hour, notAfter: now + hour + Math.max(ttl, hour) }
    default:
      return validity
  }
}

/** RFC 5280 section 4.1.2.5: two digits of the year up to 2049. */
const time = (millis: number): Uint8Array => {
  const date = new Date(millis)
  return date.getUTCFullYear() < 2050 ? utcTime(date) : generalizedTime(date)
}

/** Any way of writing a distinguished name that `@peculiar/x509` knows. */
const distinguishedName = (text: string): Uint8Array => {
  const { Name } = loadX509()
  return new Uint8Array(new Name(text).toArrayBuffer())
}

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
  const now = yield* Clock.currentTimeMillis
  const serialNumber = profile.serialNumber ?? (yield* randomSerial)
  const keyPair = profile.keyPair ?? (yield* KeyPair.make(profile.keyAlgorithm ?? kind.keyAlgorithm))
  const subject = profile.subject ?? kind.subject
  const stated = profile.subjectKeyIdentifier
  const keyIdentifier = stated === undefined || stated === "Absent" ? keyPair.identifier : stated
  const signer = issuer ?? { subject, keyPair, keyIdentifier }
  const signingPair = profile.signature === "WrongKey" ? yield* KeyPair.make(signer.keyPair.algorithm) : signer.keyPair
  const { notAfter, notBefore } = window(profile.validity ?? "Current", Duration.toMillis(profile.ttl ?? kind.ttl), now)
  const certificate = yield* Effect.try({
    try: () => {
      const algorithm = signatureAlgorithm(signingPair.algorithm, profile)
      const written = extensions(profile, kind, {
        subject: keyIdentifier,
        authority: profile.authorityKeyIdentifier ?? signer.keyIdentifier
      })
      const toBeSigned = sequence(
        tlv(0xa0, smallInteger(2)),
        integer(fromHex(serialNumber)),
        algorithm,
        distinguishedName(signer.subject),
        sequence(time(notBefore), time(notAfter)),
        distinguishedName(subject),
        keyPair.publicKey,
        tlv(0xa3, sequence(...written))
      )
      return sequence(toBeSigned, algorithm, bitString(sign(signingPair, profile, toBeSigned)))
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
