/** Files of certificates and bundles, as the commands read them. */
import { SpiffeBundle, type TrustDomain, X509Bundle } from "@agentweave/spiffe"
import { Effect } from "effect"
import { UsageError } from "../UsageError.js"

/** The certificates of a PEM text, in their order, as they are: who reads them judges them. */
const certificatesOf = (pem: string): ReadonlyArray<Uint8Array> =>
  Array.from(pem.matchAll(/-----BEGIN CERTIFICATE-----([^-]*)-----END CERTIFICATE-----/g), ([, body]) =>
    Buffer.from(body ?? "", "base64")
  )

/** The chain in a file; a file without a certificate is not what was asked for. */
export const readChain = (path: string, pem: string): Effect.Effect<ReadonlyArray<Uint8Array>, UsageError> => {
  const chain = certificatesOf(pem)
  if (chain.length > 0) return Effect.succeed(chain)
  const [, label] = /-----BEGIN ([A-Z0-9 ]+)-----/.exec(pem) ?? []
  const got = label === undefined ? "none" : label.endsWith("PRIVATE KEY") ? "a private key" : `a block ${label}`
  return Effect.fail(new UsageError({ message: `expected PEM certificates in ${path}, got ${got}` }))
}

/** The authorities of a bundle file for a trust domain: PEM, or a SPIFFE bundle document. */
export const readBundle = (trustDomain: TrustDomain.TrustDomain, text: string) =>
  text.trimStart().startsWith("{")
    ? Effect.map(SpiffeBundle.parse(trustDomain, text), ({ x509Bundle }) => x509Bundle)
    : X509Bundle.fromPem(trustDomain, text)
