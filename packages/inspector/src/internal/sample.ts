/** One snapshot, and its JSON text, from the services of the process. It never waits for anything. */
import { CircuitBreakerMetrics } from "@agentweave/transport/CircuitBreakerMetrics"
import type { CircuitBreakerRegistry } from "@agentweave/transport/CircuitBreakerRegistry"
import type { ConnectionPool, Stats } from "@agentweave/transport/ConnectionPool"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type * as MetricPair from "effect/MetricPair"
import * as MetricState from "effect/MetricState"
import * as Schema from "effect/Schema"
import type { Activity } from "../Activity.js"
import type * as Snapshot from "../Snapshot.js"
import { merge } from "./peers.js"

export interface Sources {
  readonly activity: Context.Tag.Service<Activity>
  readonly identity: () => Omit<Snapshot.Identity, "history">
  readonly pool: Context.Tag.Service<ConnectionPool> | undefined
  readonly breakers: Context.Tag.Service<CircuitBreakerRegistry> | undefined
  readonly canReset: boolean
}

/** The name of the gauge `TransportMetrics.retryBudget`. */
const budgetGauge = "transport_retry_budget_available_retries"

/** The retries that the budget of each peer allows, as its gauge has it: budgets are in no registry. */
const budgetsIn = (pairs: ReadonlyArray<MetricPair.MetricPair.Untyped>): ReadonlyMap<string, number> => {
  const budgets = new Map<string, number>()
  for (const { metricKey, metricState } of pairs) {
    if (metricKey.name !== budgetGauge || !MetricState.isGaugeState(metricState)) continue
    const peer = metricKey.tags.find(({ key }) => key === "peer")?.value
    if (peer !== undefined) budgets.set(peer, Number(metricState.value))
  }
  return budgets
}

const poolOf = ({ peers, poolSizes, targetCount, ...sums }: Stats): Snapshot.Snapshot["pool"] => sums

export const sample = (sources: Sources): Effect.Effect<Snapshot.Snapshot> =>
  Effect.gen(function* () {
    const { activity, breakers, canReset, identity, pool } = sources
    const { history, peers: active, ...lists } = yield* activity.summary
    // The statistics of the pool bring the gauges of the budgets up to date, so they come first.
    const stats = pool === undefined ? undefined : yield* pool.stats
    const { more, peers } = merge({
      active,
      pool: stats?.peers ?? {},
      breakers: breakers === undefined ? new Map() : yield* breakers.metrics,
      budgets: budgetsIn(yield* Metric.snapshot)
    })
    return {
      version: 1,
      time: yield* Clock.currentTimeMillis,
      canReset,
      identity: { ...identity(), history },
      pool: stats === undefined ? null : poolOf(stats),
      peers,
      morePeers: more,
      ...lists
    }
  })

const encodeBreaker = Schema.encodeSync(CircuitBreakerMetrics)

/** As `Snapshot.FromJson` encodes it. All but the breakers is plain already, so it is not walked through a second time. */
export const toJson = (snapshot: Snapshot.Snapshot): string =>
  JSON.stringify({
    ...snapshot,
    peers: snapshot.peers.map((peer) => ({
      ...peer,
      breaker: peer.breaker === null ? null : encodeBreaker(peer.breaker)
    }))
  })
