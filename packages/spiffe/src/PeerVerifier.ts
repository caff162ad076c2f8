/**
 * The gate: verifies a peer's X.509-SVID. One piece of code for clients and servers, synchronous.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import * as Certificate from "./Certificate.js"
import { type ExplainInput, type Explanation, explain as explainPeer } from "./Explanation.js"
import type { IdentityError } from "./IdentityError.js"
import type { InvalidConfigError } from "./InvalidConfigError.js"
import type * as leafGuards from "./internal/gate/leafGuards.js"
import { makeCheck } from "./internal/gate/signature.js"
import { makeVerifier } from "./internal/gate/verifier.js"
import * as OptionsDecoder from "./OptionsDecoder.js"
import type { PeerMatcher } from "./PeerMatcher.js"
import type { PeerVerificationError } from "./PeerVerificationError.js"
import type { SpiffeId } from "./SpiffeId.js"
import type { X509BundleSet } from "./X509BundleSet.js"

/**
 * The role in which the peer presents its certificate: `ServerAuth` when a client verifies a server.
 *
 * @since 0.1.0
 * @category models
 */
export type Purpose = leafGuards.Purpose

/**
 * The certificates of a peer whose rest is only read when it is needed: a TLS stack may take twenty times as long to describe
 * a chain as its leaf.
 *
 * @since 0.1.0
 * @category models
 */
export interface LazyChain {
  /** DER of the certificate whose key the peer has proven to hold. */
  readonly leaf: Uint8Array
  /** All certificates the peer sent, DER: the leaf first, the rest unordered and untrusted. */
  readonly certificates: () => ReadonlyArray<Uint8Array>
}

/**
 * The peer to judge, and what it is judged against.
 *
 * @since 0.1.0
 * @category models
 */
export interface VerifyInput {
  /** The certificates the peer sent, DER: the leaf first, the rest unordered and untrusted. */
  readonly chain: ReadonlyArray<Uint8Array> | LazyChain
  readonly bundles: X509BundleSet
  readonly matcher: PeerMatcher
  readonly purpose: Purpose
  /** Milliseconds since the epoch, from Effect's Clock. */
  readonly now: number
}

/**
 * The size of a verifier's caches.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** How many chains, and how many leaves, are remembered. 0 remembers none. Default 1024. */
  readonly cacheSize?: number | undefined
}

const defaultCacheSize = 1024

const decode = OptionsDecoder.decoder(
  "PeerVerifier",
  Schema.Struct({
    cacheSize: Schema.optionalWith(OptionsDecoder.NumberIn(0), { default: () => defaultCacheSize })
  })
)

/**
 * A peer that passed the gate.
 *
 * @since 0.1.0
 * @category models
 */
export interface VerifiedPeer {
  readonly spiffeId: SpiffeId
  /** The leaf's serial number, upper-case hex. */
  readonly serialNumber: string
  /** SHA-256 of the leaf's DER, lower-case hex. */
  readonly fingerprint: string
  /** Generation of the bundle the path ended in. */
  readonly bundleGeneration: string
  /** Earliest notAfter on the path, anchor included, milliseconds since the epoch. */
  readonly notAfter: number
  /** The certificates the peer sent, for a later run of the gate when a bundle changes. */
  readonly chain: ReadonlyArray<Uint8Array>
}

/**
 * The gate: judges the certificates of a peer by the rules of X.509 and SPIFFE.
 *
 * @since 0.1.0
 * @category models
 */
export interface PeerVerifier {
  /**
   * Verifies a peer. Synchronous, and never throws: a fault inside is a refusal with reason `VerifierFault`.
   *
   * A lazy chain is not read when its leaf settles it. When this very leaf passed before in the same role, the path it had
   * then is still a path to one of today's authorities, whatever was sent with the leaf this time. When another leaf of the
   * same CA passed, this one is verified in full, by every rule, with the CAs that the other had above it; if it does not
   * pass, the chain is read. `chain` of the peer is the one that passed.
   */
  readonly verify: (input: VerifyInput) => Either.Either<VerifiedPeer, PeerVerificationError>
}

/**
 * The gate. A peer passes when the chain it sent is small enough to read, its leaf keeps the X.509-SVID profile, a path
 * of verified signatures leads from the leaf to an authority in the bundle of the leaf's own trust domain, every
 * certificate of the path keeps RFC 5280 and is within its dates, and the matcher accepts the SPIFFE ID. It stands on
 * top of the TLS stack's own verification, not in its place.
 *
 * Chains that passed, and their leaves, are remembered by their digest, tied to the authorities, the purpose and the
 * dates of the path; the matcher is asked every time, and no refusal is remembered. `cacheSize` bounds how many of each.
 * So are the CAs on the paths of the last 64 issuers, as candidates for other leaves.
 *
 * With options the result is an `Either`: a `cacheSize` that is no whole number, or negative, is an `InvalidConfigError`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { PeerMatcher, PeerVerifier, SpiffeId, X509BundleSet } from "@agentweave/spiffe"
 * import { Either } from "effect"
 *
 * const verifier = PeerVerifier.make()
 * const result = verifier.verify({
 *   chain: [],
 *   bundles: X509BundleSet.empty,
 *   matcher: PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/api")),
 *   purpose: "ServerAuth",
 *   now: 0
 * })
 * console.log(Either.isLeft(result)) // true: reason NoCertificate
 * ```
 */
export function make(): PeerVerifier
/** A verifier with options: refused where they are wrong. */
export function make(options: Options): Either.Either<PeerVerifier, InvalidConfigError>
/** The implementation of both. */
export function make(options?: Options): PeerVerifier | Either.Either<PeerVerifier, InvalidConfigError> {
  const ofSize = (cacheSize: number) => makeVerifier(cacheSize, makeCheck())
  return options === undefined
    ? ofSize(defaultCacheSize)
    : Either.map(decode(options), ({ cacheSize }) => ofSize(cacheSize))
}

/**
 * All certificates of a peer, the leaf first, for a `PeerVerifier` of your own: a lazy chain is read.
 *
 * @since 0.1.0
 * @category conversions
 */
export const certificates = ({ chain }: Pick<VerifyInput, "chain">): ReadonlyArray<Uint8Array> =>
  "certificates" in chain ? chain.certificates() : chain

/**
 * Every rule in order, what it expected and what it saw: see {@link Explanation}. For people and tools, not for the path
 * of a connection.
 *
 * @since 0.1.0
 * @category operations
 */
export const explain: (input: ExplainInput) => Effect.Effect<Explanation> = explainPeer

/**
 * The chain that a verified peer presented, the leaf first, for people and handlers to look at: for a DNS name of the leaf, say.
 * Only the SPIFFE ID was matched with anything; see {@link Certificate}.
 *
 * @since 0.1.0
 * @category conversions
 * @example
 * ```ts
 * import { Certificate, PeerVerifier } from "@agentweave/spiffe"
 * import { Either } from "effect"
 *
 * const dnsNames = (peer: PeerVerifier.VerifiedPeer) =>
 *   Either.map(PeerVerifier.x509Certificates(peer), ([leaf]) => {
 *     const { SubjectAlternativeNameExtension } = Certificate.library()
 *     const names = leaf?.getExtension(SubjectAlternativeNameExtension)?.names.items ?? []
 *     return names.filter(({ type }) => type === "dns").map(({ value }) => value)
 *   })
 * ```
 */
export const x509Certificates = (
  self: VerifiedPeer
): Either.Either<ReadonlyArray<Certificate.X509Certificate>, IdentityError> => Certificate.fromDers(self.chain)
