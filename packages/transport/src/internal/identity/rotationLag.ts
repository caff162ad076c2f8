import type { AuditEvent } from "../../AuditEvent.js"

type Side = "Client" | "Server"
type EventOf<Tag extends AuditEvent["_tag"]> = Extract<AuditEvent, { readonly _tag: Tag }>

/** One of our identities: its newest SVID, and the one that each side last shook hands with. */
interface RotatedIdentity {
  newest: string | undefined
  /** When `newest` took the place of another one, milliseconds since the epoch; absent for the first there was. */
  rotatedAt: number | undefined
  readonly used: Map<Side, string>
}

/** A workload has few identities; what comes after that many is not followed. */
const maxIdentities = 100

/** Follows the events of our identities: how long after a rotation the first handshake used the new SVID, on each side. */
export class RotationLag {
  private readonly identities = new Map<string, RotatedIdentity>()
  private readonly report: (seconds: number, side: Side) => void

  constructor(report: (seconds: number, side: Side) => void) {
    this.report = report
  }

  private known(ownId: string): RotatedIdentity | undefined {
    const before = this.identities.get(ownId)
    if (before !== undefined || this.identities.size >= maxIdentities) return before
    const known: RotatedIdentity = { newest: undefined, rotatedAt: undefined, used: new Map() }
    this.identities.set(ownId, known)
    return known
  }

  rotated({ fingerprint, ownId, time }: EventOf<"SvidRotated">): void {
    const known = this.known(ownId)
    // Several may tell of one rotation.
    if (known === undefined || known.newest === fingerprint) return
    const isFirst = known.newest === undefined
    known.newest = fingerprint
    known.rotatedAt = isFirst ? undefined : time
    if (isFirst) return
    // A side that was quicker than the news has no lag.
    for (const [side, used] of known.used) if (used === fingerprint) this.report(0, side)
  }

  established({ ownFingerprint, ownId, side, time }: EventOf<"ConnectionEstablished">): void {
    const known = this.known(ownId)
    if (known === undefined || known.used.get(side) === ownFingerprint) return
    known.used.set(side, ownFingerprint)
    if (known.rotatedAt === undefined || known.newest !== ownFingerprint) return
    this.report(Math.max(0, time - known.rotatedAt) / 1000, side)
  }
}
