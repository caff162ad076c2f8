/**
 * How a CA's key signs: RFC 3279 and 8692's identifiers of algorithms, and the signature itself.
 */
import { constants, sign as nodeSign } from "node:crypto"
import * as Redacted from "effect/Redacted"
import type { CertificateProfile } from "../CertificateProfile.js"
import type { KeyAlgorithm, KeyPair } from "../KeyPair.js"
import { null_, objectIdentifier, sequence, smallInteger, tlv } from "./der.js"

type Hash = NonNullable<CertificateProfile["signatureHash"]>

const hashes: Record<
  Hash,
  { readonly oid: string; readonly ecdsa: string; readonly rsa: string; readonly size: number }
> = {
  "SHA-1": { oid: "1.3.14.3.2.26", ecdsa: "1.2.840.10045.4.1", rsa: "1.2.840.113549.1.1.5", size: 20 },
  "SHA-256": {
    oid: "2.16.840.1.101.3.4.2.1",
    ecdsa: "1.2.840.10045.4.3.2",
    rsa: "1.2.840.113549.1.1.11",
    size: 32
  },
  "SHA-384": {
    oid: "2.16.840.1.101.3.4.2.2",
    ecdsa: "1.2.840.10045.4.3.3",
    rsa: "1.2.840.113549.1.1.12",
    size: 48
  },
  "SHA-512": { oid: "2.16.840.1.101.3.4.2.3", ecdsa: "1.2.840.10045.4.3.4", rsa: "1.2.840.113549.1.1.13", size: 64 }
}

const curveHash = { "P-256": "SHA-256", "P-384": "SHA-384", "P-521": "SHA-512" } as const

/** The digest, unless the algorithm has one of its own. */
const digest = (algorithm: KeyAlgorithm, { signatureHash }: CertificateProfile): Hash | undefined => {
  switch (algorithm) {
    case "P-256":
    case "P-384":
    case "P-521":
      return signatureHash ?? curveHash[algorithm]
    case "Ed25519":
    case "Ed448":
      return undefined
    case "secp256k1":
      throw new TypeError("expected a key that signs certificates, got one on secp256k1")
    default:
      return signatureHash ?? "SHA-256"
  }
}

/** The AlgorithmIdentifier of what {@link sign} does with the same arguments. */
export const signatureAlgorithm = (algorithm: KeyAlgorithm, profile: CertificateProfile): Uint8Array => {
  const hash = digest(algorithm, profile)
  if (hash === undefined) return sequence(objectIdentifier(algorithm === "Ed25519" ? "1.3.101.112" : "1.3.101.113"))
  const { ecdsa, oid, rsa, size } = hashes[hash]
  if (algorithm in curveHash) return sequence(objectIdentifier(ecdsa))
  if (profile.signaturePadding !== "PSS") return sequence(objectIdentifier(rsa), null_)
  const hashAlgorithm = sequence(objectIdentifier(oid))
  const maskGeneration = sequence(objectIdentifier("1.2.840.113549.1.1.8"), hashAlgorithm)
  const parameters = sequence(tlv(0xa0, hashAlgorithm), tlv(0xa1, maskGeneration), tlv(0xa2, smallInteger(size)))
  return sequence(objectIdentifier("1.2.840.113549.1.1.10"), parameters)
}

export const sign = (keyPair: KeyPair, profile: CertificateProfile, bytes: Uint8Array): Uint8Array => {
  const key = Redacted.value(keyPair.privateKey)
  const hash = digest(keyPair.algorithm, profile)
  if (hash === undefined) return nodeSign(null, bytes, key)
  const pss = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
  const isPss = keyPair.algorithm.startsWith("RSA") && profile.signaturePadding === "PSS"
  return nodeSign(hash, bytes, { key, ...(isPss ? pss : {}) })
}
