/**
 * One consistent snapshot of what a workload is and whom it can verify.
 *
 * @since 0.1.0
 */
import type { X509BundleSet } from "./X509BundleSet.js"
import type { X509Svid } from "./X509Svid.js"

/**
 * Own SVIDs and all bundles, as they were delivered together. Immutable; a rotation is a new value.
 *
 * @since 0.1.0
 * @category models
 */
export interface X509Context {
  /** The default SVID: the first one delivered. */
  readonly svid: X509Svid
  /** All SVIDs delivered, the default first. */
  readonly svids: readonly [X509Svid, ...ReadonlyArray<X509Svid>]
  readonly bundles: X509BundleSet
}

/**
 * An identity: the SVID to present, others the source delivered (default none), and the bundles to trust.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { type X509Bundle, X509BundleSet, X509Context, type X509Svid } from "@agentweave/spiffe"
 *
 * const context = (svid: X509Svid.X509Svid, bundle: X509Bundle.X509Bundle) =>
 *   X509Context.make({ svid, bundles: X509BundleSet.of(bundle) })
 * ```
 */
export const make = (options: {
  readonly svid: X509Svid
  readonly others?: ReadonlyArray<X509Svid> | undefined
  readonly bundles: X509BundleSet
}): X509Context => ({
  svid: options.svid,
  svids: [options.svid, ...(options.others ?? [])],
  bundles: options.bundles
})
