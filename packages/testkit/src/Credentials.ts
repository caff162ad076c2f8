/**
 * Credentials as a peer presents them on the wire: certificates and the key of the first one, right or wrong.
 *
 * @since 0.1.0
 */
import type { KeyObject } from "node:crypto"
import { dual } from "effect/Function"
import * as Redacted from "effect/Redacted"
import type * as KeyPair from "./KeyPair.js"

/**
 * A certificate chain and its key, unchecked, so that a peer in a test can present what no honest workload would. The
 * honest counterpart is an `X509Svid`. The key does not show when the value is printed.
 *
 * @since 0.1.0
 * @category models
 */
export interface Credentials {
  /** DER, the leaf first. */
  readonly certificates: readonly [leaf: Uint8Array, ...rest: ReadonlyArray<Uint8Array>]
  /** The same as one PEM text, as `tls` takes it for `cert`. */
  readonly certificatesPem: string
  readonly privateKey: Redacted.Redacted<KeyObject>
  /** PKCS#8 PEM, as `tls` takes it for `key`. */
  readonly privateKeyPem: Redacted.Redacted<string>
  readonly keyPair: KeyPair.KeyPair
  /** The leaf's subject, a distinguished name. */
  readonly subject: string
  /** The subject key identifier the leaf states, hex. */
  readonly keyIdentifier: string
}

/**
 * A certificate as PEM.
 *
 * @since 0.1.0
 * @category conversions
 */
export const toPem = (certificate: Uint8Array): string => {
  const lines =
    Buffer.from(certificate)
      .toString("base64")
      .match(/.{1,64}/g) ?? []
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`
}

/**
 * Credentials of certificates and the key of the first one, as they are: nothing is checked.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { type CertificateAuthority, Credentials } from "@agentweave/testkit"
 *
 * // A CA's own certificate, presented as if it were a leaf.
 * const presented = ({ certificate, keyIdentifier, keyPair, subject }: CertificateAuthority.CertificateAuthority) =>
 *   Credentials.make({ certificates: [certificate], keyPair, subject, keyIdentifier })
 * ```
 */
export const make = (options: {
  readonly certificates: readonly [leaf: Uint8Array, ...rest: ReadonlyArray<Uint8Array>]
  readonly keyPair: KeyPair.KeyPair
  readonly subject: string
  readonly keyIdentifier: string
}): Credentials => ({
  ...options,
  certificatesPem: options.certificates.map(toPem).join(""),
  privateKey: options.keyPair.privateKey,
  privateKeyPem: Redacted.make(
    Redacted.value(options.keyPair.privateKey).export({ type: "pkcs8", format: "pem" }).toString()
  )
})

/**
 * The same leaf and key with other certificates after it: missing, reordered, foreign or junk ones.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { CertificateAuthority, Credentials } from "@agentweave/testkit"
 * import { Effect } from "effect"
 *
 * const junkAfterTheLeaf = (authority: CertificateAuthority.CertificateAuthority) =>
 *   Effect.map(CertificateAuthority.issue(authority), Credentials.withChain([new Uint8Array(64)]))
 * ```
 */
export const withChain: {
  (chain: ReadonlyArray<Uint8Array>): (self: Credentials) => Credentials
  (self: Credentials, chain: ReadonlyArray<Uint8Array>): Credentials
} = dual(
  2,
  (self: Credentials, chain: ReadonlyArray<Uint8Array>): Credentials =>
    make({ ...self, certificates: [self.certificates[0], ...chain] })
)

/**
 * The same certificates with another key, which does not belong to them.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { CertificateAuthority, Credentials, KeyPair } from "@agentweave/testkit"
 * import { Effect } from "effect"
 *
 * const keyOfAnother = (authority: CertificateAuthority.CertificateAuthority) =>
 *   Effect.zipWith(CertificateAuthority.issue(authority), KeyPair.make("P-256"), Credentials.withKeyPair)
 * ```
 */
export const withKeyPair: {
  (keyPair: KeyPair.KeyPair): (self: Credentials) => Credentials
  (self: Credentials, keyPair: KeyPair.KeyPair): Credentials
} = dual(2, (self: Credentials, keyPair: KeyPair.KeyPair): Credentials => make({ ...self, keyPair }))
