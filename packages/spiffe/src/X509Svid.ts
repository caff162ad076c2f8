/**
 * X.509-SVIDs: a workload's certificate chain and private key.
 *
 * @since 0.1.0
 */
import { createPrivateKey, createPublicKey, type KeyObject, X509Certificate } from "node:crypto"
import * as Either from "effect/Either"
import * as Inspectable from "effect/Inspectable"
import * as Redacted from "effect/Redacted"
import * as Certificates from "./Certificate.js"
import { IdentityError, type IdentityErrorReason } from "./IdentityError.js"
import { type Certificate, readCertificate, splitCertificates } from "./internal/der/certificate.js"
import * as der from "./internal/der/der.js"
import * as pem from "./internal/der/pem.js"
import { sha256 } from "./internal/digest.js"
import { describeRefusal, firstRefusal } from "./internal/gate/guard.js"
import { claimedId, leafGuards } from "./internal/gate/leafGuards.js"
import { sizeRefusal } from "./internal/gate/sizeGuards.js"
import { isoDate } from "./internal/isoDate.js"
import { exactly } from "./PeerMatcher.js"
import type { PeerVerificationReason } from "./PeerVerificationError.js"
import type { PeerVerifier, Purpose } from "./PeerVerifier.js"
import type { SpiffeId } from "./SpiffeId.js"
import type { X509BundleSet } from "./X509BundleSet.js"

/**
 * An X.509-SVID with its private key: checked at construction, immutable, and printed without its key in every form.
 *
 * @since 0.1.0
 * @category models
 */
export interface X509Svid {
  readonly spiffeId: SpiffeId
  /** DER, the leaf first, then the intermediates in order. */
  readonly certificates: readonly [leaf: Uint8Array, ...intermediates: ReadonlyArray<Uint8Array>]
  readonly privateKey: Redacted.Redacted<KeyObject>
  /** The leaf's serial number, upper-case hex. */
  readonly serialNumber: string
  /** SHA-256 of the leaf's DER, lower-case hex. */
  readonly fingerprint: string
  /** Latest notBefore and earliest notAfter over the leaf and its intermediates, milliseconds since the epoch. */
  readonly notBefore: number
  readonly notAfter: number
  /** The operator's hint from the Workload API, for choosing between several SVIDs. */
  readonly hint: string | undefined
}

const refuse = (reason: IdentityErrorReason, description: string): Either.Either<never, IdentityError> =>
  Either.left(new IdentityError({ reason, description }))

/** The form for `toString`, `JSON.stringify`, `util.inspect` and Effect's formatting: no key, and certificates by number. */
const Proto: Inspectable.Inspectable & ThisType<X509Svid> = {
  ...Inspectable.BaseProto,
  toJSON() {
    return {
      _id: "@agentweave/spiffe/X509Svid",
      spiffeId: this.spiffeId,
      serialNumber: this.serialNumber,
      fingerprint: this.fingerprint,
      notBefore: isoDate(this.notBefore),
      notAfter: isoDate(this.notAfter),
      certificates: this.certificates.length,
      hint: this.hint,
      privateKey: "<redacted>"
    }
  }
}

const unwrap = <A>(secret: A | Redacted.Redacted<A>): A =>
  Redacted.isRedacted(secret) ? Redacted.value(secret) : secret

const readChain = (
  certificates: ReadonlyArray<Uint8Array>
): Either.Either<readonly [Certificate, ...ReadonlyArray<Certificate>], IdentityError> => {
  const chain: Array<Certificate> = []
  for (const [index, bytes] of certificates.entries()) {
    const certificate = readCertificate(bytes)
    if (Either.isLeft(certificate)) return refuse("Malformed", `certificate ${index + 1}: ${certificate.left.message}`)
    if (Either.isLeft(Either.try(() => new X509Certificate(bytes)))) {
      return refuse("Malformed", `certificate ${index + 1}: OpenSSL cannot read it`)
    }
    chain.push(certificate.right)
  }
  const [leaf, ...intermediates] = chain
  return leaf === undefined
    ? refuse("Malformed", "expected a certificate, got none")
    : Either.right([leaf, ...intermediates])
}

/**
 * Compares encodings: `KeyObject.equals` of two kinds of key leaves an error in OpenSSL's queue, on which the next reading
 * of a good private key fails (Node 20.20).
 */
