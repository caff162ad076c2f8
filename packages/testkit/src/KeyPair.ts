/**
 * Key pairs for certificates.
 *
 * @since 0.1.0
 */
import { createHash, generateKeyPair, generateKeyPairSync, type KeyObject } from "node:crypto"
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
 * A key pair; the private key is redacted.
 *
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

interface Pair {
  readonly publicKey: KeyObject
  readonly privateKey: KeyObject
}

const rsa = (bits: number): Effect.Effect<Pair> =>
  Effect.async((resume) => {
    generateKeyPair("rsa", { modulusLength: bits }, (error, publicKey, privateKey) =>
      resume(error === null ? Effect.succeed({ publicKey, privateKey }) : Effect.die(error))
    )
  })

/** An RSA key takes its time, on another thread; the others are there at once. */
const generate = (algorithm: KeyAlgorithm): Effect.Effect<Pair> => {
  switch (algorithm) {
    case "P-256":
    case "P-384":
    case "P-521":
    case "secp256k1":
      return Effect.sync(() => generateKeyPairSync("ec", { namedCurve: algorithm }))
    case "Ed25519":
      return Effect.sync(() => generateKeyPairSync("ed25519"))
    case "Ed448":
      return Effect.sync(() => generateKeyPairSync("ed448"))
    case "RSA-1024":
    case "RSA-2048":
    case "RSA-3072":
    case "RSA-4096":
      return rsa(Number(algorithm.slice(4)))
  }
}

/**
 * Generates a key pair, from the system's randomness.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { CertificateAuthority, KeyPair } from "@agentweave/testkit"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const root = yield* CertificateAuthority.makeRoot({ trustDomain: "example.org" })
 *   const keyPair = yield* KeyPair.make("P-384")
 *   // Two SVIDs of one key.
 *   return yield* Effect.replicateEffect(CertificateAuthority.issue(root, { keyPair }), 2)
 * })
 * ```
 */
export const make = (algorithm: KeyAlgorithm): Effect.Effect<KeyPair> =>
  Effect.map(generate(algorithm), (pair) => {
    const publicKey = Uint8Array.from(pair.publicKey.export({ type: "spki", format: "der" }))
    return {
      algorithm,
      privateKey: Redacted.make(pair.privateKey),
      publicKey,
      identifier: createHash("sha256").update(publicKey).digest("hex").slice(0, 40)
    }
  })
