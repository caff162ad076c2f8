/**
 * X.509 bundles: the trust anchors of one trust domain.
 *
 * @since 0.1.0
 */
import type { TrustDomain } from "./TrustDomain.js"

/**
 * The X.509 authorities of one trust domain. Every certificate parsed; an empty bundle is legal and trusts nobody.
 *
 * @since 0.1.0
 * @category models
 */
export interface X509Bundle {
  readonly trustDomain: TrustDomain
  /** DER of each authority. */
  readonly authorities: ReadonlyArray<Uint8Array>
  /** SHA-256 over the authorities, lower-case hex: the bundle's generation. Equal content has an equal generation. */
  readonly generation: string
}
