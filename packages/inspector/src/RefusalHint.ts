/**
 * Sentences on where to look first when a connection was refused.
 *
 * @since 0.1.0
 */
import type { RefusalEvent } from "./internal/activityState.js"

/** By the error's tag and its reason. */
const hints: Readonly<Record<string, string>> = {
  "PeerVerificationError NoCertificate":
    "The peer presented no certificate. Check that it is configured with an SVID and speaks mutual TLS.",
  "PeerVerificationError UntrustedChain":
    "The peer's certificate was not signed by an authority in the bundle of its trust domain. After a change of root the bundle must hold both, and the peer must send its intermediates.",
  "PeerVerificationError Expired":
    "The peer's certificate has expired. Check that it still gets new SVIDs from its agent, then compare the clocks of both machines.",
  "PeerVerificationError NotYetValid":
    "The peer's certificate is not valid yet. Compare the clocks of both machines: this one may be behind.",
  "PeerVerificationError InvalidChain":
    "An authority on the path was issued wrongly. Look at the CA named in the description, not at the workload.",
  "PeerVerificationError InvalidLeaf":
    "The peer's certificate is not an X.509-SVID. It may have been issued for the web, or as a CA.",
  "PeerVerificationError InvalidSpiffeId":
    "An X.509-SVID has exactly one URI SAN: a SPIFFE ID with a path. Look at how the workload is registered.",
  "PeerVerificationError NoBundle":
    "There is no bundle for the peer's trust domain. Check that it is federated with ours and that its bundle has arrived.",
  "PeerVerificationError UnexpectedPeer":
    "The peer proved an identity, but another one than expected. Check the address, and the ID that is expected.",
  "PeerVerificationError LimitExceeded": "The peer sends more certificates, bytes or names than any SVID needs.",
  "PeerVerificationError NotMutual":
    "The server does not ask its clients for a certificate, so it would serve anyone. Have it require one.",
  "PeerVerificationError SessionResumed": "The peer resumed a TLS session although none was offered.",
  "PeerVerificationError VerifierFault": "This is a fault of the verifier. Please report it.",
  "IdentityError Unavailable":
    "This process has no identity yet. Check that its agent runs, and that the workload is registered there.",
  "IdentityError Expired":
    "Our own SVID has expired and no successor came. Check the connection to the agent, and its logs.",
  "IdentityError NotYetValid": "Our own SVID is not valid yet. Compare the clock with that of the authority.",
  "IdentityError Malformed": "Our own certificate, key or bundle cannot be read, or they do not belong together.",
  "IdentityError InvalidSvid": "Our own certificate does not keep the X.509-SVID profile. Look at how it was issued.",
  "IdentityError Withdrawn": "The agent took our identity back. Check that the workload is still registered.",
  "IdentityError LocalCertificateRefused":
    "The peer refused our certificate or our ID. Its audit log has the reason; check which IDs it authorises and which bundles it holds.",
  "ConnectionError Refused": "Nothing listens at this address. Check that the peer runs, and its port.",
  "ConnectionError Unreachable": "There is no route to this address. Check the network and its policies.",
  "ConnectionError Dns": "The name does not resolve. Check the host name, and the name server.",
  "ConnectionError NoAddress": "The peer directory has no address for this peer.",
  "ConnectionError HandshakeReset":
    "The other end cut the connection before the TLS handshake ended: a health check of a load balancer, a scan, or a peer that fails.",
  "ConnectionError NotTls": "The other end does not speak TLS. Check the port, and for a proxy in between.",
  "ConnectionError ProtocolMismatch": "There is no TLS version in common. TLS 1.2 must be asked for on our side.",
  "ConnectionError Negotiation":
    "The TLS handshake found no common parameters. Check ciphers and key types of both sides.",
  "ConnectionError LocalFault": "This machine has no file descriptor or memory left. The peer is not at fault.",
  "TimeoutError Connect": "The handshake took too long. Check the network and the load of the peer."
}

/** A sentence for the reasons of a server's own limits. */
const limit = "A limit of this server was reached. Raise it if the load is real; look at the addresses if it is not."

/**
 * Where to look first after a refusal: one sentence or two in English; `null` for a reason that there is none for.
 *
 * @since 0.1.0
 * @category getters
 * @example
 * ```ts
 * import { RefusalHint } from "@agentweave/inspector"
 * import type { AuditEvent } from "@agentweave/transport"
 *
 * const explain = (event: AuditEvent.AuditEvent): string =>
 *   event._tag === "ConnectionRefused" ? `${event.description}. ${RefusalHint.hintFor(event) ?? ""}` : event._tag
 * ```
 */
export const hintFor = (event: RefusalEvent): string | null => {
  switch (event._tag) {
    case "ConnectionRefused":
      return hints[`${event.error} ${event.reason}`] ?? null
    case "ConnectionsRefused":
      return event.reason.startsWith("max") ? limit : (hints[event.reason] ?? null)
  }
}
