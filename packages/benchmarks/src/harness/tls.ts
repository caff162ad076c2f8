import { constants } from "node:crypto"
import type { SecureContextOptions, TLSSocket } from "node:tls"
import type { Credentials, Identity } from "./credentials.js"

/** What a careful user of bare `node:tls` would write: the same versions, ciphers and refusals as ours. */
export const tlsOptions = (
  credentials: Credentials,
  identity: Identity
): SecureContextOptions & { readonly allowPartialTrustChain: true } => ({
  minVersion: "TLSv1.3",
  maxVersion: "TLSv1.3",
  secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
  cert: identity.certificates,
  key: identity.key,
  ca: [credentials.ca],
  allowPartialTrustChain: true
})

/** The SPIFFE ID in the peer's certificate, as far as bare Node tells it. */
export const peerOf = (socket: TLSSocket): string => {
  const { subjectaltname } = socket.getPeerCertificate()
  return subjectaltname?.replace(/^URI:/, "") ?? "none"
}
