import type { X509Certificate } from "node:crypto"
import type { DetailedPeerCertificate, TLSSocket } from "node:tls"

/** A certificate as Node describes it; all fields are missing where the peer presented none. */
export type Presented = Partial<DetailedPeerCertificate>

/** One more than the gate accepts, so that it sees that there were too many. */
const limit = 11

/**
 * The certificates of a connection as Node links them, DER, leaf first. `issuerCertificate` links match by name and not by
 * signature, so what follows the leaf is a set of candidates and nothing more; only the raw bytes are used. A certificate
 * is missing where the links do not lead to it: after one that is out of order, or one of the same name.
 */
export const linkedChain = (socket: TLSSocket): ReadonlyArray<Uint8Array> => {
  const chain: Array<Uint8Array> = []
  const seen = new Set<string>()
  let certificate: Presented | undefined = socket.getPeerCertificate(true)
  while (certificate?.raw !== undefined && chain.length < limit) {
    const fingerprint: string = certificate.fingerprint256 ?? certificate.raw.toString("base64")
    if (seen.has(fingerprint)) break
    seen.add(fingerprint)
    chain.push(new Uint8Array(certificate.raw))
    certificate = certificate.issuerCertificate
  }
  return chain
}

/**
 * All certificates that the peer sent, in its order (RFC 8446 section 4.4.2 asks verifiers to take any order). Node gives
 * them away: a second call (Node 20, 22, 24.21) finds the leaf at most. To be asked for after `linkedChain` and only where that
 * is not enough: Node 20 loses 15 KiB of memory by each call.
 */
export const wholeChain = (socket: TLSSocket): ReadonlyArray<Uint8Array> => {
  const chain: Array<Uint8Array> = []
  let certificate: X509Certificate | undefined = socket.getPeerX509Certificate()
  while (certificate !== undefined && chain.length < limit) {
    chain.push(new Uint8Array(certificate.raw))
    certificate = certificate.issuerCertificate
  }
  return chain
}

/**
 * Whether the server asked the client that this socket is for its certificate. OpenSSL (Node 20 to 26, TLS 1.2 and 1.3)
 * knows signature algorithms of the server's only from its request for a certificate (RFC 8446 section 4.3.2, RFC 5246
 * section 7.4.4).
 */
export const isAskedForCertificate = (socket: TLSSocket): boolean => socket.getSharedSigalgs().length > 0
