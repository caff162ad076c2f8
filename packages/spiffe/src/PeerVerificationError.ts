/**
 * The refusal of a peer.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * - `NoCertificate`: the peer presented none.
 * - `UntrustedChain`: no path from the leaf to an anchor of its own trust domain's bundle.
 * - `Expired`, `NotYetValid`: a certificate of the path is outside its validity.
 * - `InvalidChain`: a CA of the path breaks a rule (basic constraints, key usage, path length, name constraints, ...).
 * - `InvalidLeaf`: the leaf breaks the X.509-SVID profile.
 * - `InvalidSpiffeId`: the leaf's URI SAN is not one well-formed SPIFFE ID.
 * - `NoBundle`: there is no bundle for the leaf's trust domain.
 * - `UnexpectedPeer`: a valid identity, but not one the matcher accepts.
 * - `LimitExceeded`: the chain is larger than the gate is willing to read.
 * - `NotMutual`: the server did not ask for our certificate, so it serves clients without one.
 * - `SessionResumed`: the TLS session was resumed, so the peer proved nothing.
 * - `VerifierFault`: the verifier itself failed; a refusal, never an acceptance.
 *
 * @since 0.1.0
 * @category models
 */
export const PeerVerificationReason = Schema.Literal(
  "NoCertificate",
  "UntrustedChain",
  "Expired",
  "NotYetValid",
  "InvalidChain",
  "InvalidLeaf",
  "InvalidSpiffeId",
  "NoBundle",
  "UnexpectedPeer",
  "LimitExceeded",
  "NotMutual",
  "SessionResumed",
  "VerifierFault"
)

/**
 * The reasons of a `PeerVerificationError`.
 *
 * @since 0.1.0
 * @category models
 */
export type PeerVerificationReason = typeof PeerVerificationReason.Type

/**
 * The peer's certificate was refused. `expectedId` describes the matcher, `actualId` is the SPIFFE ID the certificate
 * claims (`null` when it has none that can be read), `description` says what was expected and what was seen.
 *
 * @since 0.1.0
 * @category errors
 */
export class PeerVerificationError extends Schema.TaggedError<PeerVerificationError>()("PeerVerificationError", {
  expectedId: Schema.String,
  actualId: Schema.NullOr(Schema.String),
  reason: PeerVerificationReason,
  description: Schema.String,
  cause: Schema.optional(Schema.Defect)
}) {
  /** The peer would present the same certificate again. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `${this.reason}: ${this.description} (expected peer ${this.expectedId}, got ${this.actualId ?? "no readable SPIFFE ID"})`
  }
}
