/**
 * The refusal of a text that is not a SPIFFE ID or trust domain name.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * The rule of the SPIFFE-ID standard (sections 2 and 2.3) that a text broke.
 *
 * @since 0.1.0
 * @category models
 */
export const SpiffeIdRule = Schema.Literal(
  "Empty",
  "TooLong",
  "Scheme",
  "TrustDomainEmpty",
  "TrustDomainTooLong",
  "TrustDomainCharacter",
  "PathCharacter",
  "PathSegmentEmpty",
  "PathSegmentDot",
  "PathTrailingSlash",
  "PathMissing"
)

/**
 * The rules of the SPIFFE-ID standard that a text can break.
 *
 * @since 0.1.0
 * @category models
 */
export type SpiffeIdRule = typeof SpiffeIdRule.Type

/**
 * A text is not a valid SPIFFE ID (or trust domain). `rule` names the rule broken, `input` is the text as it came
 * (cut to 256 characters), `position` the offset of the first offending character where there is one.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidSpiffeIdError extends Schema.TaggedError<InvalidSpiffeIdError>()("InvalidSpiffeIdError", {
  input: Schema.String,
  rule: SpiffeIdRule,
  expected: Schema.String,
  position: Schema.optional(Schema.Number)
}) {
  /** The same input is refused again: never worth a retry. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    const at = this.position === undefined ? "" : ` at offset ${this.position}`
    return `expected ${this.expected}, got ${JSON.stringify(this.input)} (${this.rule}${at})`
  }
}
