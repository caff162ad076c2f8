import type { TLSSocket } from "node:tls"
import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import { PeerVerificationError, type PeerVerificationReason } from "@agentweave/spiffe/PeerVerificationError"
import type { PeerVerifier, Purpose, VerifiedPeer } from "@agentweave/spiffe/PeerVerifier"
import type { X509BundleSet } from "@agentweave/spiffe/X509BundleSet"
import type { ConnectionError, TimeoutError } from "@agentweave/transport/TransportError"
import * as Either from "effect/Either"
import { isAskedForCertificate, linkedChain, type Presented, wholeChain } from "./chain.js"
import { chainRefused } from "./errors.js"

/** What the gate needs, on either side. */
export interface Judge {
  readonly verifier: PeerVerifier
  readonly bundles: X509BundleSet
  readonly matcher: PeerMatcher.PeerMatcher
  readonly purpose: Purpose
  /** Milliseconds since the epoch. */
  readonly now: () => number
  /**
   * Accepts a server that does not ask for our certificate: for protocols that want it so. Default `false`; of no effect
   * on a server.
   */
  readonly oneSided?: boolean
  /** Asks OpenSSL about the peer's chain, where Node has not done so: on a server. Returns the error of a refusal. */
  readonly askOpenSsl?: (socket: TLSSocket) => Error | undefined
}

/** Refusals that another certificate between leaf and anchor could have prevented. */
const ofThePath: ReadonlySet<PeerVerificationReason> = new Set([
  "UntrustedChain",
  "InvalidChain",
  "Expired",
  "NotYetValid"
])

/**
 * Judges a socket whose TLS handshake has just ended: an answer, never a throw, because a throw in this callback would
 * end the process.
 *
 * A leaf that passed before is recognized, and the rest of its chain is not asked for: Node takes twenty times as long to
 * describe a chain as a leaf.
 */
export const judge = (socket: TLSSocket, by: Judge): Either.Either<VerifiedPeer, PeerVerificationError> => {
  const refusal = (reason: PeerVerificationError["reason"], description: string, cause?: unknown) =>
    new PeerVerificationError({
      expectedId: PeerMatcher.describe(by.matcher),
      actualId: null,
      reason,
      description,
      ...(cause === undefined ? undefined : { cause })
    })
  const verify = (): Either.Either<VerifiedPeer, PeerVerificationError> => {
    if (socket.isSessionReused()) {
      return Either.left(refusal("SessionResumed", "expected a full handshake, the session was resumed"))
    }
    const refused = by.askOpenSsl?.(socket)
    if (refused !== undefined) return Either.left(chainRefused(refused, by.matcher))
    if (!socket.authorized) {
      return Either.left(refusal("UntrustedChain", `expected a chain that TLS accepts: ${socket.authorizationError}`))
    }
    const leaf = (socket.getPeerCertificate() as Presented).raw
    if (leaf === undefined) {
      return Either.left(refusal("NoCertificate", "expected a certificate, the peer presented none"))
    }
    const { bundles, matcher, purpose, verifier } = by
    if (purpose === "ServerAuth" && by.oneSided !== true && !isAskedForCertificate(socket)) {
      return Either.left(
        refusal("NotMutual", "expected to be asked for our certificate, the server serves clients without one")
      )
    }
    const input = { bundles, matcher, purpose, now: by.now() }
    const recognized = verifier.recognize({ ...input, leaf })
    if (recognized !== undefined) return recognized
    const linked = verifier.verify({ ...input, chain: linkedChain(socket) })
    return Either.isLeft(linked) && ofThePath.has(linked.left.reason)
      ? verifier.verify({ ...input, chain: wholeChain(socket) })
      : linked
  }
  return Either.flatMap(
    Either.try({
      try: verify,
      catch: (cause) => refusal("VerifierFault", "expected the verifier to answer, it threw", cause)
    }),
    (answer) => answer
  )
}

export type HandshakeError = PeerVerificationError | IdentityError | ConnectionError | TimeoutError