const isKeyOf = (privateKey: KeyObject, leaf: Certificate): boolean =>
  Either.getOrElse(
    Either.try(() => createPublicKey(privateKey).export({ format: "der", type: "spki" }).equals(leaf.publicKey)),
    () => false
  )

const build = (
  certificates: ReadonlyArray<Uint8Array>,
  privateKey: KeyObject,
  hint: string | undefined
): Either.Either<X509Svid, IdentityError> => {
  const chain = readChain(certificates)
  if (Either.isLeft(chain)) return Either.left(chain.left)
  const [leaf, ...intermediates] = chain.right
  const refusal = sizeRefusal(certificates) ?? firstRefusal(leafGuards, { certificate: leaf, purposes: [] })
  if (refusal !== undefined) return refuse("InvalidSvid", describeRefusal(refusal))
  const spiffeId = claimedId(leaf)
  if (spiffeId === undefined) return refuse("InvalidSvid", "expected exactly one SPIFFE ID, got none")
  if (!isKeyOf(privateKey, leaf)) {
    return refuse("Malformed", "expected the private key of the leaf, got the key of another certificate")
  }

  const fields: X509Svid = {
    spiffeId,
    // Copies: what the caller does with its buffers later changes no SVID.
    certificates: [Uint8Array.from(leaf.der), ...intermediates.map((certificate) => Uint8Array.from(certificate.der))],
    privateKey: Redacted.make(privateKey),
    serialNumber: leaf.serialNumber,
    fingerprint: sha256(leaf.der),
    notBefore: Math.max(...chain.right.map((certificate) => certificate.notBefore)),
    notAfter: Math.min(...chain.right.map((certificate) => certificate.notAfter)),
    hint
  }
  const svid: X509Svid = Object.assign(Object.create(Proto), fields)
  return Either.right(svid)
}

/** OpenSSL's reason is not passed on: nothing that was near a key is printed. */
const unreadableKey = (): IdentityError =>
  new IdentityError({ reason: "Malformed", description: "the private key cannot be read" })

const keyLabels: ReadonlySet<string> = new Set(["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"])

const keyFromPem = (text: string): Either.Either<KeyObject, IdentityError> => {
  const blocks = pem.parse(text)
  if (Either.isLeft(blocks)) return refuse("Malformed", `private key: ${blocks.left}`)
  const keys = blocks.right.filter((block) => keyLabels.has(block.label))
  const [key, ...others] = keys
  if (key === undefined || others.length > 0) {
    return refuse("Malformed", `expected one private key that is not encrypted, got ${keys.length}`)
  }
  return Either.try({ try: () => createPrivateKey(pem.encode(key.label, key.bytes)), catch: unreadableKey })
}

const keyFromDer = (bytes: Uint8Array): Either.Either<KeyObject, IdentityError> =>
  Either.try({
    try: () => {
      const whole = der.over(bytes)
      const key = der.raw(der.read(whole, der.tags.sequence, "private key"))
      der.finish(whole, "private key")
      return createPrivateKey({ key, format: "der", type: "pkcs8" })
    },
    catch: unreadableKey
  })

/**
 * An SVID from PEM: the leaf first, then its intermediates, and the leaf's private key (PKCS#8, SEC1 or PKCS#1, not
 * encrypted). Key blocks among the certificates are passed over, so that one file may hold both.
 *
 * Fails with `IdentityError`: `Malformed` when something cannot be read or the key is not the leaf's, `InvalidSvid` when
 * the leaf breaks the X.509-SVID profile or the chain is larger than a peer reads. Dates and trust are judged later, by {@link validate}.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { X509Svid } from "@agentweave/spiffe"
 * import { Either } from "effect"
 *
 * const svid = X509Svid.fromPem({ certificates: "", privateKey: "" })
 * console.log(Either.isLeft(svid)) // true
 * ```
 */
export const fromPem = (options: {
  readonly certificates: string
  readonly privateKey: string | Redacted.Redacted<string>
  readonly hint?: string | undefined
}): Either.Either<X509Svid, IdentityError> => {
  const blocks = pem.parse(options.certificates)
  if (Either.isLeft(blocks)) return refuse("Malformed", `certificates: ${blocks.left}`)
  const certificates = blocks.right.filter((block) => !keyLabels.has(block.label) && block.label !== "EC PARAMETERS")
  const other = certificates.find((block) => block.label !== "CERTIFICATE")
  if (other !== undefined) return refuse("Malformed", `expected CERTIFICATE blocks, got ${other.label}`)
  return Either.flatMap(keyFromPem(unwrap(options.privateKey)), (key) =>
    build(
      certificates.map((block) => block.bytes),
      key,
      options.hint
    )
  )
}

