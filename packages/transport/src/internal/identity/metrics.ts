import { identityFreshness, secondsToExpiry } from "../../TransportMetrics.js"
import { BoundedLabels } from "../metrics/boundedLabels.js"

const states = ["Fresh", "Stale", "Expired", "None"] as const
const byFreshness = new BoundedLabels(identityFreshness, ["freshness"])

/** Sets the gauges of our own identity. */
export const unsafeUpdate = (state: (typeof states)[number], expiresIn: number | undefined): void => {
  for (const one of states) byFreshness.update(one === state ? 1 : 0, one)
  if (expiresIn !== undefined) secondsToExpiry.unsafeUpdate(expiresIn, [])
}
