/**
 * One certificate authority: a CA certificate, its key, and what it can sign.
 *
 * @since 0.1.0
 */
import { type InvalidConfigError, OptionsDecoder } from "@agentweave/spiffe"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Schema from "effect/Schema"
import type { CertificateProfile } from "./CertificateProfile.js"
import * as Credentials from "./Credentials.js"
import { type Kind, type Minted, mint } from "./internal/mint/mint.js"
import { check } from "./internal/mint/profileOptions.js"
import * as KeyPair from "./KeyPair.js"
import type { MintError } from "./MintError.js"

/**
 * A CA whose key is at hand: it signs leaves and further CAs.
 *
 * @since 0.1.0
 * @category models
 */
export interface CertificateAuthority {
  /** DER of the CA's own certificate. */
  readonly certificate: Uint8Array
  /** The chain that a leaf signed by this CA sends after itself: this CA and those above it, without the root. */
  readonly chain: ReadonlyArray<Uint8Array>
  readonly trustDomain: string
  /** Distinguished name. */
  readonly subject: string
  readonly keyPair: KeyPair.KeyPair
  /** The subject key identifier the certificate states, hex. */
  readonly keyIdentifier: string
}

const caKind = (trustDomain: string, name: string, keyAlgorithm: KeyPair.KeyAlgorithm): Kind => ({
  ca: true,
  subject: `CN=${name} ${trustDomain},O=SPIFFE`,
  uri: `spiffe://${trustDomain}`,
  ttl: "365 days",
  keyAlgorithm
})

const fromMinted = (
  minted: Minted,
  trustDomain: string,
  chain: (certificate: Uint8Array) => ReadonlyArray<Uint8Array>
): CertificateAuthority => ({ ...minted, trustDomain, chain: chain(minted.certificate) })

/** Distinct CAs have distinct names unless a profile gives one: the name carries the beginning of the key's identifier. */
const named = Effect.fnUntraced(function* (
  profile: CertificateProfile,
  kind: (name: string) => Kind,
  name: string,
  keyAlgorithm: KeyPair.KeyAlgorithm
) {
  yield* check(profile)
  const keyPair = profile.keyPair ?? (yield* KeyPair.make(profile.keyAlgorithm ?? keyAlgorithm))
  return { profile: { ...profile, keyPair }, kind: kind(`${name} ${keyPair.identifier.slice(0, 8)}`) }
})

/**
 * A self-signed root.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { CertificateAuthority } from "@agentweave/testkit"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const root = yield* CertificateAuthority.makeRoot({ trustDomain: "example.org", keyAlgorithm: "P-384" })
 *   const { certificatesPem } = yield* CertificateAuthority.issue(root, { uris: ["spiffe://example.org/api"] })
 *   return certificatesPem
 * })
 * ```
 */
export const makeRoot = Effect.fnUntraced(function* (
  options: { readonly trustDomain: string } & CertificateProfile
): Effect.fn.Return<CertificateAuthority, MintError> {
  const { trustDomain, ...rest } = options
  const { kind, profile } = yield* named(rest, (name) => caKind(trustDomain, name, "P-256"), "root", "P-256")
  return fromMinted(yield* mint(profile, kind, undefined), trustDomain, () => [])
})

/**
 * A CA below another one. The profile may make it anything: a CA of another trust domain, without the CA flag, with name
 * constraints or a path length.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { CertificateAuthority } from "@agentweave/testkit"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const root = yield* CertificateAuthority.makeRoot({ trustDomain: "example.org" })
 *   const intermediate = yield* CertificateAuthority.makeIntermediate(root, {
 *     basicConstraints: { ca: true, pathLength: 0 }
 *   })
 *   return yield* CertificateAuthority.issue(intermediate)
 * })
 * ```
 */
export const makeIntermediate = Effect.fnUntraced(function* (
  parent: CertificateAuthority,
  options: CertificateProfile & { readonly trustDomain?: string | undefined } = {}
): Effect.fn.Return<CertificateAuthority, MintError> {
  const { trustDomain = parent.trustDomain, ...rest } = options
  const algorithm = parent.keyPair.algorithm
  const { kind, profile } = yield* named(
    rest,
    (name) => caKind(trustDomain, name, algorithm),
    "intermediate",
    algorithm
  )
  return fromMinted(yield* mint(profile, kind, parent), trustDomain, (own) => [own, ...parent.chain])
})

/**
 * Another CA's name and key, certified by `issuer`: a cross-signed certificate. The result signs with `subject`'s key, and
 * its leaves chain through the cross-signed certificate to `issuer`'s root.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { CertificateAuthority } from "@agentweave/testkit"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const old = yield* CertificateAuthority.makeRoot({ trustDomain: "example.org" })
 *   const successor = yield* CertificateAuthority.makeRoot({ trustDomain: "example.org" })
 *   // Its leaves are trusted by peers that know the old root only.
 *   const crossSigned = yield* CertificateAuthority.crossSign(old, successor)
 *   return yield* CertificateAuthority.issue(crossSigned)
 * })
 * ```
 */
