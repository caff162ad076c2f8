import * as Either from "effect/Either"
import type { X509Bundle } from "../../X509Bundle.js"
import { type Certificate, readCertificate } from "../der/certificate.js"
import { sha256, sha256OfSet } from "../digest.js"

/** A bundle, read. */
export interface Anchors {
  readonly bySubject: ReadonlyMap<string, ReadonlyArray<Certificate>>
  readonly count: number
  /** Computed from the authorities themselves: what a cached success is tied to. */
  readonly digest: string
}

const read = (bundle: X509Bundle): Anchors => {
  const bySubject = new Map<string, Array<Certificate>>()
  for (const authority of bundle.authorities) {
    const certificate = Either.getOrThrowWith(readCertificate(authority), (error) => error)
    const named = bySubject.get(certificate.subject)
    if (named === undefined) bySubject.set(certificate.subject, [certificate])
    else named.push(certificate)
  }
  return { bySubject, count: bundle.authorities.length, digest: sha256OfSet(bundle.authorities.map(sha256)) }
}

/**
 * Reads each bundle once, for as long as the bundle itself lives. Bundles that were made by hand instead of by
 * `X509Bundle` may hold what cannot be read: that is thrown, never skipped.
 */
export const makeReader = (): ((bundle: X509Bundle) => Anchors) => {
  const known = new WeakMap<X509Bundle, Anchors>()
  return (bundle) => {
    const anchors = known.get(bundle) ?? read(bundle)
    known.set(bundle, anchors)
    return anchors
  }
}
