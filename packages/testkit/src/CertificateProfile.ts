/**
 * The fields of a certificate, as a value: every one that a test may want to get right, or wrong.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type { KeyAlgorithm, KeyPair } from "./KeyPair.js"

/**
 * When a certificate is valid. `Current` starts a minute ago, or a tenth of the profile's `ttl` if that is less, and lasts
 * for the `ttl` from now; `Expired` ended an hour ago; `Future` begins in an hour; or two instants in milliseconds since the epoch (whole seconds: X.509 has no
 * fractions, they are cut off).
 *
 * @since 0.1.0
 * @category models
 */
export type Validity = "Current" | "Expired" | "Future" | { readonly notBefore: number; readonly notAfter: number }

/**
 * RFC 5280 section 4.2.1.3.
 *
 * @since 0.1.0
 * @category models
 */
export type KeyUsage =
  | "digitalSignature"
  | "nonRepudiation"
  | "keyEncipherment"
  | "dataEncipherment"
  | "keyAgreement"
  | "keyCertSign"
  | "cRLSign"
  | "encipherOnly"
  | "decipherOnly"

/**
 * RFC 5280 section 4.2.1.10. Each name is written as given.
 *
 * @since 0.1.0
 * @category models
 */
export interface NameConstraints {
  readonly permitted?: GeneralSubtrees | undefined
  readonly excluded?: GeneralSubtrees | undefined
}

/**
 * The names a name constraint permits or excludes (RFC 5280 section 4.2.1.10).
 *
 * @since 0.1.0
 * @category models
 */
export interface GeneralSubtrees {
  readonly uris?: ReadonlyArray<string> | undefined
  readonly dnsNames?: ReadonlyArray<string> | undefined
  readonly emails?: ReadonlyArray<string> | undefined
  /** IPv4 addresses with the length of their prefix: `10.0.0.0/8`. */
  readonly ipRanges?: ReadonlyArray<string> | undefined
  /** Distinguished names, e.g. `O=SPIFFE`. */
  readonly directoryNames?: ReadonlyArray<string> | undefined
}

/**
 * An extension by its raw DER value.
 *
 * @since 0.1.0
 * @category models
 */
export interface RawExtension {
  readonly oid: string
  readonly critical: boolean
  readonly value: Uint8Array
}

/**
 * Every field is optional; what is left out is what a proper certificate of its kind has. Nothing that can be written is
 * refused: a profile is how a test says what is wrong with a certificate. A field that there is not, and a value that would
 * be taken for another one, as a negative `ttl`, is a `MintError` that names the field.
 *
 * @since 0.1.0
 * @category models
 */
export interface CertificateProfile {
  /** Distinguished name, e.g. `CN=api,O=SPIFFE`. */
  readonly subject?: string | undefined
  /** Hex. Default: 16 bytes from Effect's `Random`. */
  readonly serialNumber?: string | undefined
  /** Default `Current`. */
  readonly validity?: Validity | undefined
  /** How long a `Current` certificate lasts from now. Default 1 hour for a leaf, 365 days for a CA. */
  readonly ttl?: Duration.DurationInput | undefined
  /** Default: the issuer's algorithm. */
  readonly keyAlgorithm?: KeyAlgorithm | undefined
  /** Certifies this key instead of a new one. */
  readonly keyPair?: KeyPair | undefined
  /** Default: critical, a CA without a path length for a CA, not a CA for a leaf. */
  readonly basicConstraints?: { readonly ca: boolean; readonly pathLength?: number | undefined } | "Absent" | undefined
  /** Default: `digitalSignature` for a leaf, `keyCertSign` and `cRLSign` for a CA. Critical. */
  readonly keyUsage?: ReadonlyArray<KeyUsage> | "Absent" | undefined
  /** Purposes by name or OID. Default: both for a leaf, absent for a CA. */
  readonly extendedKeyUsage?: ReadonlyArray<"serverAuth" | "clientAuth" | (string & {})> | "Absent" | undefined
  /** URI SANs, byte for byte as given. Default: the workload's SPIFFE ID, or that of the trust domain for a CA. */
  readonly uris?: ReadonlyArray<string | Uint8Array> | undefined
  /** DNS SANs. Default none. */
  readonly dnsNames?: ReadonlyArray<string> | undefined
  /** IPv4 SANs in dotted form. Default none. */
  readonly ipAddresses?: ReadonlyArray<string> | undefined
  /** Email SANs. Default none. */
  readonly emails?: ReadonlyArray<string> | undefined
  /** Default none; critical when given. */
  readonly nameConstraints?: NameConstraints | undefined
  /** Hex. Default: the certified key's identifier. */
  readonly subjectKeyIdentifier?: string | "Absent" | undefined
  /** Hex. Default: the issuer's key identifier. */
  readonly authorityKeyIdentifier?: string | "Absent" | undefined
  /** Further extensions, after the others. */
  readonly extensions?: ReadonlyArray<RawExtension> | undefined
  /** Default: SHA-256, or the digest of the issuer's curve. Means nothing to Ed25519. */
  readonly signatureHash?: "SHA-1" | "SHA-256" | "SHA-384" | "SHA-512" | undefined
  /** How an RSA issuer signs. Default `PKCS1`; the salt of `PSS` is as long as the digest. */
  readonly signaturePadding?: "PKCS1" | "PSS" | undefined
  /**
   * Default `Valid`. `WrongKey` signs with a key that is not the issuer's; `Altered` changes the certificate after it
   * was signed.
   */
  readonly signature?: "Valid" | "WrongKey" | "Altered" | undefined
}
