/** The work of a pool at intervals: it closes idle and old connections, checks idle ones, reports leases held for too long. */
import { forkScoped } from "@agentweave/spiffe/Background"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import type { SecureChannel } from "../../SecureChannel.js"
import { Lease } from "./lease.js"
import type { Pool, WatchedLease } from "./pool.js"
import type { PooledConnection, PoolSlot } from "./pooledConnection.js"
import type { PoolTarget } from "./state.js"
import type { LeakedLease } from "./telemetry.js"

const statsOfPeer = ({ idle, slots, waiters }: PoolTarget<PooledConnection>) => {
  let opening = 0
  for (const { pooled } of slots) if (pooled === undefined) opening++
  return { inUse: slots.size - idle.length - opening, idle: idle.length, opening, waiting: waiters.size }
}

/** The pool at this moment, by its bookkeeping. */
export const statsOf = (pool: Pool<unknown>) => {
  const { connections, state } = pool
  const opening = connections.opening.size
  return {
    totalConnections: state.total,
    totalAcquisitions: pool.acquisitions,
    totalCreations: connections.created,
    totalCleanups: connections.ended,
    poolSizes: Object.fromEntries(Array.from(state.targets.values(), (target) => [target.key, target.slots.size])),
    peers: Object.fromEntries(Array.from(state.targets.values(), (target) => [target.key, statsOfPeer(target)])),
    targetCount: state.targets.size,
    inUse: state.total - state.idle - opening,
    idle: state.idle,
    opening,
    waiting: state.waiters.size
  }
}

/** Repeats a task for the life of the scope; what it throws is logged and does not end it. */
const every = (interval: Duration.Duration, task: Effect.Effect<unknown>): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(
    forkScoped(
      Effect.forever(
        Effect.delay(
          Effect.catchAllCause(task, (cause) =>
            Effect.logWarning("the maintenance of the connection pool failed", cause)
          ),
          interval
        )
      )
    )
  )

const report = (
  pool: Pool<unknown>,
  { peer, since, span, stack }: WatchedLease,
  onLeak: ((leak: LeakedLease) => Effect.Effect<void>) | undefined
) => {
  const leak: LeakedLease = {
    peer,
    heldFor: Duration.millis(pool.now() - since),
    span: span?._tag === "Span" ? span.name : undefined,
    stack
  }
  const warning = Effect.annotateLogs(
    Effect.logWarning(`a connection to ${leak.peer} is leased for ${Duration.format(leak.heldFor)} already`),
    { peer: leak.peer, span: leak.span, stack: leak.stack }
  )
  return onLeak === undefined ? warning : Effect.zipRight(warning, onLeak(leak))
}

/** Closes idle connections that were idle, or alive, for too long. */
const closeExpired = (pool: Pool<unknown>): void => {
  const { options, state } = pool
  const now = pool.now()
  const idle = Array.from(state.targets.values(), (target) => target.idle).flat()
  for (const slot of idle) {
    if (now - slot.idleSince >= options.idleTimeout) state.retire(slot, "Idle")
    else if (slot.pooled !== undefined && pool.isOld(slot.pooled)) state.retire(slot, "Age")
  }
}

/** Closes connections that were idle or lived for too long, and reports leases that were held for too long. */
export const cleanup = (
  pool: Pool<unknown>,
  interval: Duration.Duration,
  onLeak: ((leak: LeakedLease) => Effect.Effect<void>) | undefined
): Effect.Effect<void, never, Scope.Scope> =>
  every(
    interval,
    Effect.suspend(() => {
      closeExpired(pool)
      return Effect.forEach(pool.leaks(), (lease) => report(pool, lease, onLeak), { discard: true })
    })
  )

/**
 * Checks idle connections. The connections of one peer are probed one after the other, so that a probe takes at most one
 * of them away; its use of the connection does not count as one.
 */
export const healthChecks = (
  pool: Pool<unknown>,
  interval: Duration.Duration,
  channelOf: (lease: Lease) => SecureChannel,
  probe: ((channel: SecureChannel) => Effect.Effect<unknown, unknown>) | undefined
): Effect.Effect<void, never, Scope.Scope> => {
  const check = (slot: PoolSlot): Effect.Effect<void> =>
    Effect.uninterruptibleMask((restore) => {
      if (slot.status !== "Idle") return Effect.void
      if (slot.pooled === undefined || !slot.pooled.connection.isUsable()) {
        pool.state.retire(slot, "Unhealthy")
        return Effect.void
      }
      if (probe === undefined) return Effect.void
      pool.state.lease(slot)
      const lease = new Lease(pool, slot, true)
      const attempt = Effect.timeout(
        Effect.suspend(() => probe(channelOf(lease))),
        interval
      )
      return Effect.map(Effect.exit(restore(attempt)), (exit) => {
        if (Exit.isFailure(exit)) pool.state.retire(slot, "Unhealthy")
        lease.end()
      })
    })
  return every(
    interval,
    Effect.suspend(() =>
      Effect.forEach(
        Array.from(pool.state.targets.values(), (target) => Array.from(target.slots)),
        (slots) => Effect.forEach(slots, check, { discard: true }),
        { concurrency: "unbounded", discard: true }
      )
    )
  )
}
