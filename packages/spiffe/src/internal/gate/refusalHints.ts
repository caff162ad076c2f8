import type { PeerVerificationReason } from "../../PeerVerificationError.js"
import type { Refusal } from "./guard.js"

const byReason: Readonly<Record<PeerVerificationReason, string>> = {
  NoCertificate: "is the peer configured with an SVID, and does it speak mutual TLS?",
  UntrustedChain:
    "is the peer's SVID signed by the authority in this bundle? After a change of root the bundle must hold both, and the peer must send its intermediates",
  Expired: "does the peer still get new SVIDs from its agent? If so, compare the clocks of both machines",
  NotYetValid: "compare the clocks of both machines: this one is behind, or the certificate was issued ahead of time",
  InvalidChain: "an authority on the path was issued wrongly: look at the CA named, not at the workload",
  InvalidLeaf: "the certificate is not an X.509-SVID: was it issued for the web, or as a CA?",
  InvalidSpiffeId: "an X.509-SVID has one URI SAN, a SPIFFE ID with a path: look at how the workload is registered",
  NoBundle: "is this trust domain federated with ours, and has its bundle arrived?",
  UnexpectedPeer: "a valid identity, but another: is the address the right one, and the expected ID?",
  LimitExceeded: "the peer sends more certificates, bytes or names than any SVID needs",
  NotMutual: "have the server ask its clients for a certificate, and require one: without it anyone is served",
  SessionResumed: "the peer resumed a session although none was offered",
  VerifierFault: "this is a fault of the verifier: please report it"
}

/** The first thing to look at. */
export const hintFor = ({ reason }: Refusal): string => byReason[reason]
