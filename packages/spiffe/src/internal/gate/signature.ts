import { constants, createPublicKey, type KeyObject, verify } from "node:crypto"
import * as Either from "effect/Either"
import type { Certificate } from "../der/certificate.js"
import * as LruCache from "../lruCache.js"

/** Whether `issuer`'s key made the signature of `certificate`. */
export type SignatureCheck = (certificate: Certificate, issuer: Certificate) => boolean

/** Importing a key takes twice as long as a verification, and few CAs sign many leaves. */
const maxImportedKeys = 64

/** Signatures on certificates of CAs that are remembered. */
const maxVerified = 64

/** A CA's certificate whose signature verified, and the key that made it. */
interface VerifiedSignature {
  readonly certificate: Buffer
  readonly publicKey: Buffer
}

/**
 * Makes a check that keeps the keys it has imported, by their exact bytes. The scheme of a signature must be one for the
 * issuer's kind of key; a key that cannot be imported (a point off its curve) signed nothing. A CA's certificate comes with
 * every leaf below it: that its signature verified is remembered, by the exact bytes of both.
 */
export const makeCheck = (): SignatureCheck => {
  const keys = LruCache.make<KeyObject>(maxImportedKeys)
  const verified = LruCache.make<VerifiedSignature>(maxVerified)

  const publicKeyOf = (certificate: Certificate): KeyObject => {
    const id = certificate.publicKey.toString("latin1")
    const known = keys.get(id)
    if (known !== undefined) return known
    const key = createPublicKey({ key: certificate.publicKey, format: "der", type: "spki" })
    keys.set(id, key)
    return key
  }

  return (certificate, issuer) => {
    const scheme = certificate.signatureAlgorithm.scheme
    if (scheme === undefined || issuer.keyKind._tag !== "Acceptable" || issuer.keyKind.kind !== scheme.keyKind) {
      return false
    }
    const isCa = certificate.extensions.basicConstraints?.ca === true
    const id = isCa ? certificate.signature.toString("latin1") : ""
    const known = isCa ? verified.get(id) : undefined
    if (known?.certificate.equals(certificate.der) === true && known.publicKey.equals(issuer.publicKey)) return true
    const isSigned = Either.getOrElse(
      Either.try(() => {
        const key = publicKeyOf(issuer)
        const saltLength = scheme.pssSaltLength
        const signer = saltLength === undefined ? key : { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength }
        return verify(scheme.digest, certificate.tbs, signer, certificate.signature)
      }),
      () => false
    )
    if (isSigned && isCa) verified.set(id, { certificate: certificate.der, publicKey: issuer.publicKey })
    return isSigned
  }
}
