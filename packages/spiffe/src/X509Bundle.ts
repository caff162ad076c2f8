/**
 * X.509 bundles: the trust anchors of one trust domain.
 *
 * @since 0.1.0
 */
import { X509Certificate } from "node:crypto"
import * as Either from "effect/Either"
import { IdentityError } from "./IdentityError.js"
import { readCertificate, splitCertificates } from "./internal/certificate.js"
import { sha256, sha256OfSet } from "./internal/digest.js"
import * as pem from "./internal/pem.js"
import type { TrustDomain } from "./TrustDomain.js"

/**
 * The X.509 authorities of one trust domain. Every certificate parsed; an empty bundle is legal and trusts nobody.
 *
 * @since 0.1.0
 * @category models
 */
export interface X509Bundle {
  readonly trustDomain: TrustDomain
  /** DER of each authority. */
  readonly authorities: ReadonlyArray<Uint8Array>
  /** SHA-256 over the authorities, lower-case hex: the bundle's generation. Equal content has an equal generation. */
  readonly generation: string
}

const malformed = (trustDomain: TrustDomain, problem: string): IdentityError =>
  new IdentityError({ reason: "Malformed", description: `bundle of ${trustDomain}: ${problem}` })

const build = (trustDomain: TrustDomain, authorities: ReadonlyArray<Uint8Array>): X509Bundle => {
  // Copies: what the caller does with its buffers later changes no bundle.
  const byFingerprint = new Map(authorities.map((authority) => [sha256(authority), Uint8Array.from(authority)]))
  return {
    trustDomain,
    authorities: Array.from(byFingerprint.values()),
    generation: sha256OfSet(byFingerprint.keys())
  }
}

/** Both readers an authority will meet must be able to read it: the gate's, and OpenSSL's behind a TLS context. */
const unreadable = (authority: Uint8Array): string | undefined => {
  const ours = readCertificate(authority)
  if (Either.isLeft(ours)) return ours.left.message
  return Either.isLeft(Either.try(() => new X509Certificate(authority))) ? "OpenSSL cannot read it" : undefined
}

const fromCertificates = (
  trustDomain: TrustDomain,
  authorities: ReadonlyArray<Uint8Array>
): Either.Either<X509Bundle, IdentityError> => {
  if (authorities.length === 0) return Either.left(malformed(trustDomain, "expected a certificate, got none"))
  for (const [index, authority] of authorities.entries()) {
    const problem = unreadable(authority)
    if (problem !== undefined) return Either.left(malformed(trustDomain, `certificate ${index + 1}: ${problem}`))
  }
  return Either.right(build(trustDomain, authorities))
}

/**
 * A bundle without authorities: it trusts nobody, which is not the same as having no bundle.
 *
 * @since 0.1.0
 * @category constructors
 */
export const empty = (trustDomain: TrustDomain): X509Bundle => build(trustDomain, [])

/**
 * A bundle from PEM. Every block must be a certificate that can be read: one bad entry refuses the bundle with
 * `IdentityError` `Malformed`, it never leaves silently fewer authorities; so does a text without any certificate.
 * Duplicates are removed.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { TrustDomain, X509Bundle } from "@agentweave/spiffe"
 * import { Either } from "effect"
 *
 * const bundle = X509Bundle.fromPem(TrustDomain.make("example.org"), "not a bundle")
 * console.log(Either.isLeft(bundle)) // true
 * ```
 */
export const fromPem = (trustDomain: TrustDomain, text: string): Either.Either<X509Bundle, IdentityError> =>
  pem.parse(text).pipe(
    Either.mapLeft((problem) => malformed(trustDomain, problem)),
    Either.flatMap((blocks) => {
      const other = blocks.find((block) => block.label !== "CERTIFICATE")
      return other === undefined
        ? fromCertificates(
            trustDomain,
            blocks.map((block) => block.bytes)
          )
        : Either.left(malformed(trustDomain, `expected CERTIFICATE blocks only, got ${other.label}`))
    })
  )

/**
 * A bundle from DER: one certificate an array element, or all concatenated as the Workload API sends them. Refused as
 * {@link fromPem} refuses.
 *
 * @since 0.1.0
 * @category constructors
 */
export const fromDer = (
  trustDomain: TrustDomain,
  der: Uint8Array | ReadonlyArray<Uint8Array>
): Either.Either<X509Bundle, IdentityError> =>
  der instanceof Uint8Array
    ? splitCertificates(der).pipe(
        Either.mapLeft((error) => malformed(trustDomain, error.message)),
        Either.flatMap((authorities) => fromCertificates(trustDomain, authorities))
      )
    : fromCertificates(trustDomain, der)

/**
 * The authorities as PEM, in their order; empty for an empty bundle.
 *
 * @since 0.1.0
 * @category conversions
 */
export const toPem = (self: X509Bundle): string =>
  self.authorities.map((authority) => pem.encode("CERTIFICATE", authority)).join("")

/**
 * How many bytes the subject names of all authorities take in DER. A TLS server sends them to every client it asks for a
 * certificate, where they have to share 65,535 bytes with those of other trust domains (RFC 8446 section 4.2.4).
 *
 * @since 0.1.0
 * @category getters
 */
export const subjectsLength = (self: X509Bundle): number => {
  let length = 0
  for (const authority of self.authorities) {
    const certificate = readCertificate(authority)
    if (Either.isRight(certificate)) length += certificate.right.subject.length
  }
  return length
}
