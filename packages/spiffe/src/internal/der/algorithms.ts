import type { Element } from "./der.js"
import * as der from "./der.js"

/** A way to sign certificates that is strong enough: SHA-256 or better with RSA, ECDSA or Ed25519. */
export interface SignatureScheme {
  readonly name: string
  readonly keyKind: "rsa" | "ec" | "ed25519"
  /** Name of the digest for `node:crypto`; null when the scheme has its own. */
  readonly digest: "sha256" | "sha384" | "sha512" | null
  /** Salt length of RSASSA-PSS; undefined for PKCS#1 v1.5. */
  readonly pssSaltLength?: number
}

/** An element of fewer than 128 bytes, all in hex. */
const element = (tag: string, ...contents: ReadonlyArray<string>): string => {
  const body = contents.join("")
  return `${tag}${(body.length / 2).toString(16).padStart(2, "0")}${body}`
}

const sequence = (...contents: ReadonlyArray<string>): string => element("30", ...contents)

const nullParameters = "0500"
const noParameters = ""

type Digest = NonNullable<SignatureScheme["digest"]>

const digests: ReadonlyArray<{ readonly digest: Digest; readonly oid: string; readonly octets: number }> = [
  { digest: "sha256", oid: "0609608648016503040201", octets: 32 },
  { digest: "sha384", oid: "0609608648016503040202", octets: 48 },
  { digest: "sha512", oid: "0609608648016503040203", octets: 64 }
]

/** RFC 4055 section 3.1: digest, MGF1 and salt of one size, and the one trailer there is, so that DER leaves it out. */
const pss = (digest: string, octets: number): string =>
  sequence(
    "06092a864886f70d01010a",
    sequence(
      element("a0", digest),
      element("a1", sequence("06092a864886f70d010108", digest)),
      element("a2", element("02", octets.toString(16)))
    )
  )

/**
 * Every acceptable AlgorithmIdentifier, as the hex of its whole DER: parameters are compared, never interpreted. RFC 4055
 * section 5 (RSA) and 2.1 (NULL parameters may be absent), RFC 5758 section 3.2 (ECDSA), RFC 8410 section 3 (Ed25519).
 */
const signatureSchemes: ReadonlyMap<string, SignatureScheme> = new Map<string, SignatureScheme>([
  ...digests.flatMap(({ digest, octets, oid }, index): ReadonlyArray<readonly [string, SignatureScheme]> => {
    const rsa = { name: `RSA PKCS#1 with ${digest}`, keyKind: "rsa", digest } as const
    const rsaPss = { name: `RSASSA-PSS with ${digest}`, keyKind: "rsa", digest, pssSaltLength: octets } as const
    const ecdsa = { name: `ECDSA with ${digest}`, keyKind: "ec", digest } as const
    return [
      [sequence(`06092a864886f70d01010${(11 + index).toString(16)}`, nullParameters), rsa],
      [sequence(`06092a864886f70d01010${(11 + index).toString(16)}`, noParameters), rsa],
      [pss(sequence(oid, nullParameters), octets), rsaPss],
      [pss(sequence(oid, noParameters), octets), rsaPss],
      [sequence(`06082a8648ce3d04030${2 + index}`), ecdsa]
    ]
  }),
  [sequence("06032b6570"), { name: "Ed25519", keyKind: "ed25519", digest: null }]
])

export const minRsaBits = 2048
export const maxRsaBits = 8192

/** The curves of the keys that are accepted. */
export type CurveName = "P-256" | "P-384" | "P-521"

/** The kind of key that a certificate certifies; `Unacceptable` says why, and its key is never handed to any cryptography. */
export type KeyKind =
  | { readonly _tag: "Acceptable"; readonly kind: "rsa" | "ed25519"; readonly name: string }
  | { readonly _tag: "Acceptable"; readonly kind: "ec"; readonly name: CurveName }
  | { readonly _tag: "Unacceptable"; readonly name: string }

const curves: ReadonlyMap<string, { readonly name: CurveName; readonly octets: number }> = new Map([
  ["301306072a8648ce3d020106082a8648ce3d030107", { name: "P-256", octets: 65 }],
  ["301006072a8648ce3d020106052b81040022", { name: "P-384", octets: 97 }],
  ["301006072a8648ce3d020106052b81040023", { name: "P-521", octets: 133 }]
])

const anyOf = (names: ReadonlyArray<string>): string => names.join(", ").replace(/, ([^,]*)$/, " or $1")

