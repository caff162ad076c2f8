/** Stand-ins for the constructors of `@agentweave/spiffe`. */
import { createHash, X509Certificate } from "node:crypto"
import { SpiffeId, type TrustDomain, type X509Bundle, type X509BundleSet, type X509Svid } from "@agentweave/spiffe"
import * as Effect from "effect/Effect"
import type { Credentials } from "../Credentials.js"

const digest = (parts: ReadonlyArray<Uint8Array | string>): string =>
  parts.reduce((hash, part) => hash.update(part), createHash("sha256")).digest("hex")

export const svidFrom = (credentials: Credentials, hint: string | undefined): Effect.Effect<X509Svid.X509Svid> =>
  Effect.sync(() => {
    const all = credentials.certificates.map((der) => new X509Certificate(der))
    const leaf = new X509Certificate(credentials.certificates[0])
    return {
      spiffeId: SpiffeId.make((leaf.subjectAltName ?? "").replace(/^URI:/, "")),
      certificates: credentials.certificates,
      privateKey: credentials.privateKey,
      serialNumber: leaf.serialNumber,
      fingerprint: digest([credentials.certificates[0]]),
      notBefore: Math.max(...all.map((certificate) => Date.parse(certificate.validFrom))),
      notAfter: Math.min(...all.map((certificate) => Date.parse(certificate.validTo))),
      hint
    }
  })

export const bundleFrom = (
  trustDomain: TrustDomain.TrustDomain,
  authorities: ReadonlyArray<Uint8Array>
): X509Bundle.X509Bundle => ({ trustDomain, authorities, generation: digest(authorities) })

export const bundleSetFrom = (bundles: ReadonlyArray<X509Bundle.X509Bundle>): X509BundleSet.X509BundleSet => ({
  bundles: new Map(bundles.map((bundle) => [bundle.trustDomain, bundle])),
  generation: digest(bundles.map((bundle) => bundle.generation))
})
