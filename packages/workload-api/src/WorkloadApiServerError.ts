/**
 * The failure to publish a Workload API.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * A socket cannot be opened.
 *
 * - `InUse`: another process answers on it.
 * - `NotASocket`: something else than a socket has this path; it is left alone.
 * - `Bind`: the operating system refused it; `cause` has its error.
 *
 * @since 0.1.0
 * @category errors
 */
export class WorkloadApiServerError extends Schema.TaggedError<WorkloadApiServerError>()("WorkloadApiServerError", {
  reason: Schema.Literal("InUse", "NotASocket", "Bind"),
  socketPath: Schema.String,
  description: Schema.String,
  cause: Schema.optional(Schema.Defect)
}) {
  /** A socket in use may be free later. */
  get isRetryable(): boolean {
    return this.reason === "InUse"
  }
  override get message(): string {
    return `${this.reason}: ${this.socketPath}: ${this.description}`
  }
}
