/**
 * Watches this workload's own identity: rotations on record, freshness and time to expiry as metrics.
 *
 * @since 0.1.0
 */
import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { AuditEvent } from "./AuditEvent.js"
import * as AuditLog from "./AuditLog.js"
import * as IdentityMetrics from "./internal/identityMetrics.js"

/**
 * - `Fresh`: our SVID is valid and younger than two thirds of its life: its source keeps it up to date.
 * - `Stale`: still valid, but a successor is overdue.
 * - `Expired`: past its notAfter.
 * - `None`: there is none.
 *
 * @since 0.1.0
 * @category models
 */
export type Freshness = "Fresh" | "Stale" | "Expired" | "None"

/**
 * @since 0.1.0
 * @category tags
 */
export class IdentityMonitor extends Context.Tag("@agentweave/transport/IdentityMonitor")<
  IdentityMonitor,
  {
    /** How fresh our identity is at this moment. */
    readonly freshness: Effect.Effect<Freshness>
  }
>() {}

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** How often the metrics are brought up to date between rotations. Default 10 seconds. */
  readonly interval?: Duration.DurationInput | undefined
}

const freshnessOf = (context: X509Context | undefined, now: number): Freshness => {
  if (context === undefined) return "None"
  const { notAfter, notBefore } = context.svid
  if (now > notAfter) return "Expired"
  return now - notBefore > ((notAfter - notBefore) * 2) / 3 ? "Stale" : "Fresh"
}

/** The events that lead from one snapshot to the next. */
const differences = (before: X509Context | undefined, after: X509Context, time: number): ReadonlyArray<AuditEvent> => {
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

const problemOf = (error: IdentityError): "Withdrawn" | "Expired" | "Discarded" =>
  error.reason === "Withdrawn" || error.reason === "Expired" ? error.reason : "Discarded"

const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<Context.Tag.Service<IdentityMonitor>, never, IdentityProvider | AuditLog.AuditLog | Scope.Scope> {
  const identity = yield* IdentityProvider
  const record = yield* AuditLog.recorder
  let current: X509Context | undefined
  let lastProblem = ""

  const note = (event: AuditEvent) => Effect.ignore(record(event) ?? Effect.void)
  const freshness = Effect.map(Clock.currentTimeMillis, (now) => freshnessOf(current, now))

  const measure = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    const before = lastProblem
    const state = freshnessOf(current, now)
    IdentityMetrics.unsafeUpdate(state, current === undefined ? undefined : (current.svid.notAfter - now) / 1000)
    lastProblem = state === "Stale" || state === "Expired" ? state : ""
    if (current === undefined || lastProblem === "" || lastProblem === before) return
    const { notAfter, spiffeId } = current.svid
    yield* note({
      _tag: "IdentityProblem",
      time: now,
      problem: state === "Expired" ? "Expired" : "Stale",
      description: `the SVID of ${spiffeId} ends at ${new Date(notAfter).toISOString()} and no successor came`
    })
  })

  const onChange = (next: X509Context) =>
    Effect.gen(function* () {
      const time = yield* Clock.currentTimeMillis
      const events = differences(current, next, time)
      current = next
      yield* Effect.forEach(events, note, { discard: true })
      yield* measure
    })

  const onLoss = (error: IdentityError) =>
    Effect.gen(function* () {
      if (error.reason === "Withdrawn") current = undefined
      const problem = problemOf(error)
      const time = yield* Clock.currentTimeMillis
      if (lastProblem !== error.message) {
        yield* note({ _tag: "IdentityProblem", time, problem, description: error.message })
      }
      lastProblem = error.message
    })

  yield* Stream.runForEach(identity.changes, onChange).pipe(
    Effect.tapError(onLoss),
    Effect.retry(Schedule.spaced("250 millis")),
    Effect.ignore,
    Effect.forkScoped
  )
  yield* Effect.forkScoped(Effect.repeat(measure, Schedule.spaced(options.interval ?? "10 seconds")))
  return { freshness }
})

/**
 * Records `SvidRotated`, `BundleRotated` and `IdentityProblem`, and keeps the metrics of our identity up to date, for as
 * long as the layer lives. One of it serves an application.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options?: Options): Layer.Layer<IdentityMonitor, never, IdentityProvider | AuditLog.AuditLog> =>
  Layer.scoped(IdentityMonitor, make(options))
