/**
 * The gate: verifies a peer's X.509-SVID. One piece of code for clients and servers, synchronous.
 *
 * @since 0.1.0
 */
import type * as Either from "effect/Either"
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
export type Purpose = "ServerAuth" | "ClientAuth"

/**
 * @since 0.1.0
 * @category models
 */
export interface VerifyInput {
  /** The certificates the peer sent, DER: the leaf first, the rest unordered and untrusted. */
  readonly chain: ReadonlyArray<Uint8Array>
  readonly bundles: X509BundleSet
  readonly matcher: PeerMatcher
  readonly purpose: Purpose
  /** Milliseconds since the epoch, from Effect's Clock. */
  readonly now: number
}

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
 * @since 0.1.0
 * @category models
 */
export interface PeerVerifier {
  readonly verify: (input: VerifyInput) => Either.Either<VerifiedPeer, PeerVerificationError>
}
