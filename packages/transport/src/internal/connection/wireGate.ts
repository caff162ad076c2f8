import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import { PeerVerificationError, type PeerVerificationReason } from "@agentweave/spiffe/PeerVerificationError"
import type { PeerVerifier, Purpose, VerifiedPeer } from "@agentweave/spiffe/PeerVerifier"
import type { X509BundleSet } from "@agentweave/spiffe/X509BundleSet"
import * as Either from "effect/Either"
import type { Wire } from "../../Wire.js"

/** The facts that a peer is judged by. */
export interface GateOptions {
  readonly verifier: PeerVerifier
  readonly bundles: X509BundleSet
  readonly matcher: PeerMatcher.PeerMatcher
  /** The role in which the peer presents its certificate. */
  readonly purpose: Purpose
  /** Milliseconds since the epoch. */
  readonly now: number
}

/**
 * Refusals that another certificate between leaf and anchor can prevent: there may be no path, or an expired certificate of a
 * CA in the place of its renewed one.
 */
const ofThePath: ReadonlySet<PeerVerificationReason> = new Set([
  "UntrustedChain",
  "InvalidChain",
  "Expired",
  "NotYetValid"
])

/**
 * Judges the peer of a wire whose handshake has just ended. The answer is a value, never a throw: it is asked for in
 * callbacks of sockets, where a throw would end the process.
 *
 * The chain is given lazily: Node takes twenty times as long to describe a chain as a leaf, and a leaf that passed before
 * needs none.
 */
export const verifyWire = (wire: Wire, options: GateOptions): Either.Either<VerifiedPeer, PeerVerificationError> => {
  const refuse = (reason: PeerVerificationError["reason"], description: string, cause?: unknown) =>
    Either.left(
      new PeerVerificationError({
        expectedId: PeerMatcher.describe(options.matcher),
        actualId: null,
        reason,
        description,
        ...(cause === undefined ? undefined : { cause })
      })
    )
  const verify = (): Either.Either<VerifiedPeer, PeerVerificationError> => {
    const { tls } = wire
    if (tls.resumed) return refuse("SessionResumed", "expected a full handshake, the session was resumed")
    if (tls.refusal !== undefined) return refuse(tls.refusal.reason, tls.refusal.description, tls.refusal.cause)
    const leaf = wire.leaf()
    if (leaf === undefined) return refuse("NoCertificate", "expected a certificate, the peer presented none")
    if (!tls.certificateRequested) {
      return refuse("NotMutual", "expected to be asked for our certificate, the peer serves clients without one")
    }
    const { verifier, ...input } = options
    const verified = verifier.verify({ ...input, chain: { leaf, certificates: () => wire.chain() } })
    return Either.isLeft(verified) && ofThePath.has(verified.left.reason) && wire.wholeChain !== undefined
      ? verifier.verify({ ...input, chain: wire.wholeChain() })
      : verified
  }
  return Either.getOrElse(Either.try(verify), (cause) =>
    refuse("VerifierFault", "expected the verifier to answer, it threw", cause)
  )
}
