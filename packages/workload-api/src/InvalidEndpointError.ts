/**
 * The refusal of an address of a Workload API endpoint.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * The rule of SPIFFE_Workload_Endpoint section 4 (or of RFC 3986, which it rests on) that an address broke. `Missing`:
 * there is no address at all. `Unreadable`: the source of configuration that may hold one failed.
 *
 * @since 0.1.0
 * @category models
 */
export const EndpointRule = Schema.Literal(
  "Missing",
  "Unreadable",
  "Scheme",
  "Character",
  "PercentEncoding",
  "AuthorityNotAllowed",
  "UserInfoNotAllowed",
  "HostMissing",
  "HostNotIp",
  "PortMissing",
  "PortOutOfRange",
  "PathMissing",
  "PathNotAbsolute",
  "PathTooLong",
  "PathNotAllowed",
  "QueryNotAllowed",
  "FragmentNotAllowed"
)

/**
 * The rules that an endpoint address can break (SPIFFE_Workload_Endpoint section 4).
 *
 * @since 0.1.0
 * @category models
 */
export type EndpointRule = typeof EndpointRule.Type

/**
 * An address does not locate a Workload API endpoint. `input` is the text as it came, cut to 256 characters; empty when
 * there was none, and what the source of configuration said of itself when that failed.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidEndpointError extends Schema.TaggedError<InvalidEndpointError>()("InvalidEndpointError", {
  rule: EndpointRule,
  input: Schema.String,
  expected: Schema.String
}) {
  /** The same address is refused again. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `${this.rule}: expected ${this.expected}, got ${this.input === "" ? "none" : JSON.stringify(this.input)}`
  }
}
