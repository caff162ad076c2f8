import * as Either from "effect/Either"
import type { Certificate } from "../der/certificate.js"
import type { Anchors } from "./anchors.js"
import { firstRefusal, type Refusal } from "./guard.js"
import { anchorStrengthGuards, type Path, type PathRules, strengthGuards, validatePath } from "./pathGuards.js"
import type { SignatureCheck } from "./signature.js"

/** Links from a leaf to its anchor. */
export const maxDepth = 6

/** Signatures verified for one peer, whatever it sends. */
export const maxSignatureChecks = 32

export interface Search {
  readonly outcome: Either.Either<Path, Refusal>
  readonly signatureChecks: number
}

/** RFC 5280 section 4.2.1.1: a key identifier tells apart issuers of one name; who states none is not ruled out. */
const identifierFit = (child: Certificate, issuer: Certificate): "Equal" | "Unknown" | "Different" => {
  const wanted = child.extensions.authorityKeyIdentifier
  const given = issuer.extensions.subjectKeyIdentifier
  return wanted === undefined || given === undefined ? "Unknown" : wanted === given ? "Equal" : "Different"
}

/** The possible issuers of a certificate, by name and key identifier, the likeliest first. */
const possibleIssuers = (child: Certificate, named: ReadonlyArray<Certificate>): ReadonlyArray<Certificate> => [
  ...named.filter((issuer) => identifierFit(child, issuer) === "Equal"),
  ...named.filter((issuer) => identifierFit(child, issuer) === "Unknown")
]

/** One CA under several certificates is one CA: coming back to it is a loop. */
const isSameAuthority = (a: Certificate, b: Certificate): boolean =>
  a.subject === b.subject && a.publicKey.equals(b.publicKey)

/** How near to a success a refusal was; the nearest is the one to report. */
const nearness = (refusal: Refusal): number => {
  switch (refusal.reason) {
    case "Expired":
    case "NotYetValid":
      return 3
    case "InvalidChain":
      return 2
    default:
      return 1
  }
}

const tooDeep: Refusal = {
  rule: "depth-limit",
  reason: "LimitExceeded",
  expected: `at most ${maxDepth} certificates above the leaf`,
  seen: "more"
}

const tooManyChecks: Refusal = {
  rule: "signature-limit",
  reason: "LimitExceeded",
  expected: `a path found within ${maxSignatureChecks} signature checks`,
  seen: "none"
}

/**
 * Looks for a path from a leaf to an anchor: every candidate is tried, the anchors first, until one path passes all
 * guards or the checks are used up. A link needs the issuer's name, key identifiers that do not contradict, and a
 * signature that verifies; only a path that is complete is judged further.
 */
export const findPath = (input: {
  readonly leaf: Certificate
  /** The other certificates the peer sent: in any order, and not trusted. */
  readonly candidates: ReadonlyArray<Certificate>
  readonly anchors: Anchors
  readonly rules: PathRules
  readonly isSignedBy: SignatureCheck
}): Search => {
  const { anchors, candidates, isSignedBy, leaf, rules } = input
  let signatureChecks = 0
  let nearest: Refusal | undefined

  const note = (refusal: Refusal): void => {
    if (nearest === undefined || nearness(refusal) > nearness(nearest)) nearest = refusal
  }

  const isLinked = (child: Certificate, issuer: Certificate, strength: typeof strengthGuards): boolean => {
    const weakness = firstRefusal(strength, issuer)
    if (weakness !== undefined) {
      note(weakness)
      return false
    }
    if (signatureChecks === maxSignatureChecks) {
      note(tooManyChecks)
      return false
    }
    signatureChecks += 1
    return isSignedBy(child, issuer)
  }

  /** Whether the names alone lead on to an anchor: what tells a path that is too deep from one that goes nowhere. */
  const leadsToAnchor = (certificate: Certificate, seen: Set<string>): boolean => {
    if (anchors.bySubject.has(certificate.issuer)) return true
    if (seen.has(certificate.issuer)) return false
    seen.add(certificate.issuer)
    return candidates.some((issuer) => issuer.subject === certificate.issuer && leadsToAnchor(issuer, seen))
  }

  const explore = (path: Path): Path | undefined => {
    const child = path.at(-1) ?? leaf
    for (const anchor of possibleIssuers(child, anchors.bySubject.get(child.issuer) ?? [])) {
      if (!isLinked(child, anchor, anchorStrengthGuards)) continue
      const complete: Path = [...path, anchor]
      const refusal = validatePath(complete, rules)
      if (refusal === undefined) return complete
      note(refusal)
    }
    const named = candidates.filter((candidate) => candidate.subject === child.issuer)
    for (const candidate of possibleIssuers(child, named)) {
      if (path.some((member) => isSameAuthority(member, candidate))) continue
      if (path.length === maxDepth) {
        if (leadsToAnchor(candidate, new Set())) note(tooDeep)
        continue
      }
      if (!isLinked(child, candidate, strengthGuards)) continue
      const found = explore([...path, candidate])
      if (found !== undefined) return found
    }
    return undefined
  }

  const found = explore([leaf])
  if (found !== undefined) return { outcome: Either.right(found), signatureChecks }
  const untrusted: Refusal = {
    rule: "trusted-path",
    reason: "UntrustedChain",
    expected: `a path to one of the ${anchors.count} authorities of ${rules.trustDomain}`,
    seen:
      signatureChecks === 0
        ? "no certificate with the issuer's name and key identifier"
        : `none among the certificates sent (${signatureChecks} signatures checked)`
  }
  return { outcome: Either.left(nearest ?? untrusted), signatureChecks }
}
