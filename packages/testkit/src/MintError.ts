/**
 * The refusal of a certificate that cannot be written.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * A profile cannot be put into a certificate at all, e.g. a subject that is no distinguished name. A certificate that is
 * merely wrong is minted without complaint.
 *
 * @since 0.1.0
 * @category errors
 */
export class MintError extends Schema.TaggedError<MintError>()("MintError", {
  reason: Schema.Literal("InvalidProfile"),
  description: Schema.String,
  cause: Schema.optional(Schema.Defect)
}) {
  /** The same profile fails again. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `${this.reason}: ${this.description}`
  }
}
