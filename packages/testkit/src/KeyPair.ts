/**
 * Key pairs for certificates.
 *
 * @since 0.1.0
 */
import { createHash, generateKeyPair, type KeyObject } from "node:crypto"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"

/**
 * The keys a certificate can be minted for. `RSA-1024`, `Ed448` and `secp256k1` are here to be refused, and the last of
 * them cannot sign certificates.
 *
 * @since 0.1.0
 * @category models
 */
export type KeyAlgorithm =
  | "P-256"
  | "P-384"
  | "P-521"
  | "Ed25519"
  | "Ed448"
  | "secp256k1"
  | "RSA-1024"
  | "RSA-2048"
  | "RSA-3072"
  | "RSA-4096"

/**
 * @since 0.1.0
 * @category models
 */
export interface KeyPair {
  readonly algorithm: KeyAlgorithm
  readonly privateKey: Redacted.Redacted<KeyObject>
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array
  /** The key identifier used in certificates: 160 bits of SHA-256 over the public key (RFC 7093 section 2), hex. */
  readonly identifier: string
}

const generate = (algorithm: KeyAlgorithm, done: (error: Error | null, pub: KeyObject, priv: KeyObject) => void) => {
  switch (algorithm) {
    case "P-256":
    case "P-384":
    case "P-521":
    case "secp256k1":
      return generateKeyPair("ec", { namedCurve: algorithm }, done)
    case "Ed25519":
      return generateKeyPair("ed25519", {}, done)
    case "Ed448":
      return generateKeyPair("ed448", {}, done)
    case "RSA-1024":
    case "RSA-2048":
    case "RSA-3072":
    case "RSA-4096":
      return generateKeyPair("rsa", { modulusLength: Number(algorithm.slice(4)) }, done)
  }
}

/**
 * Generates a key pair, from the system's randomness.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (algorithm: KeyAlgorithm): Effect.Effect<KeyPair> =>
  Effect.async<KeyPair>((resume) => {
    generate(algorithm, (error, pub, priv) => {
      if (error !== null) return resume(Effect.die(error))
      const publicKey = Uint8Array.from(pub.export({ type: "spki", format: "der" }))
      resume(
        Effect.succeed({
          algorithm,
          privateKey: Redacted.make(priv),
          publicKey,
          identifier: createHash("sha256").update(publicKey).digest("hex").slice(0, 40)
        })
      )
    })
  })
