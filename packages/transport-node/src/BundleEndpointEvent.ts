/**
 * Events of fetching a bundle from its endpoint. Every event is a plain value with a stable JSON form.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { BundleEndpointReason } from "./BundleEndpointError.js"

const common = {
  trustDomain: Schema.String,
  /** Without its query. */
  url: Schema.String,
  /** How soon the endpoint is asked again. */
  nextInMillis: Schema.Number
}

/**
 * A bundle was fetched.
 *
 * @since 0.1.0
 * @category models
 */
export const BundleFetched = Schema.TaggedStruct("BundleFetched", {
  ...common,
  /** Whether its authorities differ from the ones before. */
  changed: Schema.Boolean,
  /** In decimal; absent when the document has none. */
  sequence: Schema.optional(Schema.String),
  generation: Schema.String,
  authorities: Schema.Number,
  /** The entries that cannot be used, with their problems; absent when there are none. */
  leftOut: Schema.optional(Schema.String)
})

/**
 * An attempt failed, and the bundle stays as it was.
 *
 * @since 0.1.0
 * @category models
 */
export const BundleFetchFailed = Schema.TaggedStruct("BundleFetchFailed", {
  ...common,
  reason: BundleEndpointReason,
  description: Schema.String,
  /** How many attempts in a row have failed. */
  failures: Schema.Number
})

/**
 * Every event there is.
 *
 * @since 0.1.0
 * @category models
 */
export const BundleEndpointEvent = Schema.Union(BundleFetched, BundleFetchFailed)

/**
 * An event of fetching a bundle from its endpoint.
 *
 * @since 0.1.0
 * @category models
 */
export type BundleEndpointEvent = typeof BundleEndpointEvent.Type
