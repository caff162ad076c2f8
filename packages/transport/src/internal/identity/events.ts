import type { IdentityProblem } from "@agentweave/spiffe/IdentityProblem"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import type { AuditEvent } from "../../AuditEvent.js"

/** See `IdentityMonitor.Freshness`. */
export type Freshness = "Fresh" | "Stale" | "Expired" | "None"

/** The last instant of freshness: milliseconds since the epoch. */
const freshUntil = ({ svid: { notAfter, notBefore } }: X509Context): number =>
  notBefore + ((notAfter - notBefore) * 2) / 3

export const freshnessOf = (context: X509Context | undefined, now: number): Freshness => {
  if (context === undefined || now < context.svid.notBefore) return "None"
  if (now > context.svid.notAfter) return "Expired"
  return now > freshUntil(context) ? "Stale" : "Fresh"
}

/** How long until the freshness changes by itself; infinite when it does not. */
export const untilNextFreshness = (context: X509Context | undefined, now: number): number => {
  if (context === undefined) return Number.POSITIVE_INFINITY
  const { notAfter, notBefore } = context.svid
  const instants = [notBefore - now, ...[freshUntil(context), notAfter].map((last) => Math.floor(last) + 1 - now)]
  return Math.min(...instants.filter((millis) => millis > 0))
}

/** The events that lead from one snapshot to the next. */
export const differences = (
  before: X509Context | undefined,
  after: X509Context,
  time: number
): ReadonlyArray<AuditEvent> => {
  const events: Array<AuditEvent> = []
  const { fingerprint, notAfter, serialNumber, spiffeId } = after.svid
  if (before?.svid.fingerprint !== fingerprint) {
    events.push({ _tag: "SvidRotated", time, ownId: spiffeId, serialNumber, fingerprint, notAfter })
  }
  for (const [trustDomain, bundle] of after.bundles.bundles) {
    if (before?.bundles.bundles.get(trustDomain)?.generation === bundle.generation) continue
    const { authorities, generation } = bundle
    events.push({ _tag: "BundleRotated", time, trustDomain, generation, authorities: authorities.length })
  }
  for (const trustDomain of before?.bundles.bundles.keys() ?? []) {
    if (!after.bundles.bundles.has(trustDomain))
      events.push({ _tag: "BundleRotated", time, trustDomain, authorities: 0 })
  }
  return events
}

/** Events that follow from the clock alone. */
export const overdue = ({ svid }: X509Context, problem: "Stale" | "Expired", time: number): AuditEvent => ({
  _tag: "IdentityProblem",
  time,
  problem,
  description: `the SVID of ${svid.spiffeId} ends at ${new Date(svid.notAfter).toISOString()} and no successor came`
})

/** Events that the source told. */
export const reported = ({ description, kind, reason, time }: IdentityProblem): AuditEvent => ({
  _tag: "IdentityProblem",
  time,
  problem: kind,
  reason,
  description
})
