/**
 * A catalogue of peers, proper and improper, each with the verdict the X.509-SVID rules ask for: what a verifier of peers
 * is held against.
 *
 * @since 0.1.0
 */
import type {
  IdentityError,
  InvalidConfigError,
  InvalidSpiffeIdError,
  PeerVerificationError,
  PeerVerifier,
  SpiffeId,
  X509BundleSet
} from "@agentweave/spiffe"
import type * as Effect from "effect/Effect"
import type { Credentials } from "./Credentials.js"
import type { DevAuthority } from "./DevAuthority.js"
import { chainCases } from "./internal/cases/chainCases.js"
import { leafCases } from "./internal/cases/leafCases.js"
import { realAuthorityCases } from "./internal/cases/realAuthorities.js"
import type { MintError } from "./MintError.js"

/**
 * A peer, right or wrong in one thing, and the verdict the gate must have on it.
 *
 * @since 0.1.0
 * @category models
 */
export interface PeerCase {
  /** The name of the case: the one thing special about the peer. Unique among the cases. */
  readonly name: string
  readonly verdict: "Accepted" | PeerVerificationError.PeerVerificationReason
  /** The role in which the peer is to be judged; `undefined` where the verdict is the same in both. */
  readonly purpose: PeerVerifier.Purpose | undefined
  /** Mints the peer. Most cases use the given authority; some make another one for the same trust domain. */
  readonly arrange: (authority: DevAuthority) => Effect.Effect<Arranged, ArrangeError>
}

/**
 * The peer of a case, with what it is judged against.
 *
 * @since 0.1.0
 * @category models
 */
export interface Arranged {
  /** The credentials that the peer presents. */
  readonly credentials: Credentials
  /** The bundles that the verifier trusts. */
  readonly bundles: X509BundleSet.X509BundleSet
  /** The matcher of the verifier. */
  readonly expects: SpiffeId.SpiffeId
}

/**
 * Errors of making the peer of a case.
 *
 * @since 0.1.0
 * @category errors
 */
export type ArrangeError =
  | MintError
  | IdentityError.IdentityError
  | InvalidConfigError.InvalidConfigError
  | InvalidSpiffeIdError.InvalidSpiffeIdError

/**
 * Cases that differ in the leaf alone, below the authority's own CA.
 *
 * @since 0.1.0
 * @category constants
 */
export const leaf: ReadonlyArray<PeerCase> = leafCases

/**
 * Cases that differ in what is above the leaf, or in what the verifier trusts.
 *
 * @since 0.1.0
 * @category constants
 */
export const chain: ReadonlyArray<PeerCase> = chainCases

/**
 * Cases from the documented templates of authorities that people run: SPIRE, Istio, Consul, Vault, cert-manager, step-ca, AWS
 * Private CA, Linkerd, Kuma, Dapr, Teleport.
 *
 * @since 0.1.0
 * @category constants
 */
export const realAuthorities: ReadonlyArray<PeerCase> = realAuthorityCases

/**
 * Every case there is.
 *
 * @since 0.1.0
 * @category constants
 * @example
 * ```ts
 * import { DevAuthority, PeerCase } from "@agentweave/testkit"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
 *   for (const peer of PeerCase.all) {
 *     const { credentials } = yield* peer.arrange(authority)
 *     console.log(peer.verdict, peer.name, credentials.certificates.length)
 *   }
 * })
 * ```
 */
export const all: ReadonlyArray<PeerCase> = [...leafCases, ...chainCases, ...realAuthorityCases]
