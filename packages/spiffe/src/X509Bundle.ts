/**
 * X.509 bundles: the trust anchors of one trust domain.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Certificate from "./Certificate.js"
import { IdentityError } from "./IdentityError.js"
import * as authorities from "./internal/bundle/authorities.js"
import { readCertificate, splitCertificates } from "./internal/der/certificate.js"
import * as pem from "./internal/der/pem.js"
import * as pieces from "./internal/pieces.js"
import type { TrustDomain } from "./TrustDomain.js"

/**
 * An entry that cannot be used as an authority.
 *
 * @since 0.1.0
 * @category models
 */
export interface LeftOut {
  /** Which one: `certificate 2`, or `keys[1]` of a bundle document. */
  readonly entry: string
  /** The reason why the certificate cannot be used. */
  readonly problem: string
}

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
  /** Certificates that were delivered and cannot be used; absent when nothing was left out. See {@link describeLeftOut}. */
  readonly leftOut?: ReadonlyArray<LeftOut> | undefined
}

const malformed = (trustDomain: TrustDomain, problem: string): IdentityError =>
  new IdentityError({ reason: "Malformed", description: `bundle of ${trustDomain}: ${problem}` })

type Read = Either.Either<X509Bundle, IdentityError>

/** Reads certificates in steps. */
function* readCertificates(trustDomain: TrustDomain, certificates: ReadonlyArray<Uint8Array>): pieces.Pieces<Read> {
  if (certificates.length === 0) return Either.left(malformed(trustDomain, "expected a certificate, got none"))
  const usable: Array<Uint8Array> = []
  const leftOut: Array<LeftOut> = []
  for (const [index, certificate] of certificates.entries()) {
    if (index % authorities.readAtOnce === authorities.readAtOnce - 1) yield
    const problem = authorities.unreadable(certificate)
    if (problem === undefined) usable.push(certificate)
    else leftOut.push({ entry: `certificate ${index + 1}`, problem })
  }
  return usable.length === 0
    ? Either.left(malformed(trustDomain, authorities.describeLeftOut(leftOut)))
    : Either.right(authorities.build(trustDomain, usable, leftOut))
}

const fromCertificates = (trustDomain: TrustDomain, certificates: ReadonlyArray<Uint8Array>): Read =>
  pieces.runAtOnce(readCertificates(trustDomain, certificates))

/** Reads PEM in steps. */
function* readPem(trustDomain: TrustDomain, text: string): pieces.Pieces<Read> {
  const blocks = yield* pem.read(text)
  if (Either.isLeft(blocks)) return Either.left(malformed(trustDomain, blocks.left))
  const other = blocks.right.find(({ label }) => label !== "CERTIFICATE")
  if (other !== undefined) {
    return Either.left(malformed(trustDomain, `expected CERTIFICATE blocks only, got ${other.label}`))
  }
  const certificates = blocks.right.map(({ bytes }) => bytes)
  return yield* readCertificates(trustDomain, certificates)
}

/**
 * The certificates a bundle left out, for people; `undefined` when it left out nothing.
 *
 * @since 0.1.0
 * @category getters
 */
export const describeLeftOut = ({ leftOut = [], trustDomain }: X509Bundle): string | undefined =>
  leftOut.length === 0
    ? undefined
    : `bundle of ${trustDomain}, of which the other authorities serve: ${authorities.describeLeftOut(leftOut)}`

/**
 * A bundle without authorities: it trusts nobody, which is not the same as having no bundle.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { TrustDomain, X509Bundle, X509BundleSet } from "@agentweave/spiffe"
 *
 * // Every peer of this domain is refused until its first bundle has come.
 * const bundles = X509BundleSet.of(X509Bundle.empty(TrustDomain.make("partner.example")))
 * ```
 */
export const empty = (trustDomain: TrustDomain): X509Bundle => authorities.build(trustDomain, [], [])

/**
 * A bundle from PEM. A certificate that cannot be read is left out, and the bundle names it in `leftOut`: it never has
 * silently fewer authorities. A text whose blocks are broken, as those of a file cut short, one with blocks of another kind,
 * and one without any certificate that can be read are `IdentityError` `Malformed`. Duplicates are removed.
 *
 * It reads the text in one piece: for large ones see {@link decodePem}.
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
  pieces.runAtOnce(readPem(trustDomain, text))

/**
 * {@link fromPem} in small pieces, between which other fibers and the event loop run: for texts from elsewhere, which may be
 * large.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { TrustDomain, X509Bundle } from "@agentweave/spiffe"
 * import { Effect } from "effect"
 *
 * const authorities = (text: string) =>
 *   X509Bundle.decodePem(TrustDomain.make("partner.example"), text).pipe(
 *     Effect.tap(({ leftOut = [] }) => Effect.forEach(leftOut, ({ entry, problem }) => Effect.logWarning(entry, problem)))
 *   )
 * ```
 */
export const decodePem = (trustDomain: TrustDomain, text: string): Effect.Effect<X509Bundle, IdentityError> =>
  Effect.flatten(pieces.runInTurns(() => readPem(trustDomain, text)))

/**
 * A bundle from DER: one certificate an array element, or all concatenated as the Workload API sends them. Refused as
 * {@link fromPem} refuses.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { TrustDomain, X509Bundle } from "@agentweave/spiffe"
 * import { Either } from "effect"
 *
 * const count = (authorities: ReadonlyArray<Uint8Array>) =>
 *   Either.map(X509Bundle.fromDer(TrustDomain.make("example.org"), authorities), (bundle) => bundle.authorities.length)
 * ```
 */
export const fromDer = (
  trustDomain: TrustDomain,
  der: Uint8Array | ReadonlyArray<Uint8Array>
): Either.Either<X509Bundle, IdentityError> =>
  der instanceof Uint8Array
    ? splitCertificates(der).pipe(
        Either.mapLeft((error) => malformed(trustDomain, error.message)),
        Either.flatMap((certificates) => fromCertificates(trustDomain, certificates))
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

/**
 * The authorities for people to look at, in their order: see {@link Certificate}.
 *
 * @since 0.1.0
 * @category conversions
 */
export const x509Certificates = (
  self: X509Bundle
): Either.Either<ReadonlyArray<Certificate.X509Certificate>, IdentityError> => Certificate.fromDers(self.authorities)
