/** The authorities of a bundle: which of the certificates given can be used as such. */
import { X509Certificate } from "node:crypto"
import * as Either from "effect/Either"
import type { TrustDomain } from "../../TrustDomain.js"
import type { LeftOut, X509Bundle } from "../../X509Bundle.js"
import { readCertificate } from "../der/certificate.js"
import { sha256, sha256OfSet } from "../digest.js"

/** How many certificates are read before others may run: some milliseconds' worth of the slowest. */
export const readAtOnce = 8

/** Why a certificate cannot be used: both readers an authority will meet must read it, the gate's and OpenSSL's in a TLS context. */
export const unreadable = (authority: Uint8Array): string | undefined => {
  const ours = readCertificate(authority)
  if (Either.isLeft(ours)) return ours.left.message
  return Either.isLeft(Either.try(() => new X509Certificate(authority))) ? "OpenSSL cannot read it" : undefined
}

/** A bundle of certificates that were found readable. */
export const build = (
  trustDomain: TrustDomain,
  authorities: ReadonlyArray<Uint8Array>,
  leftOut: ReadonlyArray<LeftOut>
): X509Bundle => {
  // Copies: what the caller does with its buffers later changes no bundle.
  const byFingerprint = new Map(authorities.map((authority) => [sha256(authority), Uint8Array.from(authority)]))
  return {
    trustDomain,
    authorities: Array.from(byFingerprint.values()),
    generation: sha256OfSet(byFingerprint.keys()),
    ...(leftOut.length === 0 ? undefined : { leftOut })
  }
}

const maxDescribed = 5

/** The entries left out, for people: the first few entries with their problems, and how many more there are. */
export const describeLeftOut = (leftOut: ReadonlyArray<LeftOut>): string => {
  const described = leftOut.slice(0, maxDescribed).map(({ entry, problem }) => `${entry}: ${problem}`)
  const more = leftOut.length - described.length
  return more === 0 ? described.join("; ") : `${described.join("; ")}; and ${more} more`
}
