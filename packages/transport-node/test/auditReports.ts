import { X509BundleSet } from "@agentweave/spiffe"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import type { DevAuthority } from "@agentweave/testkit/DevAuthority"
import { AuditFile } from "@agentweave/transport-node"

/** A file as text. */
export interface TextFile extends AuditFile.File {
  readonly text: string
}

/** The subject of a finding in one word. */
export const kindOf = (finding: AuditFile.Finding): string =>
  finding._tag === "Incomplete" ? finding.what : finding._tag === "Tampered" ? finding.problem : finding._tag

/** Names the findings that keep a file from being verified, leaving aside that no bundle is given to know its signers by. */
export const problemsOf = (files: string | ReadonlyArray<AuditFile.File>): ReadonlyArray<string> =>
  AuditFile.verify(files)
    .findings.map(kindOf)
    .filter((kind) => kind !== "SignerUnknown")

/** Trusts one workload of an authority. */
export const trustIn = (authority: DevAuthority, path: string): AuditFile.Trust => ({
  bundles: X509BundleSet.of(authority.bundle),
  expected: PeerMatcher.exactly(authority.id(path))
})
