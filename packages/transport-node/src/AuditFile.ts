/**
 * Audit files, verified. An audit file is newline-delimited JSON: records are chained by the SHA-256 of rows of up to 64 of
 * them, and signed at checkpoints with the workload's SVID. AUDIT_FORMAT.md of this package describes each field, and
 * SECURITY.md what verification can show and what it cannot.
 *
 * @since 0.1.0
 */
import type { Anchored } from "./AuditAnchor.js"
import type { Head } from "./internal/audit/format.js"
import { type Finding, gravity, type Signer, type TamperedProblem } from "./internal/auditVerification/findings.js"
import type { Trust } from "./internal/auditVerification/signers.js"
import { Verification } from "./internal/auditVerification/verification.js"

/**
 * How far an audit file can be believed, from the best to the gravest:
 *
 * - `Verified`: it begins with the first record of its log, every record is as it was written, it was closed in order, and
 *   each record is signed by the expected workload with an SVID that was valid at the record's time.
 * - `Incomplete`: what is there is as it was written, and something is missing, or may be: it begins in the middle, was not
 *   closed, lacks a file, or could not record everything.
 * - `Unsigned`: some records are chained, and no signature vouches for them: they could have been written by anybody. The last
 *   ones before a crash are among them, for a log that is opened again signs only what it writes itself.
 * - `SignerUnknown`: a signature is genuine, and its certificate is not one of the expected workload's under the given
 *   bundles: another bundle is needed, or the file was written anew by another.
 * - `Tampered`: a record is not as it was written.
 *
 * @since 0.1.0
 * @category models
 */
export type Verdict = "Verified" | "Incomplete" | "Unsigned" | "SignerUnknown" | "Tampered"

/**
 * The gravest of some verdicts; `Verified` where there are none.
 *
 * @since 0.1.0
 * @category getters
 */
export const gravest = (verdicts: Iterable<Verdict>): Verdict => {
  const all = new Set(verdicts)
  return gravity.find((verdict) => all.has(verdict)) ?? "Verified"
}

/**
 * The findings of one verification, and the verdict they come to.
 *
 * @since 0.1.0
 * @category models
 */
export interface Report {
  /** The gravest of the findings; `Verified` when there is none. */
  readonly verdict: Verdict
  /** Gravest first. */
  readonly findings: ReadonlyArray<Finding>
  /** Records that were read; up to the first bad one of a file that was tampered with. */
  readonly records: number
  /** Number of the first record given. */
  readonly first: number
  /**
   * Dates of the first and the last record, milliseconds since the epoch. What came after, and was removed as a whole with its
   * file, cannot be seen from inside: a log that ends long before now deserves a look.
   */
  readonly since: number
  readonly until: number
  /** Where the chain ends. */
  readonly head: Head
  /** Number of the last record under a signature that counts; -1 when there is none. */
  readonly signedUpTo: number
  /** Whether the log was closed in order. */
  readonly isClosed: boolean
  /** Records that were taken away from the log, by its own account. */
  readonly lost: ReadonlyArray<{ readonly from: number; readonly to: number }>
  /** Events that could not be recorded, by the log's own count. */
  readonly dropped: { readonly requests: number; readonly others: number }
  readonly signers: ReadonlyArray<Signer>
}

/**
 * A file to verify.
 *
 * @since 0.1.0
 * @category models
 */
export interface File {
  /** As findings are to name it. */
  readonly name: string
  /** Its content. Given as bytes, a file also shows changes to bytes that are not UTF-8. */
  readonly text: string | Uint8Array
}

export type {
  /**
   * One thing that keeps a file from being `Verified`.
   *
   * @since 0.1.0
   * @category models
   */
  Finding,
  /**
   * Where a chain stands: the number of its last record, and the hash of the row that record is in.
   *
   * @since 0.1.0
   * @category models
   */
  Head,
  /**
   * A workload that signed checkpoints.
   *
   * @since 0.1.0
   * @category models
   */
  Signer,
  /**
   * The problem of the first record that is not as it was written.
   *
   * @since 0.1.0
   * @category models
   */
  TamperedProblem,
  /**
   * Which signers are believed: the workloads that are expected, and every authority that may have issued their
   * certificates. Give the bundles of the past too: a signature is verified as of its own date.
   *
   * @since 0.1.0
   * @category models
   */
  Trust
}

/**
 * Verifies an audit file: its text, that of several joined in order, or several files in order. Without `trust` no signer is
 * known, and the best verdict is `SignerUnknown`. With what an anchor kept of the log (`AuditAnchor.parse`) a cut end shows
 * too. Formats 1 and 2.
 *
 * @since 0.1.0
 * @category operations
 * @example
 * ```ts
 * import { PeerMatcher, type SpiffeId, type X509BundleSet } from "@agentweave/spiffe"
 * import { AuditFile } from "@agentweave/transport-node"
 *
 * const isGood = (text: string, bundles: X509BundleSet.X509BundleSet, web: SpiffeId.SpiffeId): boolean =>
 *   AuditFile.verify(text, { bundles, expected: PeerMatcher.exactly(web) }).verdict === "Verified"
 * ```
 */
export const verify = (files: string | Iterable<File>, trust?: Trust, anchored?: Iterable<Anchored>): Report => {
  const verification = new Verification(trust, anchored)
  if (typeof files === "string") verification.add(files, undefined)
  else for (const { name, text } of files) verification.add(text, name)
  return verification.finish()
}
