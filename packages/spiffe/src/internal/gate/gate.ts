import { createHash } from "node:crypto"
import * as Either from "effect/Either"
import * as SpiffeId from "../../SpiffeId.js"
import type { TrustDomain } from "../../TrustDomain.js"
import type { X509Bundle } from "../../X509Bundle.js"
import type { X509BundleSet } from "../../X509BundleSet.js"
import { type Certificate, readCertificate } from "../der/certificate.js"
import { sha256 } from "../digest.js"
import type { Anchors } from "./anchors.js"
import { firstRefusal, type Refusal } from "./guard.js"
import { claimedId, leafGuards, namesLimit, type Purpose } from "./leafGuards.js"
import { makeNameCheck } from "./pathGuards.js"
import { findPath } from "./pathSearch.js"
import type { SignatureCheck } from "./signature.js"

/** The inputs of a judgement on a chain; the matcher is not part of it. */
export interface GateInput {
  readonly chain: ReadonlyArray<Uint8Array>
  readonly bundles: X509BundleSet
  readonly purpose: Purpose
  readonly now: number
}

/** A peer whose chain was verified, and until when that holds: what may be remembered. */
export interface Verdict {
  readonly spiffeId: SpiffeId.SpiffeId
  readonly trustDomain: TrustDomain
  /** The leaf's. */
  readonly serialNumber: string
  readonly fingerprint: string
  /** Latest notBefore and earliest notAfter of the path. */
  readonly notBefore: number
  readonly notAfter: number
  readonly bundleGeneration: string
  /** Digest of the anchors it was verified against. */
  readonly anchors: string
  /** DER of the CAs on the path, without the anchor. */
  readonly issuers: ReadonlyArray<Uint8Array>
}

/** A refusal with the SPIFFE ID the leaf claims, once it is known. */
export interface Rejection {
  readonly refusal: Refusal
  readonly claimed: SpiffeId.SpiffeId | null
}

/** A digest of all that a peer sent, each certificate told apart from its neighbours, and of what it was sent for. */
export const chainKey = (chain: ReadonlyArray<Uint8Array>, purpose: Purpose): string => {
  const hash = createHash("sha256").update(purpose)
  for (const certificate of chain) hash.update(`:${certificate.length}:`).update(certificate)
  return hash.digest("base64")
}

/** The issuer that a leaf names: two leaves of one CA say the same (RFC 5280 section 4.2.1.1). */
export const issuerKey = (leaf: Uint8Array): string | undefined =>
  Either.match(readCertificate(leaf), {
    onLeft: () => undefined,
    onRight: ({ extensions, issuer }) => `${extensions.authorityKeyIdentifier ?? ""} ${issuer}`
  })

const reject = (refusal: Refusal, claimed: SpiffeId.SpiffeId | null): Either.Either<never, Rejection> =>
  Either.left({ refusal, claimed })

/** The bundle of a trust domain, if the set holds one that is really that domain's. */
export const bundleOf = (set: X509BundleSet, trustDomain: TrustDomain): X509Bundle | undefined => {
  const bundle = set.bundles.get(trustDomain)
  return bundle?.trustDomain === trustDomain ? bundle : undefined
}

/** The certificates after the leaf that can be used, and why the first of the others cannot. */
export interface Candidates {
  readonly usable: ReadonlyArray<Certificate>
  readonly leftOut: Refusal | undefined
}

const readCandidate = (der: Uint8Array, position: number): Either.Either<Certificate, Refusal> =>
  readCertificate(der).pipe(
    Either.mapLeft(
      (error): Refusal => ({
        rule: "ca-readable",
        reason: "InvalidChain",
        expected: `certificate ${position} after the leaf to be strict DER`,
        seen: error.message
      })
    ),
    Either.flatMap((certificate) => {
      const refusal = firstRefusal([namesLimit], certificate)
      return refusal === undefined ? Either.right(certificate) : Either.left(refusal)
    })
  )

/** Certificates that a peer sends besides its leaf are offered, not asked for: one that cannot be used is as good as not sent. */
export const readCandidates = (chain: ReadonlyArray<Uint8Array>): Candidates => {
  const read = chain.map((der, index) => readCandidate(der, index + 1))
  return {
    usable: read.flatMap((candidate) => (Either.isRight(candidate) ? [candidate.right] : [])),
    leftOut: read.flatMap((candidate) => (Either.isLeft(candidate) ? [candidate.left] : []))[0]
  }
}

/** Where no path was found, a certificate that was left out is the likelier cause. */
export const nearestCause = (refusal: Refusal, { leftOut }: Candidates): Refusal =>
  refusal.reason === "UntrustedChain" && leftOut !== undefined ? leftOut : refusal

/** The caches of one verifier, kept between peers: bundles read and keys imported. */
export interface Tools {
  readonly anchorsOf: (bundle: X509Bundle) => Anchors
  readonly isSignedBy: SignatureCheck
}

/** Everything but the matcher: from the bytes a peer sent to the identity it proved. */
export const verifyUncached = (
  input: GateInput,
  { anchorsOf, isSignedBy }: Tools
): Either.Either<Verdict, Rejection> => {
  const { chain, now, purpose } = input
  const [leafDer, ...others] = chain
  const read = leafDer === undefined ? undefined : readCertificate(leafDer)
  if (read === undefined || Either.isLeft(read)) {
    const seen = read === undefined ? "none" : read.left.message
    return reject({ rule: "leaf-readable", reason: "InvalidLeaf", expected: "a leaf in strict DER", seen }, null)
  }
  const leaf = read.right
  const spiffeId = claimedId(leaf)
  const profile = firstRefusal(leafGuards, { certificate: leaf, purposes: [purpose] })
  if (profile !== undefined) return reject(profile, spiffeId ?? null)
  // The guards have just seen one ID; this is for the compiler, and fails closed.
  if (spiffeId === undefined) {
    return reject({ rule: "leaf-spiffe-id", reason: "InvalidSpiffeId", expected: "a SPIFFE ID", seen: "none" }, null)
  }
  const trustDomain = SpiffeId.trustDomain(spiffeId)
  const bundle = bundleOf(input.bundles, trustDomain)
  if (bundle === undefined) {
    const seen = Array.from(input.bundles.bundles.keys()).slice(0, 20).join(", ") || "no bundle at all"
    return reject({ rule: "bundle", reason: "NoBundle", expected: `a bundle of ${trustDomain}`, seen }, spiffeId)
  }
  const candidates = readCandidates(others)
  const anchors = anchorsOf(bundle)
  const rules = { trustDomain, purpose, now, names: makeNameCheck() }
  const { outcome } = findPath({ leaf, candidates: candidates.usable, anchors, rules, isSignedBy })
  if (Either.isLeft(outcome)) return reject(nearestCause(outcome.left, candidates), spiffeId)
  return Either.right({
    spiffeId,
    trustDomain,
    serialNumber: leaf.serialNumber,
    fingerprint: sha256(leaf.der),
    notBefore: Math.max(...outcome.right.map((certificate) => certificate.notBefore)),
    notAfter: Math.min(...outcome.right.map((certificate) => certificate.notAfter)),
    bundleGeneration: bundle.generation,
    anchors: anchors.digest,
    issuers: outcome.right.slice(1, -1).map((certificate) => certificate.der)
  })
}