/** The keys that are accepted, for people. */
export const acceptableKeys: string = anyOf([
  `RSA ${minRsaBits} to ${maxRsaBits}`,
  ...Array.from(curves.values(), ({ name }) => name),
  "Ed25519"
])

/** How a key of each kind signs, for people. */
const signatureNames: Readonly<Record<SignatureScheme["keyKind"], string>> = {
  rsa: "RSA",
  ec: "ECDSA",
  ed25519: "Ed25519"
}

/** The signatures that are accepted, for people. */
export const acceptableSignatures: string = `SHA-256 or better and ${anyOf(Object.values(signatureNames))}`

const rsaEncryption = "300d06092a864886f70d0101010500"
const ed25519 = "300506032b6570"

const unacceptable = (name: string): KeyKind => ({ _tag: "Unacceptable", name })

const acceptable = (kind: "rsa" | "ed25519", name: string): KeyKind => ({ _tag: "Acceptable", kind, name })

const bitLength = (bytes: Buffer): number => bytes.length * 8 - (Math.clz32(bytes[0] ?? 0) - 24)

/**
 * An odd exponent of at most 31 bits: what issuers use has at most 17, and the cost of a verification grows with it, so
 * that a peer could otherwise choose how long the gate works.
 */
const readRsaKey = (key: Buffer): KeyKind => {
  const whole = der.over(key)
  const sequence = der.read(whole, der.tags.sequence, "RSA public key")
  der.finish(whole, "RSA public key")
  const modulus = der.unsigned(der.read(sequence, der.tags.integer, "RSA modulus"), "RSA modulus")
  const exponent = der.unsigned(der.read(sequence, der.tags.integer, "RSA exponent"), "RSA exponent")
  der.finish(sequence, "RSA exponent")
  const bits = bitLength(modulus)
  const name = `RSA of ${bits} bits`
  if (bits < minRsaBits || bits > maxRsaBits || ((modulus.at(-1) ?? 0) & 1) === 0) return unacceptable(name)
  if (bitLength(exponent) < 2 || bitLength(exponent) > 31 || ((exponent.at(-1) ?? 0) & 1) === 0) {
    return unacceptable(`${name} with an exponent of ${bitLength(exponent)} bits`)
  }
  return acceptable("rsa", name)
}

/** Reads a SubjectPublicKeyInfo: RSA of 2048 to 8192 bits, P-256, P-384, P-521 (uncompressed points) or Ed25519. */
export const readKeyKind = (spki: Element): KeyKind => {
  const algorithm = der.read(spki, der.tags.sequence, "public key algorithm")
  const key = der.octetBits(der.read(spki, der.tags.bitString, "public key"), "public key")
  der.finish(spki, "public key")
  const oid = der.oid(der.read(algorithm, der.tags.oid, "public key algorithm"), "public key algorithm")
  if (!der.atEnd(algorithm)) der.next(algorithm, "public key parameters")
  der.finish(algorithm, "public key parameters")
  const identifier = der.raw(algorithm).toString("hex")
  if (identifier === rsaEncryption) return readRsaKey(key)
  if (identifier === ed25519)
    return key.length === 32 ? acceptable("ed25519", "Ed25519") : unacceptable("a bad Ed25519 key")
  const curve = curves.get(identifier)
  if (curve === undefined) return unacceptable(`a key of algorithm ${der.dotted(oid)}`)
  return key.length === curve.octets && key[0] === 4
    ? { _tag: "Acceptable", kind: "ec", name: curve.name }
    : unacceptable(`${curve.name} with a point that is not uncompressed`)
}

export interface SignatureAlgorithm {
  /** DER of the AlgorithmIdentifier, hex. */
  readonly identifier: string
  readonly oid: string
  readonly scheme: SignatureScheme | undefined
}

/** Reads an AlgorithmIdentifier of a signature. */
export const readSignatureAlgorithm = (cursor: Element): SignatureAlgorithm => {
  const element = der.read(cursor, der.tags.sequence, "signature algorithm")
  const identifier = der.raw(element).toString("hex")
  const oid = der.oid(der.read(element, der.tags.oid, "signature algorithm"), "signature algorithm")
  if (!der.atEnd(element)) der.next(element, "signature parameters")
  der.finish(element, "signature parameters")
  return { identifier, oid, scheme: signatureSchemes.get(identifier) }
}

export const describeSignatureAlgorithm = (algorithm: SignatureAlgorithm): string =>
  algorithm.scheme?.name ?? `signature algorithm ${der.dotted(algorithm.oid)}`
