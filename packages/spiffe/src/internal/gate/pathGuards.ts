import type { TrustDomain } from "../../TrustDomain.js"
import { acceptableKeys, acceptableSignatures, describeSignatureAlgorithm } from "../der/algorithms.js"
import type { Certificate } from "../der/certificate.js"
import { keyUsageBits } from "../der/extensions.js"
import { isoDate } from "../isoDate.js"
import { firstRefusal, type Guard, type Refusal } from "./guard.js"
import { type Purpose, purposeOids, seenPurposes, uriNames } from "./leafGuards.js"
import { type Allowance, findViolation, maxNameComparisons, tooManyComparisons } from "./nameConstraints.js"
import { describeKey, isKeyUsable } from "./publicKey.js"

/** Certificates from a leaf to an anchor, each signed by the next one. */
export type Path = readonly [leaf: Certificate, ...issuers: ReadonlyArray<Certificate>]

/** The rules for every certificate of a path. */
export interface PathRules {
  readonly trustDomain: TrustDomain
  readonly purpose: Purpose
  readonly now: number
  /** The names of a certificate against the constraints of another one: one memory and one allowance for a peer. */
  readonly names: NameCheck
}

/** One certificate of a path: position 0 is the leaf, the last one is the anchor. */
export interface PathMember extends PathRules {
  readonly certificate: Certificate
  readonly position: number
  readonly path: Path
}

type NameVerdict = ReturnType<typeof findViolation>

export type NameCheck = (constrained: Certificate, authority: Certificate) => NameVerdict

/** Each pair of certificates is judged once, on however many paths it occurs. */
export const makeNameCheck = (): NameCheck => {
  const allowance: Allowance = { comparisons: maxNameComparisons }
  const known = new Map<Certificate, Map<Certificate, NameVerdict>>()
  return (constrained, authority) => {
    const constraints = authority.extensions.nameConstraints
    if (constraints === undefined) return undefined
    const ofAuthority = known.get(authority) ?? new Map<Certificate, NameVerdict>()
    known.set(authority, ofAuthority)
    if (!ofAuthority.has(constrained)) ofAuthority.set(constrained, findViolation(constraints, constrained, allowance))
    return ofAuthority.get(constrained)
  }
}

const isAnchor = ({ path, position }: PathMember): boolean => position === path.length - 1

const role = (member: PathMember): string =>
  member.position === 0 ? "the leaf" : isAnchor(member) ? "the anchor" : `intermediate ${member.position}`

const isSelfIssued = (certificate: Certificate): boolean => certificate.subject === certificate.issuer

/** Intermediates below a CA, those not counted that carry their issuer's own name (RFC 5280 section 4.2.1.9). */
const countBelow = ({ path, position }: PathMember): number =>
  path.slice(1, position).filter((certificate) => !isSelfIssued(certificate)).length

const pathLength = ({ certificate }: PathMember): number =>
  certificate.extensions.basicConstraints?.pathLength ?? Number.POSITIVE_INFINITY

/** RFC 5280 section 6.1.3 (b): a self-issued certificate is constrained only as the last of the path, the leaf. */
const nameViolation = ({ certificate, names, path, position }: PathMember): NameVerdict => {
  for (const [below, constrained] of path.slice(0, position).entries()) {
    if (below > 0 && isSelfIssued(constrained)) continue
    const violation = names(constrained, certificate)
    if (violation !== undefined) return violation
  }
  return undefined
}

/** X509-SVID section 3.2: the SPIFFE ID of a signing certificate is that of its trust domain, without a path. */
const isOwnDomain = ({ certificate, trustDomain }: PathMember): boolean => {
  const uris = uriNames(certificate)
  return !uris.some((uri) => /^spiffe:/i.test(uri)) || (uris.length === 1 && uris[0] === `spiffe://${trustDomain}`)
}

const caKey: Guard<Certificate> = {
  rule: "ca-key",
  reason: "InvalidChain",
  expected: (certificate) => `CA ${certificate.serialNumber} with a key of ${acceptableKeys}`,
  holds: isKeyUsable,
  seen: describeKey
}

/** How strong a CA's key and the signature on it are; judged before its key is used for anything. */
export const strengthGuards: ReadonlyArray<Guard<Certificate>> = [
  caKey,
  {
    rule: "ca-signature-algorithm",
    reason: "InvalidChain",
    expected: (certificate) => `CA ${certificate.serialNumber} signed with ${acceptableSignatures}`,
    holds: (certificate) => certificate.signatureAlgorithm.scheme !== undefined,
    seen: (certificate) => describeSignatureAlgorithm(certificate.signatureAlgorithm)
  }
]

/** The same of an anchor: it is trusted for being in the bundle, so that nobody asks who signed it and how (RFC 8446 section 4.2.3). */
export const anchorStrengthGuards: ReadonlyArray<Guard<Certificate>> = [caKey]

