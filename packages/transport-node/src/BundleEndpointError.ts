/**
 * The failure of one attempt to fetch a bundle.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * - `Unreachable`: no answer came, or it broke off.
 * - `Unauthenticated`: the endpoint did not prove to be what it must be, or we have no identity to ask with.
 * - `Timeout`: the answer was not there in time.
 * - `Status`: an answer other than 200.
 * - `Redirect`: a redirect to what is no bundle endpoint URL, or one too many.
 * - `TooLarge`: more bytes than allowed.
 * - `Malformed`: not a SPIFFE bundle.
 * - `SequenceRegressed`: a bundle older than one already seen.
 *
 * @since 0.1.0
 * @category models
 */
export const BundleEndpointReason = Schema.Literal(
  "Unreachable",
  "Unauthenticated",
  "Timeout",
  "Status",
  "Redirect",
  "TooLarge",
  "Malformed",
  "SequenceRegressed"
)

/**
 * The reasons of a `BundleEndpointError`.
 *
 * @since 0.1.0
 * @category models
 */
export type BundleEndpointReason = typeof BundleEndpointReason.Type

/**
 * A bundle was not fetched; the last good one stays. `url` is without its query.
 *
 * @since 0.1.0
 * @category errors
 */
export class BundleEndpointError extends Schema.TaggedError<BundleEndpointError>()("BundleEndpointError", {
  reason: BundleEndpointReason,
  trustDomain: Schema.String,
  url: Schema.String,
  description: Schema.String,
  cause: Schema.optional(Schema.Defect)
}) {
  /** Every refresh is a new attempt: what failed once may be mended by then. */
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    return `${this.reason}: ${this.description} (bundle of ${this.trustDomain} from ${this.url})`
  }
}
