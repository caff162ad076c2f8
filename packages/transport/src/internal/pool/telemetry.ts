import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { AuditEvent } from "../../AuditEvent.js"
import type { Leak, Stats } from "../../ConnectionPool.js"
import { pool, poolWait } from "../../TransportMetrics.js"
import { forkScoped } from "../background.js"
import { Labelled } from "../metrics/labelled.js"
import { updateBudgets } from "../retry/budget.js"

const states = ["inUse", "idle", "waiting"] as const
const byState = new Labelled(pool, ["state"])
const byOutcome = new Labelled(poolWait, ["outcome"])

/** The gauges are of the process: they show the sum over the pools that are alive. */
const pools = new Set<() => Stats>()

const unsafeUpdate = (): void => {
  const all = Array.from(pools, (stats) => stats())
  for (const state of states) {
    byState.update(
      all.reduce((sum, stats) => sum + stats[state], 0),
      state
    )
  }
}

/** Brings the gauges of all pools up to date, and of what else changes unseen. */
export const updateGauges: Effect.Effect<void> = Effect.zipRight(Effect.sync(unsafeUpdate), updateBudgets)

/** How a wait for a connection ended. */
export type WaitOutcome = "Leased" | "Refused" | "Withdrawn"

/** Notes a wait of so many milliseconds. */
export const waited = (millis: number, outcome: WaitOutcome): void => byOutcome.update(millis / 1000, outcome)

/** Shows a pool in the gauges, brought up to date each `interval`, until the scope closes. */
export const gauges = (stats: () => Stats, interval: Duration.Duration): Effect.Effect<void, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      pools.add(stats)
      unsafeUpdate()
    }),
    () =>
      Effect.sync(() => {
        pools.delete(stats)
        unsafeUpdate()
      })
  ).pipe(Effect.zipRight(forkScoped(Effect.forever(Effect.delay(updateGauges, interval)))), Effect.asVoid)

/** How a leak stands in the audit log. */
export const leaked = (leak: Leak, time: number): AuditEvent => ({
  _tag: "LeaseLeaked",
  time,
  targetId: leak.peer,
  heldMillis: Duration.toMillis(leak.heldFor),
  origin: leak.span ?? leak.stack ?? "unknown"
})
