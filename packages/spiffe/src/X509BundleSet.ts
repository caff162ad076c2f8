/**
 * One bundle a trust domain; bundles are never merged (SPIFFE_Federation).
 *
 * @since 0.1.0
 */
import type { TrustDomain } from "./TrustDomain.js"
import type { X509Bundle } from "./X509Bundle.js"

/**
 * @since 0.1.0
 * @category models
 */
export interface X509BundleSet {
  readonly bundles: ReadonlyMap<TrustDomain, X509Bundle>
  /** A digest over all bundles' generations, lower-case hex. */
  readonly generation: string
}