/**
 * An SVID from DER: the certificates one an array element or concatenated as the Workload API sends them, the leaf first,
 * and the private key as PKCS#8. Refused as {@link fromPem} refuses.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { X509Svid } from "@agentweave/spiffe"
 * import { Either, type Redacted } from "effect"
 *
 * const idOf = (leaf: Uint8Array, intermediate: Uint8Array, privateKey: Redacted.Redacted<Uint8Array>) =>
 *   Either.map(X509Svid.fromDer({ certificates: [leaf, intermediate], privateKey }), ({ spiffeId }) => spiffeId)
 * ```
 */
export const fromDer = (options: {
  readonly certificates: Uint8Array | ReadonlyArray<Uint8Array>
  readonly privateKey: Uint8Array | Redacted.Redacted<Uint8Array>
  readonly hint?: string | undefined
}): Either.Either<X509Svid, IdentityError> => {
  const certificates =
    options.certificates instanceof Uint8Array
      ? splitCertificates(options.certificates)
      : Either.right(options.certificates)
  if (Either.isLeft(certificates)) return refuse("Malformed", `certificates: ${certificates.left.message}`)
  return Either.flatMap(keyFromDer(unwrap(options.privateKey)), (key) => build(certificates.right, key, options.hint))
}

/**
 * The chain as PEM, the leaf first: what a TLS context takes as `cert`.
 *
 * @since 0.1.0
 * @category conversions
 */
export const certificatesPem = (self: X509Svid): string =>
  self.certificates.map((certificate) => pem.encode("CERTIFICATE", certificate)).join("")

/**
 * The private key as PKCS#8 PEM, redacted.
 *
 * @since 0.1.0
 * @category conversions
 */
export const privateKeyPem = (self: X509Svid): Redacted.Redacted<string> =>
  Redacted.make(Redacted.value(self.privateKey).export({ format: "pem", type: "pkcs8" }).toString())

const ownReason = (reason: PeerVerificationReason): IdentityErrorReason =>
  reason === "Expired" || reason === "NotYetValid" ? reason : "InvalidSvid"

/**
 * The bundles, the instant and the roles an SVID is validated for.
 *
 * @since 0.1.0
 * @category models
 */
export interface ValidateOptions {
  readonly bundles: X509BundleSet
  /** Milliseconds since the epoch, from Effect's Clock. */
  readonly now: number
  readonly verifier: PeerVerifier
  /** The roles it is to be used in. Default both. */
  readonly purposes?: readonly [Purpose, ...ReadonlyArray<Purpose>] | undefined
}

/**
 * Passes an SVID through the gate its peers will put it through: trust, dates and profile, for each purpose it will serve
 * (both unless told). Fails with `IdentityError` `Expired`, `NotYetValid`, or `InvalidSvid` for every other refusal.
 *
 * @since 0.1.0
 * @category operations
 */
export const validate = (self: X509Svid, options: ValidateOptions): Either.Either<X509Svid, IdentityError> =>
  Either.map(validUntil(self, options), () => self)

/**
 * {@link validate}, and until when that holds as long as the bundles are the same: the earliest notAfter of the path,
 * milliseconds since the epoch.
 *
 * @since 0.1.0
 * @category operations
 */
export const validUntil = (self: X509Svid, options: ValidateOptions): Either.Either<number, IdentityError> => {
  const { bundles, now, purposes = ["ServerAuth", "ClientAuth"], verifier } = options
  let until = Number.POSITIVE_INFINITY
  for (const purpose of purposes) {
    const matcher = exactly(self.spiffeId)
    const result = verifier.verify({ chain: self.certificates, bundles, matcher, purpose, now })
    if (Either.isLeft(result)) {
      return refuse(ownReason(result.left.reason), `own SVID ${self.spiffeId}: ${result.left.description}`)
    }
    until = Math.min(until, result.right.notAfter)
  }
  return Either.right(until)
}

/**
 * The chain for people to look at, the leaf first: see {@link Certificates}.
 *
 * @since 0.1.0
 * @category conversions
 */
export const x509Certificates = (
  self: X509Svid
): Either.Either<ReadonlyArray<Certificates.X509Certificate>, IdentityError> => Certificates.fromDers(self.certificates)
