import type { DetailedPeerCertificate, TLSSocket } from "node:tls"

/** A certificate as Node describes it; all fields are missing where the peer presented none. */
export type Presented = Partial<DetailedPeerCertificate>

/** One more than the gate accepts, so that it sees that there were too many. */
const limit = 11

/**
 * The certificates of a connection, DER, leaf first. `issuerCertificate` links match by name and not by signature, so
 * what follows the leaf is a set of candidates and nothing more; only the raw bytes are used.
 */
export const presentedChain = (socket: TLSSocket): ReadonlyArray<Uint8Array> => {
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
