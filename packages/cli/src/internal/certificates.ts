/** The text of a certificate for people: its fields, and the changes that are near. */
import { X509Certificate } from "node:crypto"
import { Either } from "effect"
import { UsageError } from "../UsageError.js"
import { printable } from "./printable.js"

/** A certificate in plain values; dates are ISO 8601. */
export interface CertificateFacts {
  readonly role: "Leaf" | "Intermediate" | "Authority"
  /** URIs of its subject alternative name. */
  readonly uris: ReadonlyArray<string>
  readonly subject: string
  readonly issuer: string
  /** Upper-case hex. */
  readonly serialNumber: string
  /** SHA-256 of the DER, lower-case hex. */
  readonly fingerprint: string
  readonly notBefore: string
  readonly notAfter: string
  readonly key: string
}

/** A change that is near or has come, and when. */
export interface Foreseen {
  readonly at: string
  /** Milliseconds from now; negative for what has happened. */
  readonly inMillis: number
  readonly description: string
}

const oneLine = (name: string): string => name.trim().replaceAll("\n", ", ")

const keyOf = (certificate: X509Certificate): string => {
  const key = Either.try(() => certificate.publicKey)
  if (Either.isLeft(key)) return "unknown"
  const { asymmetricKeyDetails: details, asymmetricKeyType: type } = key.right
  const size = details?.namedCurve ?? details?.modulusLength
  return size === undefined ? (type ?? "unknown") : `${type} ${size}`
}

/** Reads a certificate, or says that it is none. */
export const factsOf = (der: Uint8Array, role: CertificateFacts["role"]): Either.Either<CertificateFacts, UsageError> =>
  Either.try({
    try: () => {
      const certificate = new X509Certificate(der)
      return {
        role,
        uris: Array.from(certificate.subjectAltName?.matchAll(/URI:([^,\s"]+)/g) ?? [], ([, uri]) => uri ?? ""),
        subject: oneLine(certificate.subject ?? ""),
        issuer: oneLine(certificate.issuer ?? ""),
        serialNumber: certificate.serialNumber,
        fingerprint: certificate.fingerprint256.replaceAll(":", "").toLowerCase(),
        notBefore: new Date(certificate.validFrom).toISOString(),
        notAfter: new Date(certificate.validTo).toISOString(),
        key: keyOf(certificate)
      }
    },
    catch: (cause) =>
      new UsageError({ message: `expected a certificate, got ${cause instanceof Error ? cause.message : cause}` })
  })

/** A chain, the leaf first. */
export const chainFacts = (
  chain: ReadonlyArray<Uint8Array>
): Either.Either<ReadonlyArray<CertificateFacts>, UsageError> =>
  Either.all(chain.map((der, n) => factsOf(der, n === 0 ? "Leaf" : "Intermediate")))

/** A stretch of time, as a person says it. */
export const duration = (millis: number): string => {
  const seconds = Math.round(Math.abs(millis) / 1000)
  if (seconds < 120) return `${seconds} s`
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} days`
}

/** An event in time, seen from now. */
export const foresee = (at: number, now: number, description: string): Foreseen => ({
  at: new Date(at).toISOString(),
  inMillis: at - now,
  description
})

const nameOf = ({ role, subject, uris }: CertificateFacts): string =>
  role === "Leaf" ? "the SVID" : `the ${role.toLowerCase()} ${uris[0] ?? subject}`

/** When certificates begin and cease to be valid: what begins later than now, and all ends. */
export const datesOf = (facts: ReadonlyArray<CertificateFacts>, now: number): ReadonlyArray<Foreseen> =>
  facts.flatMap((certificate) => {
    const begins = Date.parse(certificate.notBefore)
    const ends = foresee(Date.parse(certificate.notAfter), now, `${nameOf(certificate)} expires`)
    return begins > now ? [foresee(begins, now, `${nameOf(certificate)} begins to be valid`), ends] : [ends]
  })

/** In the order in which it happens. */
export const inOrder = (foreseen: ReadonlyArray<Foreseen>): ReadonlyArray<Foreseen> =>
  foreseen.toSorted((a, b) => a.inMillis - b.inMillis)

/** For people, a line each. */
export const foreseenLines = (foreseen: ReadonlyArray<Foreseen>): ReadonlyArray<string> =>
  foreseen.map(({ at, description, inMillis }) => {
    const when = inMillis < 0 ? `${duration(inMillis)} ago` : `in ${duration(inMillis)}`
    return `  ${at} (${when}) ${printable(description)}`
  })

/** For people, two lines each. */
export const certificateLines = (facts: ReadonlyArray<CertificateFacts>): ReadonlyArray<string> =>
  facts.flatMap(({ fingerprint, key, notAfter, notBefore, role, serialNumber, subject, uris }) => [
    `  ${role.padEnd(12)} ${printable(uris.join(" ") || subject || "no name")}`,
    `    ${notBefore} to ${notAfter}, ${key}, serial ${serialNumber}, SHA-256 ${fingerprint.slice(0, 16)}`
  ])
