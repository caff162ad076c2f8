/** Which SVID signs a checkpoint. */
import type { X509Svid } from "@agentweave/spiffe/X509Svid"

/** SVIDs that are remembered: the newest, and those it may have to follow. */
const maxKnown = 4

/**
 * The SVIDs of this workload that are still valid. A signature counts only for records dated within the validity of its
 * SVID, so the records before a rotation are signed with the SVID of their time.
 */
export class Svids {
  /** Newest first. */
  private known: ReadonlyArray<X509Svid> = []

  /** Whether it takes the place of another one. */
  add(svid: X509Svid): boolean {
    const [newest] = this.known
    if (newest?.fingerprint === svid.fingerprint) return false
    this.known = [svid, ...this.known].slice(0, maxKnown)
    return newest !== undefined
  }

  /** The identity was taken back: nothing is signed with it any more. */
  withdraw(): void {
    this.known = []
  }

  /** The one that covers everything since then, or else the newest that is valid now; `undefined` when none is. */
  choose(since: number, now: number): X509Svid | undefined {
    const valid = this.known.filter(({ notAfter, notBefore }) => now >= notBefore && now <= notAfter)
    return valid.find(({ notBefore }) => notBefore <= since) ?? valid[0]
  }
}
