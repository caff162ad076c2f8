/**
 * Errors of who a runner is.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * - `UnknownAddress`: no SPIFFE ID is known for the address of a runner.
 * - `OtherIdentity`: our own SVID has another SPIFFE ID than the one at our own address.
 * - `NotAuthorized`: our own SPIFFE ID is not one that may join this cluster.
 *
 * @since 0.1.0
 * @category models
 */
export const RunnerIdentityErrorReason = Schema.Literal("UnknownAddress", "OtherIdentity", "NotAuthorized")

/**
 * The reasons of a `RunnerIdentityError`.
 *
 * @since 0.1.0
 * @category models
 */
export type RunnerIdentityErrorReason = typeof RunnerIdentityErrorReason.Type

/**
 * A runner is not one of the cluster: its layer is not built, and it is never registered.
 *
 * @since 0.1.0
 * @category errors
 */
export class RunnerIdentityError extends Schema.TaggedError<RunnerIdentityError>()("RunnerIdentityError", {
  reason: RunnerIdentityErrorReason,
  /** The address of the runner, as `host:port`. */
  address: Schema.String,
  description: Schema.String
}) {
  /** A retry would meet the same configuration. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `${this.reason}: ${this.description}`
  }
}
