/**
 * X.509-SVIDs: a workload's certificate chain and private key.
 *
 * @since 0.1.0
 */
import type { KeyObject } from "node:crypto"
import type * as Redacted from "effect/Redacted"
import type { SpiffeId } from "./SpiffeId.js"

/**
 * An X.509-SVID with its private key: checked at construction, immutable, and printed without its key in every form.
 *
 * @since 0.1.0
 * @category models
 */
export interface X509Svid {
  readonly spiffeId: SpiffeId
  /** DER, the leaf first, then the intermediates in order. */
  readonly certificates: readonly [leaf: Uint8Array, ...intermediates: ReadonlyArray<Uint8Array>]
  readonly privateKey: Redacted.Redacted<KeyObject>
  /** The leaf's serial number, upper-case hex. */
  readonly serialNumber: string
  /** SHA-256 of the leaf's DER, lower-case hex. */
  readonly fingerprint: string
  /** Latest notBefore and earliest notAfter over the leaf and its intermediates, milliseconds since the epoch. */
  readonly notBefore: number
  readonly notAfter: number
  /** The operator's hint from the Workload API, for choosing between several SVIDs. */
  readonly hint: string | undefined
}
