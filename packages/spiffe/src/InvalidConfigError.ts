/**
 * The refusal of a configuration.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * A configuration value breaks a rule. `config` and `field` name it, `description` says what was expected and what came.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidConfigError extends Schema.TaggedError<InvalidConfigError>()("InvalidConfigError", {
  config: Schema.String,
  field: Schema.String,
  description: Schema.String
}) {
  /** The same value is refused again. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `${this.config}${this.field === "" ? "" : `.${this.field}`}: ${this.description}`
  }
}
