/**
 * Errors of this workload's own identity.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * - `Unavailable`: no identity has been received (yet), or its source cannot be reached.
 * - `Expired`: the newest SVID is past its notAfter and no successor came.
 * - `NotYetValid`: the newest SVID is before its notBefore.
 * - `Malformed`: a certificate, key or bundle cannot be read, or they do not belong together.
 * - `InvalidSvid`: our own SVID does not pass the profile every peer's must pass.
 * - `Withdrawn`: the source says that this workload has no identity any more.
 * - `LocalCertificateRefused`: the peer refused our certificate; `alert` is the TLS alert it sent.
 *
 * @since 0.1.0
 * @category models
 */
export const IdentityErrorReason = Schema.Literal(
  "Unavailable",
  "Expired",
  "NotYetValid",
  "Malformed",
  "InvalidSvid",
  "Withdrawn",
  "LocalCertificateRefused"
)

/**
 * The reasons of an `IdentityError`.
 *
 * @since 0.1.0
 * @category models
 */
export type IdentityErrorReason = typeof IdentityErrorReason.Type

/**
 * This workload's own identity is missing, unusable or refused. Never retried by default, and never a fault of the
 * network in the eyes of a circuit breaker. Carries no key material.
 *
 * @since 0.1.0
 * @category errors
 */
export class IdentityError extends Schema.TaggedError<IdentityError>()("IdentityError", {
  reason: IdentityErrorReason,
  description: Schema.String,
  alert: Schema.optional(Schema.String),
  cause: Schema.optional(Schema.Defect)
}) {
  /** A retry would meet the same identity. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `${this.reason}: ${this.description}${this.alert === undefined ? "" : ` (alert ${this.alert})`}`
  }
}