export const crossSign = Effect.fnUntraced(function* (
  issuer: CertificateAuthority,
  subject: CertificateAuthority,
  profile: CertificateProfile = {}
): Effect.fn.Return<CertificateAuthority, MintError> {
  const minted = yield* mint(
    { subject: subject.subject, keyPair: subject.keyPair, subjectKeyIdentifier: subject.keyIdentifier, ...profile },
    caKind(subject.trustDomain, "cross", subject.keyPair.algorithm),
    issuer
  )
  return fromMinted(minted, subject.trustDomain, (own) => [own, ...issuer.chain])
})

/**
 * A root with the same name and key identifier as `authority`, and another key.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { CertificateAuthority } from "@agentweave/testkit"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const root = yield* CertificateAuthority.makeRoot({ trustDomain: "example.org" })
 *   const impostor = yield* CertificateAuthority.makeImpostor(root)
 *   // To be refused by everybody who trusts `root`: the names fit, the signature does not.
 *   return yield* CertificateAuthority.issue(impostor)
 * })
 * ```
 */
export const makeImpostor = (
  authority: CertificateAuthority,
  profile: CertificateProfile = {}
): Effect.Effect<CertificateAuthority, MintError> =>
  makeRoot({
    trustDomain: authority.trustDomain,
    keyAlgorithm: authority.keyPair.algorithm,
    subject: authority.subject,
    subjectKeyIdentifier: authority.keyIdentifier,
    ...profile
  })

const decodeLoop = OptionsDecoder.decoder(
  "CertificateAuthority.makeLoop",
  Schema.Struct({
    trustDomain: OptionsDecoder.Text,
    size: Schema.optionalWith(OptionsDecoder.NumberIn(2), { default: () => 2 })
  })
)

/**
 * CAs that certify one another in a ring, with no root anywhere: each is signed by the next, the last by the first. The
 * result is the first of them, and its chain holds the ring's certificates.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { CertificateAuthority } from "@agentweave/testkit"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const loop = yield* CertificateAuthority.makeLoop({ trustDomain: "example.org", size: 3 })
 *   return yield* CertificateAuthority.issue(loop)
 * })
 * ```
 */
export const makeLoop = Effect.fnUntraced(function* (options: {
  readonly trustDomain: string
  /** How many CAs, at least 2. Default 2. */
  readonly size?: number | undefined
}): Effect.fn.Return<CertificateAuthority, MintError | InvalidConfigError.InvalidConfigError> {
  const { size, trustDomain } = yield* decodeLoop(options)
  const first = yield* makeRoot({ trustDomain })
  const others = yield* Effect.replicateEffect(makeRoot({ trustDomain }), size - 1)
  const ring = [first, ...others]
  const certificates = yield* Effect.forEach(ring, (subject, index) =>
    crossSign(ring[(index + 1) % ring.length] ?? first, subject)
  )
  return {
    ...first,
    certificate: certificates[0]?.certificate ?? first.certificate,
    chain: certificates.map((signed) => signed.certificate)
  }
})

/**
 * A leaf's holder acting as a CA: what an attacker with a workload's key would do.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { CertificateAuthority } from "@agentweave/testkit"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const root = yield* CertificateAuthority.makeRoot({ trustDomain: "example.org" })
 *   const workload = yield* CertificateAuthority.issue(root)
 *   const attacker = CertificateAuthority.fromCredentials(workload, "example.org")
 *   return yield* CertificateAuthority.issue(attacker, { uris: ["spiffe://example.org/admin"] })
 * })
 * ```
 */
export const fromCredentials = (credentials: Credentials.Credentials, trustDomain: string): CertificateAuthority => ({
  certificate: credentials.certificates[0],
  chain: credentials.certificates,
  trustDomain,
  subject: credentials.subject,
  keyPair: credentials.keyPair,
  keyIdentifier: credentials.keyIdentifier
})

/**
 * The same CA, whose leaves send other certificates after themselves.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { CertificateAuthority } from "@agentweave/testkit"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const root = yield* CertificateAuthority.makeRoot({ trustDomain: "example.org" })
 *   const intermediate = yield* CertificateAuthority.makeIntermediate(root)
 *   // Its leaves forget to send the intermediate.
 *   return yield* CertificateAuthority.issue(CertificateAuthority.withChain(intermediate, []))
 * })
 * ```
 */
export const withChain: {
  (chain: ReadonlyArray<Uint8Array>): (self: CertificateAuthority) => CertificateAuthority
  (self: CertificateAuthority, chain: ReadonlyArray<Uint8Array>): CertificateAuthority
} = dual(
  2,
  (self: CertificateAuthority, chain: ReadonlyArray<Uint8Array>): CertificateAuthority => ({ ...self, chain })
)

/**
 * Signs a leaf. Nothing is checked: see {@link CertificateProfile} for all that can be wrong with it. By default it is a
 * proper X.509-SVID for `spiffe://<trust domain>/workload`, valid for one hour.
 *
 * @since 0.1.0
 * @category operations
 */
export const issue = Effect.fnUntraced(function* (
  authority: CertificateAuthority,
  profile: CertificateProfile = {}
): Effect.fn.Return<Credentials.Credentials, MintError> {
  const kind: Kind = {
    ca: false,
    subject: "CN=workload,O=SPIFFE",
    uri: `spiffe://${authority.trustDomain}/workload`,
    ttl: "1 hour",
    keyAlgorithm: authority.keyPair.algorithm
  }
  const { certificate, ...minted } = yield* mint(profile, kind, authority)
  return Credentials.make({ ...minted, certificates: [certificate, ...authority.chain] })
})
