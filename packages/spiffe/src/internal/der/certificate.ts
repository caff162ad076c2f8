import * as Either from "effect/Either"
import type { KeyKind, SignatureAlgorithm } from "./algorithms.js"
import { readKeyKind, readSignatureAlgorithm } from "./algorithms.js"
import type { Element } from "./der.js"
import * as der from "./der.js"
import type { Extensions } from "./extensions.js"
import { readExtensions } from "./extensions.js"

/** The fields of a certificate that the gate reads (RFC 5280 section 4.1). Byte views point into `der`. */
export interface Certificate {
  readonly der: Buffer
  /** The bytes that are signed. */
  readonly tbs: Buffer
  /** Upper-case hex. */
  readonly serialNumber: string
  readonly signatureAlgorithm: SignatureAlgorithm
  readonly signature: Buffer
  /** DER of the names, one character a byte: compared as they are (RFC 5280 section 4.1.2.4 lets an issuer do no less). */
  readonly issuer: string
  readonly subject: string
  /** Milliseconds since the epoch; both ends belong to the validity. */
  readonly notBefore: number
  readonly notAfter: number
  /** DER of the SubjectPublicKeyInfo. */
  readonly publicKey: Buffer
  readonly keyKind: KeyKind
  readonly extensions: Extensions
}

const utf8 = new TextDecoder("utf-8", { fatal: true })

const isUtf8 = (value: Element): boolean =>
  der.content(value).every((byte) => byte < 0x80) || Either.isRight(Either.try(() => utf8.decode(der.content(value))))

const isWhole = (octets: number) => (value: Element) => (value.end - value.from) % octets === 0

/**
 * The allowed types of an attribute's value: the choices of DirectoryString, and the IA5String and NumericString that a
 * few standard attributes have (RFC 5280 section 4.1.2.4 and appendix A).
 */
const attributeValues: ReadonlyMap<number, (value: Element) => boolean> = new Map([
  [0x0c, isUtf8],
  [0x12, () => true],
  [0x13, () => true],
  [0x14, () => true],
  [0x16, () => true],
  [0x1c, isWhole(4)],
  [0x1e, isWhole(2)]
])

const readAttribute = (relative: Element, what: string): void => {
  const attribute = der.read(relative, der.tags.sequence, what)
  der.oid(der.read(attribute, der.tags.oid, what), what)
  const value = der.next(attribute, what)
  if (attributeValues.get(value.tag)?.(value) !== true) der.fail(`${what} is not text`, value.start)
  der.finish(attribute, what)
}

const readName = (cursor: Element, what: string): string => {
  const name = der.read(cursor, der.tags.sequence, what)
  while (!der.atEnd(name)) {
    const relative = der.read(name, der.tags.set, what)
    if (der.atEnd(relative)) der.fail(`${what} with an empty part`, relative.start)
    while (!der.atEnd(relative)) readAttribute(relative, what)
  }
  return name.bytes.toString("latin1", name.start, name.end)
}

/** RFC 5280 section 4.1.2.2: not negative, at most 20 octets. */
const readSerialNumber = (cursor: Element): string => {
  const serial = der.unsigned(der.read(cursor, der.tags.integer, "serial number"), "serial number")
  if (serial.length > 20) der.fail("serial number longer than 20 octets", cursor.at)
  return serial.toString("hex").toUpperCase()
}

const readVersion = (tbs: Element): void => {
  const explicit = der.read(tbs, 0xa0, "version")
  const version = der.smallUnsigned(der.read(explicit, der.tags.integer, "version"), "version")
  der.finish(explicit, "version")
  if (version !== 2) der.fail("version is not 3", explicit.start)
}

const read = (input: Uint8Array): Certificate => {
  const whole = der.over(input)
  const certificate = der.read(whole, der.tags.sequence, "certificate")
  der.finish(whole, "certificate")

  const tbs = der.read(certificate, der.tags.sequence, "TBS certificate")
  const signatureAlgorithm = readSignatureAlgorithm(certificate)
  const signature = der.octetBits(der.read(certificate, der.tags.bitString, "signature"), "signature")
  der.finish(certificate, "signature")

  readVersion(tbs)
  const serialNumber = readSerialNumber(tbs)
  if (readSignatureAlgorithm(tbs).identifier !== signatureAlgorithm.identifier) {
    der.fail("signature algorithm differs inside and outside of what is signed", tbs.start)
  }
  const issuer = readName(tbs, "issuer")
  const validity = der.read(tbs, der.tags.sequence, "validity")
  const notBefore = der.time(validity, "notBefore")
  const notAfter = der.time(validity, "notAfter")
  der.finish(validity, "validity")
  const subject = readName(tbs, "subject")
  const spki = der.read(tbs, der.tags.sequence, "public key")
  const publicKey = der.raw(spki)
  const keyKind = readKeyKind(spki)
  der.optional(tbs, 0x81, "issuer unique identifier")
  der.optional(tbs, 0x82, "subject unique identifier")
  const explicit = der.read(tbs, 0xa3, "extensions")
  der.finish(tbs, "extensions")
  const list = der.read(explicit, der.tags.sequence, "extensions")
  der.finish(explicit, "extensions")
  const extensions = readExtensions(list)

  return {
    der: der.raw(certificate),
    tbs: der.raw(tbs),
    serialNumber,
    signatureAlgorithm,
    signature,
    issuer,
    subject,
    notBefore,
    notAfter,
    publicKey,
    keyKind,
    extensions
  }
}

const asDerError = (cause: unknown): der.DerError =>
  cause instanceof der.DerError ? cause : new der.DerError("unreadable", { cause })

/** Reads one certificate, strictly as DER; the message of a refusal says what was met where. */
export const readCertificate = (input: Uint8Array): Either.Either<Certificate, der.DerError> =>
  Either.try({ try: () => read(input), catch: asDerError })

/** The certificates a plain concatenation of DER holds, unread. */
export const splitCertificates = (input: Uint8Array): Either.Either<ReadonlyArray<Buffer>, der.DerError> =>
  Either.try({ try: () => der.split(input, "certificate"), catch: asDerError })
