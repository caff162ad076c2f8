/**
 * The changes of the identity that the agent provides, as values for an audit trail: each has a stable JSON form, and none
 * holds key material.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { WorkloadApiErrorReason } from "./WorkloadApiError.js"

/**
 * Why an update, or a federated bundle in it, was discarded.
 *
 * - `Malformed`: the bytes are not the message they should be.
 * - `LimitExceeded`: more SVIDs, bundles or certificates than allowed.
 * - `MissingField`: a mandatory field has its default value (SPIFFE_Workload_API section 4.5); no SVID at all.
 * - `InvalidSpiffeId`: a SPIFFE ID of an SVID or trust domain that breaks the grammar.
 * - `InvalidSvid`: a certificate or key that cannot be read, that do not belong together, or a leaf that breaks the
 *   X.509-SVID profile, such as one that is a CA.
 * - `SpiffeIdMismatch`: the field `spiffe_id` is not what the certificate says.
 * - `Expired`: an SVID that is past its notAfter.
 * - `InvalidBundle`: a bundle that cannot be read, or without any certificate that can be read and is a CA.
 * - `ConflictingBundles`: two different bundles for one trust domain; bundles are never merged.
 *
 * @since 0.1.0
 * @category models
 */
export const DiscardReason = Schema.Literal(
  "Malformed",
  "LimitExceeded",
  "MissingField",
  "InvalidSpiffeId",
  "InvalidSvid",
  "SpiffeIdMismatch",
  "Expired",
  "InvalidBundle",
  "ConflictingBundles"
)

/**
 * The reasons for which an update of the agent is discarded.
 *
 * @since 0.1.0
 * @category models
 */
export type DiscardReason = typeof DiscardReason.Type

const common = {
  /** Milliseconds since the epoch, from Effect's Clock. */
  time: Schema.Number
}

const svid = {
  spiffeId: Schema.String,
  serialNumber: Schema.String,
  fingerprint: Schema.String,
  /** Milliseconds since the epoch. */
  notAfter: Schema.Number
}

/**
 * A usable update came: it serves from now on, or from its SVID's notBefore.
 *
 * @since 0.1.0
 * @category models
 */
export const Updated = Schema.TaggedStruct("Updated", {
  ...common,
  ...svid,
  /** Milliseconds since the epoch. */
  notBefore: Schema.Number,
  /** The trust domains that have a bundle now. */
  trustDomains: Schema.Array(Schema.String),
  bundleGeneration: Schema.String
})

/**
 * An update cannot be used; the last good one goes on serving.
 *
 * @since 0.1.0
 * @category models
 */
export const UpdateDiscarded = Schema.TaggedStruct("UpdateDiscarded", {
  ...common,
  reason: DiscardReason,
  description: Schema.String
})

/**
 * A federated bundle of an update cannot be used: its trust domain cannot be verified, everything else of the update
 * serves. It is reported once, until an update comes without it.
 *
 * @since 0.1.0
 * @category models
 */
export const BundleDiscarded = Schema.TaggedStruct("BundleDiscarded", {
  ...common,
  /** The name of the foreign trust domain, or the key of the bundle as it came when it names none. */
  trustDomain: Schema.String,
  reason: DiscardReason,
  description: Schema.String
})

/**
 * A bundle of an update, our own or a federated one, has entries that cannot be used as authorities: the others serve. It is
 * reported once, until an update comes without it.
 *
 * @since 0.1.0
 * @category models
 */
export const AuthoritiesLeftOut = Schema.TaggedStruct("AuthoritiesLeftOut", {
  ...common,
  trustDomain: Schema.String,
  /** The entries and their problems. */
  description: Schema.String
})

/**
 * The stream ended; it will be opened again after a backoff.
 *
 * @since 0.1.0
 * @category models
 */
export const Disconnected = Schema.TaggedStruct("Disconnected", {
  ...common,
  reason: WorkloadApiErrorReason,
  description: Schema.String
})

/**
 * The agent took the identity back: it serves no longer.
 *
 * @since 0.1.0
 * @category models
 */
export const Withdrawn = Schema.TaggedStruct("Withdrawn", { ...common, description: Schema.String })

/**
 * The SVID is past its notAfter, and no successor came.
 *
 * @since 0.1.0
 * @category models
 */
export const Expired = Schema.TaggedStruct("Expired", { ...common, ...svid })

/**
 * No identity came within the initial wait. The agent is still being asked.
 *
 * @since 0.1.0
 * @category models
 */
export const InitialWaitOver = Schema.TaggedStruct("InitialWaitOver", { ...common, description: Schema.String })

/**
 * The agent is not asked any more: it refused the call as invalid or not implemented, or the reconnect schedule has ended.
 *
 * @since 0.1.0
 * @category models
 */
export const Stopped = Schema.TaggedStruct("Stopped", {
  ...common,
  reason: WorkloadApiErrorReason,
  description: Schema.String
})

/**
 * Every event there is.
 *
 * @since 0.1.0
 * @category models
 */
export const WorkloadApiEvent = Schema.Union(
  Updated,
  UpdateDiscarded,
  BundleDiscarded,
  AuthoritiesLeftOut,
  Disconnected,
  Withdrawn,
  Expired,
  InitialWaitOver,
  Stopped
)

/**
 * An event of the identity that comes from the agent.
 *
 * @since 0.1.0
 * @category models
 */
export type WorkloadApiEvent = typeof WorkloadApiEvent.Type
