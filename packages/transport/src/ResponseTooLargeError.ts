/**
 * The refusal of a response that is larger than its reader takes.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * A response's body has more bytes than its whole may have. It is the `cause` of the `ResponseError` of `json`, `text`,
 * `arrayBuffer`, `urlParamsBody`, `formData` and of what is built on them; a `stream` has no limit.
 *
 * The limit is `TransportConfig.maxResponseSize`, or what `HttpIncomingMessage.withMaxBodySize` sets for an effect.
 *
 * @since 0.1.0
 * @category errors
 */
export class ResponseTooLargeError extends Schema.TaggedError<ResponseTooLargeError>()("ResponseTooLargeError", {
  /** In bytes. */
  limit: Schema.Number
}) {
  /** The same response would be too large again. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `expected a response body of at most ${this.limit} bytes, got more: read it as a stream, or raise maxResponseSize`
  }
}
