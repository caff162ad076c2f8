import { forkScoped } from "@agentweave/spiffe/Background"
import type { SpiffeId } from "@agentweave/spiffe/SpiffeId"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { AuditEvent } from "../../AuditEvent.js"
import { pool, poolWait } from "../../TransportMetrics.js"
import { BoundedLabels } from "../metrics/boundedLabels.js"
import { updateBudgets } from "../retry/budget.js"
import type { PoolSlot } from "./pooledConnection.js"

const states = ["inUse", "idle", "waiting"] as const

/** Of one pool: connections in use, idle ones, and fibers that wait. */
type Totals = { readonly [state in (typeof states)[number]]: number }

const byState = new BoundedLabels(pool, ["state"])
const byOutcome = new BoundedLabels(poolWait, ["outcome"])

/** The gauges are of the process: they show the sum over the pools that are alive. */
const pools = new Set<() => Totals>()

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

/** Records a wait of so many milliseconds. */
export const recordWait = (millis: number, outcome: WaitOutcome): void => byOutcome.update(millis / 1000, outcome)

/** Shows a pool in the gauges, brought up to date each `interval`, until the scope closes. */
export const gauges = (stats: () => Totals, interval: Duration.Duration): Effect.Effect<void, never, Scope.Scope> =>
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

/** A lease that was held for longer than the threshold. */
export interface LeakedLease {
  readonly peer: SpiffeId
  readonly heldFor: Duration.Duration
  /** Name of the span that took it, if it was taken in one. */
  readonly span: string | undefined
  /** The call stack that took it. */
  readonly stack: string | undefined
}

/** The audit event of a leak. */
export const leakEvent = (leak: LeakedLease, time: number): AuditEvent => ({
  _tag: "LeaseLeaked",
  time,
  targetId: leak.peer,
  heldMillis: Duration.toMillis(leak.heldFor),
  origin: leak.span ?? leak.stack ?? "unknown"
})

/** So many different uses of connections are named in an error. */
const shown = 5

/** Without the query, which may hold secrets. */
const describeUse = ({ pooled }: PoolSlot): string => {
  if (pooled === undefined) return "being opened"
  const request = pooled.inUseBy
  return request === undefined ? "leased" : `by ${request.method} ${request.url.split(/[?#]/, 1).join()}`
}

/** The present uses of the connections of slots, the most frequent use first. */
export const describeUses = (slots: Iterable<PoolSlot>): string => {
  const counts = new Map<string, number>()
  for (const slot of slots) {
    const use = describeUse(slot)
    counts.set(use, (counts.get(use) ?? 0) + 1)
  }
  const uses = Array.from(counts).sort(([, a], [, b]) => b - a)
  const others = uses.slice(shown).reduce((sum, [, count]) => sum + count, 0)
  const named = uses.slice(0, shown).map(([use, count]) => `${count} ${use}`)
  return (others === 0 ? named : [...named, `${others} by other requests`]).join(", ")
}
