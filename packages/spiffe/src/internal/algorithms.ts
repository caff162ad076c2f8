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

/**
 * Every acceptable AlgorithmIdentifier, as the hex of its whole DER: parameters are compared, never interpreted. RFC 4055
 * section 5 (RSA; NULL may be absent) and section 3.1 (PSS: digest, MGF1 and salt of one size), RFC 5758 section 3.2
 * (ECDSA), RFC 8410 section 3 (Ed25519).
 */
const signatureSchemes: ReadonlyMap<string, SignatureScheme> = new Map<string, SignatureScheme>([
  ["300d06092a864886f70d01010b0500", { name: "sha256WithRSAEncryption", keyKind: "rsa", digest: "sha256" }],
  ["300b06092a864886f70d01010b", { name: "sha256WithRSAEncryption", keyKind: "rsa", digest: "sha256" }],
  ["300d06092a864886f70d01010c0500", { name: "sha384WithRSAEncryption", keyKind: "rsa", digest: "sha384" }],
  ["300b06092a864886f70d01010c", { name: "sha384WithRSAEncryption", keyKind: "rsa", digest: "sha384" }],
  ["300d06092a864886f70d01010d0500", { name: "sha512WithRSAEncryption", keyKind: "rsa", digest: "sha512" }],
  ["300b06092a864886f70d01010d", { name: "sha512WithRSAEncryption", keyKind: "rsa", digest: "sha512" }],
  [
    "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120",
    { name: "RSASSA-PSS with SHA-256", keyKind: "rsa", digest: "sha256", pssSaltLength: 32 }
  ],
  [
    "304106092a864886f70d01010a3034a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130",
    { name: "RSASSA-PSS with SHA-384", keyKind: "rsa", digest: "sha384", pssSaltLength: 48 }
  ],
  [
    "304106092a864886f70d01010a3034a00f300d06096086480165030402030500a11c301a06092a864886f70d010108300d06096086480165030402030500a203020140",
    { name: "RSASSA-PSS with SHA-512", keyKind: "rsa", digest: "sha512", pssSaltLength: 64 }
  ],
  ["300a06082a8648ce3d040302", { name: "ecdsa-with-SHA256", keyKind: "ec", digest: "sha256" }],
  ["300a06082a8648ce3d040303", { name: "ecdsa-with-SHA384", keyKind: "ec", digest: "sha384" }],
  ["300a06082a8648ce3d040304", { name: "ecdsa-with-SHA512", keyKind: "ec", digest: "sha512" }],
  ["300506032b6570", { name: "Ed25519", keyKind: "ed25519", digest: null }]
])

export const minRsaBits = 2048
export const maxRsaBits = 8192

/** What kind of key a certificate certifies; `Unacceptable` says why, and its key is never handed to any cryptography. */
export type KeyKind =
  | { readonly _tag: "Acceptable"; readonly kind: SignatureScheme["keyKind"]; readonly name: string }
  | { readonly _tag: "Unacceptable"; readonly name: string }

const curves: ReadonlyMap<string, { readonly name: string; readonly octets: number }> = new Map([
  ["301306072a8648ce3d020106082a8648ce3d030107", { name: "P-256", octets: 65 }],
  ["301006072a8648ce3d020106052b81040022", { name: "P-384", octets: 97 }],
  ["301006072a8648ce3d020106052b81040023", { name: "P-521", octets: 133 }]
])

const rsaEncryption = "300d06092a864886f70d0101010500"
const ed25519 = "300506032b6570"

const unacceptable = (name: string): KeyKind => ({ _tag: "Unacceptable", name })

const acceptable = (kind: SignatureScheme["keyKind"], name: string): KeyKind => ({ _tag: "Acceptable", kind, name })

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
  const identifier = der.raw(algorithm).toString("hex")
  if (identifier === rsaEncryption) return readRsaKey(key)
  if (identifier === ed25519)
    return key.length === 32 ? acceptable("ed25519", "Ed25519") : unacceptable("a bad Ed25519 key")
  const curve = curves.get(identifier)
  if (curve === undefined) return unacceptable(`a key of algorithm ${der.dotted(oid)}`)
  return key.length === curve.octets && key[0] === 4
    ? acceptable("ec", curve.name)
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
