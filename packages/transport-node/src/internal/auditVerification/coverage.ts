/** Which records are under a signature that counts, and whose signatures those are. */

import type { Range } from "../audit/format.js"
import type { Finding, Signer } from "./findings.js"
import type { SignerCertificates, Signers } from "./signers.js"

/** Records of one date, or of one after the other. */
interface Dated extends Range {
  readonly since: number
  readonly until: number
}

export class Coverage {
  private readonly signers: Signers
  private readonly unsigned: Array<Range> = []
  /** Records since the last signature that counted. */
  private open: Array<Dated> = []
  private readonly strangers = new Map<SignerCertificates, { readonly seq: number; readonly description: string }>()
  private readonly known = new Map<SignerCertificates, Signer>()
  /** Number of the last record under a signature that counts. */
  signedUpTo = -1

  constructor(signers: Signers) {
    this.signers = signers
  }

  get signedBy(): ReadonlyArray<Signer> {
    return Array.from(this.known.values())
  }

  /** A record that no signature covers yet. */
  add(seq: number, date: number): void {
    const last = this.open.at(-1)
    if (last !== undefined && last.until === date) this.open[this.open.length - 1] = { ...last, to: seq }
    else this.open.push({ from: seq, to: seq, since: date, until: date })
  }

  /**
   * A genuine signature at this record and date. It counts for the records dated within the validity of its certificates, and
   * for none where it was made outside it.
   */
  sign(signer: SignerCertificates, seq: number, date: number): void {
    const { notAfter, notBefore } = signer
    if (!(date >= notBefore && date <= notAfter)) return
    for (const rows of this.open) {
      if (rows.until < notBefore || rows.since > notAfter) this.unsigned.push(rows)
    }
    this.open = []
    this.signedUpTo = seq - 1
    const [leaf, ...rest] = signer.der
    this.known.set(signer, { ownId: signer.ownId, certificates: [leaf, ...rest], time: date })
    const strangeness = this.signers.strangeness(signer, date)
    if (strangeness !== undefined && !this.strangers.has(signer)) {
      this.strangers.set(signer, { seq, description: strangeness })
    }
  }

  /** Whether a signature that counts covers a record. */
  covers(seq: number): boolean {
    return seq <= this.signedUpTo && !this.unsigned.some(({ from, to }) => seq >= from && seq <= to)
  }

  /** Ends the stretch of records: no later signature can cover those that are open. */
  settle(): void {
    this.unsigned.push(...this.open)
    this.open = []
  }

  get findings(): ReadonlyArray<Finding> {
    return [
      ...Array.from(this.strangers.values(), ({ description, seq }) => ({
        _tag: "SignerUnknown" as const,
        seq,
        description: `the signer of the checkpoint at record ${seq} is not known to be the expected workload: ${description}`
      })),
      ...joined(this.unsigned).map(({ from, to }) => ({
        _tag: "Unsigned" as const,
        from,
        to,
        description: `records ${from} to ${to} are not signed by an SVID that was valid at their time`
      }))
    ]
  }
}

/** Ranges without those that only a checkpoint keeps apart. */
const joined = (ranges: ReadonlyArray<Range>): ReadonlyArray<Range> => {
  const all: Array<Range> = []
  for (const { from, to } of ranges.toSorted((a, b) => a.from - b.from)) {
    const last = all.at(-1)
    if (last !== undefined && from <= last.to + 2) all[all.length - 1] = { from: last.from, to: Math.max(last.to, to) }
    else all.push({ from, to })
  }
  return all
}
