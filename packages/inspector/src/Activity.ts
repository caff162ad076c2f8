/**
 * The recent activity of a process, made from its audit events, in bounded memory: its peers and connections, the rate and the
 * duration of requests, refusals, and the last events.
 *
 * @since 0.1.0
 */
import type * as AuditEvent from "@agentweave/transport/AuditEvent"
import { AuditLog } from "@agentweave/transport/AuditLog"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as internal from "./internal/activityRead.js"
import { ActivityState } from "./internal/activityState.js"
import type * as Snapshot from "./Snapshot.js"

/**
 * The part of a snapshot that comes from audit events.
 *
 * @since 0.1.0
 * @category models
 */
export interface Summary
  extends Pick<
    Snapshot.Snapshot,
    "startedAt" | "outgoing" | "incoming" | "refusals" | "totalRefused" | "events" | "requests"
  > {
  readonly history: Snapshot.Snapshot["identity"]["history"]
  readonly peers: ReadonlyArray<Omit<Snapshot.Peer, "pool" | "breaker" | "retryBudget">>
}

/**
 * Takes the audit events of a process, and sums them up on demand.
 *
 * @since 0.1.0
 * @category tags
 */
export class Activity extends Context.Tag("@agentweave/inspector/Activity")<
  Activity,
  {
    /** Takes one event. Synchronous, cheap, and it never fails. */
    readonly unsafeRecord: (event: AuditEvent.AuditEvent) => void
    readonly summary: Effect.Effect<Summary>
  }
>() {}

/**
 * At most 256 peers are told apart, 1,024 open connections, 50 refusals, 100 events and 50 requests; a peer without a
 * connection that was seen longest ago makes room for a new one. Five minutes of traffic are kept. Texts of events are cut
 * at 2,048 characters. In all it holds a few megabytes at most.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Activity } from "@agentweave/inspector"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const activity = yield* Activity.make
 *   activity.unsafeRecord({ _tag: "IdentityProblem", time: 0, problem: "Unavailable", description: "the agent is down" })
 *   const { events } = yield* activity.summary
 *   return events.length
 * })
 * ```
 */
export const make: Effect.Effect<Context.Tag.Service<Activity>> = Effect.map(Clock.currentTimeMillis, (startedAt) => {
  const state = new ActivityState(startedAt)
  return {
    unsafeRecord: (event) => state.record(event),
    summary: Effect.map(Clock.currentTimeMillis, (now) => internal.summary(state, now))
  }
})

/**
 * The audit log that is given, and beside it the {@link Activity} of its events. An event that the audit log does not take
 * is none here either where it would have let a connection come to be; errors of the audit log stay as they are.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Activity } from "@agentweave/inspector"
 * import { NodeAuditLog } from "@agentweave/transport-node"
 *
 * const Audit = Activity.layerAuditLog(NodeAuditLog.layerFile({ path: "/var/log/web/audit.ndjson" }))
 * ```
 */
export const layerAuditLog = <E, R>(auditLog: Layer.Layer<AuditLog, E, R>): Layer.Layer<AuditLog | Activity, E, R> =>
  Layer.scopedContext(
    Effect.gen(function* () {
      const { unsafeRecord } = Context.get(yield* Layer.build(auditLog), AuditLog)
      const activity = yield* make
      return Context.make(Activity, activity).pipe(
        Context.add(AuditLog, {
          unsafeRecord: (event) => {
            const error = unsafeRecord(event)
            // A connection that cannot be recorded does not come to be.
            if (error === undefined || event._tag !== "ConnectionEstablished") activity.unsafeRecord(event)
            return error
          }
        })
      )
    })
  )
