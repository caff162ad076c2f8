import type { TLSSocket } from "node:tls"
import type { VerifiedPeer } from "@agentweave/spiffe/PeerVerifier"
import type { X509Svid } from "@agentweave/spiffe/X509Svid"

/** Whose a connection is and how it is secured, as it stands on record, on either side. */
export const securedBy = (socket: TLSSocket, peer: VerifiedPeer, own: X509Svid) => ({
  peerId: peer.spiffeId,
  peerSerialNumber: peer.serialNumber,
  peerFingerprint: peer.fingerprint,
  ownId: own.spiffeId,
  ownSerialNumber: own.serialNumber,
  ownFingerprint: own.fingerprint,
  bundleGeneration: peer.bundleGeneration,
  tlsVersion: socket.getProtocol() ?? "unknown",
  cipher: socket.getCipher().name
})