/** The rules for every CA of a path, the anchor included: RFC 5280 sections 4.2, 4.2.1 and 6.1.4, X509-SVID section 3.2. */
export const caGuards: ReadonlyArray<Guard<PathMember>> = [
  {
    rule: "ca-basic-constraints",
    reason: "InvalidChain",
    expected: (member) => `${role(member)} with CA=true`,
    holds: ({ certificate }) => certificate.extensions.basicConstraints?.ca === true,
    seen: ({ certificate }) => `CA=${certificate.extensions.basicConstraints?.ca ?? false}`
  },
  {
    rule: "ca-key-usage",
    reason: "InvalidChain",
    expected: (member) => `${role(member)} without a key usage or with keyCertSign`,
    holds: ({ certificate: { extensions } }) =>
      extensions.keyUsage === undefined || (extensions.keyUsage & keyUsageBits.keyCertSign) !== 0,
    seen: ({ certificate: { extensions } }) =>
      extensions.keyUsage === undefined
        ? "no key usage"
        : `keyCertSign=${(extensions.keyUsage & keyUsageBits.keyCertSign) !== 0}`
  },
  {
    rule: "ca-extended-key-usage",
    reason: "InvalidChain",
    expected: (member) => `${role(member)} without an extended key usage or with ${member.purpose}`,
    holds: ({ certificate: { extensions }, purpose }) =>
      extensions.extendedKeyUsage?.includes(purposeOids[purpose]) ?? true,
    seen: ({ certificate }) => seenPurposes({ certificate })
  },
  {
    rule: "ca-critical-extensions",
    reason: "InvalidChain",
    expected: (member) => `no unknown critical extension in ${role(member)}`,
    holds: ({ certificate }) => certificate.extensions.unknownCritical.length === 0,
    seen: ({ certificate }) => certificate.extensions.unknownCritical.slice(0, 8).join(", ") || "none"
  },
  {
    rule: "ca-spiffe-id",
    reason: "InvalidChain",
    expected: (member) => `${role(member)} with no SPIFFE ID or spiffe://${member.trustDomain}`,
    holds: (member) => isAnchor(member) || isOwnDomain(member),
    seen: ({ certificate }) =>
      JSON.stringify(
        uriNames(certificate)
          .slice(0, 2)
          .map((uri) => uri.slice(0, 256))
      )
  },
  {
    rule: "ca-path-length",
    reason: "InvalidChain",
    expected: (member) => `at most ${pathLength(member)} intermediates below ${role(member)}`,
    holds: (member) => countBelow(member) <= pathLength(member),
    seen: (member) => `${countBelow(member)}`
  },
  {
    rule: "ca-name-constraints-limit",
    reason: "LimitExceeded",
    expected: (member) =>
      `names and constraints of ${role(member)} that take at most ${maxNameComparisons} comparisons for a peer`,
    holds: (member) => nameViolation(member) !== tooManyComparisons,
    seen: (member) => (nameViolation(member) === tooManyComparisons ? "more" : "no more")
  },
  {
    rule: "ca-name-constraints",
    reason: "InvalidChain",
    expected: (member) => `only names that the constraints of ${role(member)} allow`,
    holds: (member) => nameViolation(member) === undefined,
    seen: (member) => {
      const violation = nameViolation(member)
      return violation === tooManyComparisons ? "names that were not compared" : (violation ?? "no other")
    }
  }
]

/** RFC 5280 section 4.1.2.5: from notBefore to notAfter, both included. */
export const dateGuards: ReadonlyArray<Guard<PathMember>> = [
  {
    rule: "not-before",
    reason: "NotYetValid",
    expected: (member) => `${role(member)} to be valid, from ${isoDate(member.certificate.notBefore)}`,
    holds: ({ certificate, now }) => now >= certificate.notBefore,
    seen: ({ now }) => `${isoDate(now)} on the clock`
  },
  {
    rule: "not-after",
    reason: "Expired",
    expected: (member) => `${role(member)} to be valid, until ${isoDate(member.certificate.notAfter)}`,
    holds: ({ certificate, now }) => now <= certificate.notAfter,
    seen: ({ now }) => `${isoDate(now)} on the clock`
  }
]

export const membersOf = (path: Path, rules: PathRules): ReadonlyArray<PathMember> =>
  path.map((certificate, position) => ({ ...rules, certificate, position, path }))

/** Judges a path whose signatures have been verified. Dates come last: who fails them only was nearest to a success. */
export const validatePath = (path: Path, rules: PathRules): Refusal | undefined => {
  const members = membersOf(path, rules)
  for (const member of members.slice(1)) {
    const refusal = firstRefusal(caGuards, member)
    if (refusal !== undefined) return refusal
  }
  for (const member of members) {
    const refusal = firstRefusal(dateGuards, member)
    if (refusal !== undefined) return refusal
  }
  return undefined
}
