import { constants } from "node:crypto"
import { createSecureContext, type SecureContext, type SecureContextOptions } from "node:tls"
import { IdentityError } from "@agentweave/spiffe/IdentityError"
import type { TrustDomain } from "@agentweave/spiffe/TrustDomain"
import * as X509Bundle from "@agentweave/spiffe/X509Bundle"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import * as X509Svid from "@agentweave/spiffe/X509Svid"
import type { TlsVersion } from "@agentweave/transport/TransportConfig"
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"

/**
 * The one place where TLS options are made. Every field is given every time: a context built from part of them would
 * silently fall back to Node's defaults, which allow RSA key exchange, CBC, renegotiation and RSA-1024.
 */
export const ciphers = [
  "TLS_AES_256_GCM_SHA384",
  "TLS_AES_128_GCM_SHA256",
  "TLS_CHACHA20_POLY1305_SHA256",
  "ECDHE-ECDSA-AES256-GCM-SHA384",
  "ECDHE-RSA-AES256-GCM-SHA384",
  "ECDHE-ECDSA-AES128-GCM-SHA256",
  "ECDHE-RSA-AES128-GCM-SHA256",
  "ECDHE-ECDSA-CHACHA20-POLY1305",
  "ECDHE-RSA-CHACHA20-POLY1305",
  "@SECLEVEL=2"
].join(":")

/** No session tickets and no renegotiation: every connection is a full handshake with a full verification. */
export const secureOptions = constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION

export interface TlsVersions {
  readonly tlsMinVersion: TlsVersion
  readonly tlsMaxVersion: TlsVersion
}

/** TLS options of both ends. `ca: []` trusts nobody; an absent `ca` would mean the public web's roots. */
export const contextOptions = (
  context: X509Context,
  trustDomains: Iterable<TrustDomain>,
  versions: TlsVersions
): SecureContextOptions & { readonly allowPartialTrustChain: true } => {
  const ca: Array<string> = []
  for (const domain of trustDomains) {
    const bundle = context.bundles.bundles.get(domain)
    if (bundle !== undefined && bundle.authorities.length > 0) ca.push(X509Bundle.toPem(bundle))
  }
  return {
    minVersion: versions.tlsMinVersion,
    maxVersion: versions.tlsMaxVersion,
    ciphers,
    secureOptions,
    cert: X509Svid.certificatesPem(context.svid),
    key: Redacted.value(X509Svid.privateKeyPem(context.svid)),
    ca,
    allowPartialTrustChain: true
  }
}

/** Our own credentials do not load: the mistake is ours, not the peer's. The cause's message names no key material. */
const malformed = (cause: unknown): IdentityError =>
  new IdentityError({
    reason: "Malformed",
    description: `expected an SVID and bundles that OpenSSL can load, got ${(cause as { readonly code?: string }).code ?? "an error"}`
  })

/** A fresh context, or the reason why these credentials cannot be used. */
export const makeSecureContext = (
  context: X509Context,
  trustDomains: Iterable<TrustDomain>,
  versions: TlsVersions
): Either.Either<SecureContext, IdentityError> =>
  Either.try({
    try: () => createSecureContext(contextOptions(context, trustDomains, versions)),
    catch: malformed
  })

/** Contexts are dear to make (a millisecond) and immutable: one a snapshot, trust domain and version range. */
export class SecureContexts {
  private readonly known = new WeakMap<X509Context, Map<string, Either.Either<SecureContext, IdentityError>>>()

  get(
    context: X509Context,
    trustDomains: Iterable<TrustDomain>,
    versions: TlsVersions
  ): Either.Either<SecureContext, IdentityError> {
    const domains = Array.from(trustDomains)
    const key = `${versions.tlsMinVersion} ${versions.tlsMaxVersion} ${domains.join(" ")}`
    let ofContext = this.known.get(context)
    if (ofContext === undefined) {
      ofContext = new Map()
      this.known.set(context, ofContext)
    }
    let made = ofContext.get(key)
    if (made === undefined) {
      made = makeSecureContext(context, domains, versions)
      ofContext.set(key, made)
    }
    return made
  }
}
