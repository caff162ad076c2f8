/**
 * Events of an identity that is read from files. Every event is a plain value with a stable JSON form; none carries
 * key material.
 *
 * @since 0.1.0
 */
import { IdentityErrorReason } from "@agentweave/spiffe/IdentityError"
import * as Schema from "effect/Schema"

/**
 * An identity was read and serves from now on: the first one, or a rotation of the SVID or of a bundle.
 *
 * @since 0.1.0
 * @category models
 */
export const IdentityLoaded = Schema.TaggedStruct("IdentityLoaded", {
  spiffeId: Schema.String,
  serialNumber: Schema.String,
  fingerprint: Schema.String,
  /** Milliseconds since the epoch. */
  notAfter: Schema.Number,
  /** Generation of the set of all bundles. */
  bundleGeneration: Schema.String
})

/**
 * Something that was read cannot be used, and the last good SVID or bundle keeps serving in its place. Reported once for
 * the same content and the same fault.
 *
 * @since 0.1.0
 * @category models
 */
export const IdentityRejected = Schema.TaggedStruct("IdentityRejected", {
  reason: IdentityErrorReason,
  /** Names the file, what was expected and what was met. */
  description: Schema.String
})

/**
 * After a rejection all files are good again.
 *
 * @since 0.1.0
 * @category models
 */
export const IdentityRecovered = Schema.TaggedStruct("IdentityRecovered", {
  spiffeId: Schema.String
})

/**
 * A directory cannot be watched; changes in it are found at the next poll. `code` is the platform's error code.
 *
 * @since 0.1.0
 * @category models
 */
export const WatchFailed = Schema.TaggedStruct("WatchFailed", {
  directory: Schema.String,
  code: Schema.String
})

/**
 * Everybody on the machine may read the private key's file.
 *
 * @since 0.1.0
 * @category models
 */
export const KeyExposed = Schema.TaggedStruct("KeyExposed", {
  path: Schema.String
})

/**
 * Every event there is.
 *
 * @since 0.1.0
 * @category models
 */
export const IdentityFileEvent = Schema.Union(
  IdentityLoaded,
  IdentityRejected,
  IdentityRecovered,
  WatchFailed,
  KeyExposed
)

/**
 * An event of an identity that is read from files.
 *
 * @since 0.1.0
 * @category models
 */
export type IdentityFileEvent = typeof IdentityFileEvent.Type
