import * as Either from "effect/Either"
import * as SpiffeId from "../../SpiffeId.js"
import { acceptableKeys, acceptableSignatures, describeSignatureAlgorithm } from "../der/algorithms.js"
import type { Certificate } from "../der/certificate.js"
import { extendedKeyUsages, keyUsageBits } from "../der/extensions.js"
import type { Guard } from "./guard.js"
import { describeKey, isKeyUsable } from "./publicKey.js"

/** The use of a leaf in TLS (RFC 5280 section 4.2.1.12). */
export type Purpose = "ServerAuth" | "ClientAuth"

/** A leaf and what it must be good for: one purpose, both, or none yet. */
export interface Leaf {
  readonly certificate: Certificate
  readonly purposes: ReadonlyArray<Purpose>
}

export const maxSubjectAltNames = 128

/** How many names any certificate that a peer sends may hold. */
export const namesLimit: Guard<Certificate> = {
  rule: "names-limit",
  reason: "LimitExceeded",
  expected: ({ serialNumber }) =>
    `at most ${maxSubjectAltNames} subject alternative names in certificate ${serialNumber}`,
  holds: ({ extensions }) => extensions.subjectAltNames.length <= maxSubjectAltNames,
  seen: ({ extensions }) => `${extensions.subjectAltNames.length}`
}

/** The URI names of a certificate, one character a byte. */
export const uriNames = (certificate: Certificate): ReadonlyArray<string> =>
  certificate.extensions.subjectAltNames
    .filter((name) => name.form === "uniformResourceIdentifier")
    .map((name) => name.value)

/** The SPIFFE ID a leaf claims, if its names hold exactly one well-formed one. */
export const claimedId = (certificate: Certificate): SpiffeId.SpiffeId | undefined => {
  const [uri, ...others] = uriNames(certificate)
  return SpiffeId.isSpiffeId(uri) && others.length === 0 ? uri : undefined
}

const hasUsage = (certificate: Certificate, bit: number): boolean =>
  ((certificate.extensions.keyUsage ?? 0) & bit) !== 0

const seenUsage = ({ certificate }: Leaf): string => {
  const usage = certificate.extensions.keyUsage
  if (usage === undefined) return "no key usage"
  const names = Object.entries(keyUsageBits).flatMap(([name, bit]) => ((usage & bit) !== 0 ? [name] : []))
  return `key usage ${names.join(", ") || "without any of the bits that matter here"}`
}

export const purposeOids: Record<Purpose, string> = {
  ServerAuth: extendedKeyUsages.serverAuth,
  ClientAuth: extendedKeyUsages.clientAuth
}

export const seenPurposes = ({ certificate }: Pick<Leaf, "certificate">): string => {
  const usages = certificate.extensions.extendedKeyUsage
  if (usages === undefined) return "no extended key usage"
  const named = Object.entries(purposeOids).flatMap(([name, oid]) => (usages.includes(oid) ? [name] : []))
  return `extended key usage of ${usages.length} purposes, of these ${named.join(", ") || "none for TLS"}`
}

/**
 * The rules for a leaf, whoever signed it: X509-SVID sections 2, 4 and 5.2, RFC 5280 section 4.2 (critical extensions),
 * and the strength of its key and signature. One guard a rule; the order is the order of explanation.
 */
export const leafGuards: ReadonlyArray<Guard<Leaf>> = [
  {
    rule: "leaf-names-limit",
    reason: namesLimit.reason,
    expected: ({ certificate }) => namesLimit.expected(certificate),
    holds: ({ certificate }) => namesLimit.holds(certificate),
    seen: ({ certificate }) => namesLimit.seen(certificate)
  },
  {
    rule: "leaf-not-ca",
    reason: "InvalidLeaf",
    expected: () => "a leaf with CA=false",
    holds: ({ certificate }) => certificate.extensions.basicConstraints?.ca !== true,
    seen: ({ certificate }) => `CA=${certificate.extensions.basicConstraints?.ca ?? false}`
  },
  {
    rule: "leaf-no-path-length",
    reason: "InvalidLeaf",
    expected: () => "a leaf without a path length (RFC 5280 section 4.2.1.9)",
    holds: ({ certificate }) => certificate.extensions.basicConstraints?.pathLength === undefined,
    seen: ({ certificate }) => `path length ${certificate.extensions.basicConstraints?.pathLength ?? "absent"}`
  },
  {
    rule: "leaf-key-usage",
    reason: "InvalidLeaf",
    expected: () => "a leaf with a key usage",
    holds: ({ certificate }) => certificate.extensions.keyUsage !== undefined,
    seen: seenUsage
  },
  {
    rule: "leaf-digital-signature",
    reason: "InvalidLeaf",
    expected: () => "a leaf with digitalSignature",
    holds: ({ certificate }) => hasUsage(certificate, keyUsageBits.digitalSignature),
    seen: seenUsage
  },
  {
    rule: "leaf-no-cert-sign",
    reason: "InvalidLeaf",
    expected: () => "a leaf without keyCertSign",
    holds: ({ certificate }) => !hasUsage(certificate, keyUsageBits.keyCertSign),
    seen: seenUsage
  },
  {
    rule: "leaf-no-crl-sign",
    reason: "InvalidLeaf",
    expected: () => "a leaf without cRLSign",
    holds: ({ certificate }) => !hasUsage(certificate, keyUsageBits.cRLSign),
    seen: seenUsage
  },
  {
    rule: "leaf-critical-extensions",
    reason: "InvalidLeaf",
    expected: () => "no unknown critical extension",
    holds: ({ certificate }) => certificate.extensions.unknownCritical.length === 0,
    seen: ({ certificate }) => certificate.extensions.unknownCritical.slice(0, 8).join(", ") || "none"
  },
  {
    rule: "leaf-signature-algorithm",
    reason: "InvalidLeaf",
    expected: () => `a leaf signed with ${acceptableSignatures}`,
    holds: ({ certificate }) => certificate.signatureAlgorithm.scheme !== undefined,
    seen: ({ certificate }) => describeSignatureAlgorithm(certificate.signatureAlgorithm)
  },
  {
    rule: "leaf-key",
    reason: "InvalidLeaf",
    expected: () => `a key of ${acceptableKeys}`,
    holds: ({ certificate }) => isKeyUsable(certificate),
    seen: ({ certificate }) => describeKey(certificate)
  },
  {
    rule: "leaf-extended-key-usage",
    reason: "InvalidLeaf",
    expected: ({ purposes }) => `no extended key usage or one that holds ${purposes.join(" and ") || "what is needed"}`,
    holds: ({ certificate, purposes }) =>
      purposes.every((purpose) => certificate.extensions.extendedKeyUsage?.includes(purposeOids[purpose]) ?? true),
    seen: seenPurposes
  },
  {
    rule: "leaf-one-uri",
    reason: "InvalidSpiffeId",
    expected: () => "exactly one URI among the subject alternative names",
    holds: ({ certificate }) => uriNames(certificate).length === 1,
    seen: ({ certificate }) => `${uriNames(certificate).length}`
  },
  {
    rule: "leaf-spiffe-id",
    reason: "InvalidSpiffeId",
    expected: () => "a well-formed SPIFFE ID with a path",
    holds: ({ certificate }) => uriNames(certificate).every(SpiffeId.isSpiffeId),
    seen: ({ certificate }) =>
      uriNames(certificate)
        .map((uri) => Either.match(SpiffeId.parse(uri), { onLeft: (error) => error.message, onRight: (id) => id }))
        .join(", ")
  }
]
