/**
 * How a call to the Workload API ends.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * - `InvalidArgument`: the endpoint refused the call itself, e.g. its security header is missing. Never tried again.
 * - `PermissionDenied`: the endpoint has no identity for this workload.
 * - `Unavailable`: the endpoint cannot be reached, or says that it cannot answer now.
 * - `Unimplemented`: the endpoint does not offer the profile. Never tried again.
 * - `LimitExceeded`: an answer was larger than allowed.
 * - `Ended`: the endpoint ended the stream, without an error or by cancelling it.
 * - `Stalled`: the stream was open and brought nothing: no first answer, or no successor before the SVID expired.
 * - `Failed`: anything else; `description` has the status.
 *
 * @since 0.1.0
 * @category models
 */
export const WorkloadApiErrorReason = Schema.Literal(
  "InvalidArgument",
  "PermissionDenied",
  "Unavailable",
  "Unimplemented",
  "LimitExceeded",
  "Ended",
  "Stalled",
  "Failed"
)

/**
 * The reasons of a `WorkloadApiError`.
 *
 * @since 0.1.0
 * @category models
 */
export type WorkloadApiErrorReason = typeof WorkloadApiErrorReason.Type

/**
 * A call to the Workload API ended, or was refused.
 *
 * @since 0.1.0
 * @category errors
 */
export class WorkloadApiError extends Schema.TaggedError<WorkloadApiError>()("WorkloadApiError", {
  reason: WorkloadApiErrorReason,
  description: Schema.String
}) {
  /**
   * SPIFFE_Workload_Endpoint appendix A: a call that is invalid or not implemented stays so, all else may be tried again
   * with a backoff.
   */
  get isRetryable(): boolean {
    return this.reason !== "InvalidArgument" && this.reason !== "Unimplemented"
  }
  override get message(): string {
    return `${this.reason}: ${this.description}`
  }
}
