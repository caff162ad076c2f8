/** Events of the identity, to whom they are reported: the log, the caller's hook, and the stream of problems. */
import { IdentityProblem, X509Bundle, type X509Svid } from "@agentweave/spiffe"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as LogLevel from "effect/LogLevel"
import * as Ref from "effect/Ref"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { WorkloadApiEvent } from "../WorkloadApiEvent.js"
import { isoDate } from "./dates.js"
import * as Problems from "./problems.js"
import type { Delivered } from "./updateReader.js"

type WithoutTime<A> = A extends unknown ? Omit<A, "time"> : never

type BundleEvent = WithoutTime<Extract<WorkloadApiEvent, { readonly _tag: "BundleDiscarded" | "AuthoritiesLeftOut" }>>

/** The fields of an event for people: dates as ISO 8601. */
const annotations = ({ _tag, ...fields }: WorkloadApiEvent): Readonly<Record<string, unknown>> => ({
  ...fields,
  time: isoDate(fields.time),
  ...("notBefore" in fields ? { notBefore: isoDate(fields.notBefore) } : undefined),
  ...("notAfter" in fields ? { notAfter: isoDate(fields.notAfter) } : undefined),
  ...("trustDomains" in fields ? { trustDomains: fields.trustDomains.join(" ") } : undefined)
})

/** The fields of an event that name an SVID. */
export const svidFields = (svid: X509Svid.X509Svid) => ({
  spiffeId: svid.spiffeId,
  serialNumber: svid.serialNumber,
  fingerprint: svid.fingerprint,
  notAfter: svid.notAfter
})

export interface Reporting {
  readonly problems: Stream.Stream<IdentityProblem.IdentityProblem>
  /** A event that is no event of its own, but may be a problem or the end of one. */
  readonly publish: (event: Problems.ReportedEvent) => Effect.Effect<void>
  /** An event with the time of now. It never fails, whatever the hook does. */
  readonly emit: (fields: WithoutTime<WorkloadApiEvent>) => Effect.Effect<void>
  /** The parts of an update's bundles that cannot be used: the agent repeats them with every update, that is no news. */
  readonly reportBundles: (delivered: Delivered) => Effect.Effect<void>
}

export const make = Effect.fnUntraced(function* (
  onEvent: (event: WorkloadApiEvent) => Effect.Effect<void>
): Effect.fn.Return<Reporting, never, Scope.Scope> {
  const reporter = yield* IdentityProblem.makeReporter
  const reported = yield* Ref.make(Problems.initial)
  /** The events of the bundles of the last good update. */
  const bundleEvents = yield* Ref.make<ReadonlyArray<BundleEvent>>([])

  const publish = (event: Problems.ReportedEvent): Effect.Effect<void> =>
    Effect.flatMap(
      Ref.modify(reported, (before) => {
        const [after, problem] = Problems.step(before, event)
        return [problem, after]
      }),
      (problem) => (problem === undefined ? Effect.void : reporter.report(problem))
    )

  const emit = Effect.fnUntraced(function* (fields: WithoutTime<WorkloadApiEvent>) {
    const event: WorkloadApiEvent = { ...fields, time: yield* Clock.currentTimeMillis }
    yield* publish(event)
    const level = event._tag === "Updated" ? LogLevel.Debug : LogLevel.Warning
    yield* Effect.whenLogLevel(
      Effect.annotateLogs(Effect.logWithLevel(level, `workload API: ${event._tag}`), annotations(event)),
      level
    )
    yield* Effect.catchAllCause(
      Effect.suspend(() => onEvent(event)),
      (cause) => Effect.logError("workload API: the event hook failed", cause)
    )
  })

  const reportBundles = Effect.fnUntraced(function* ({ bundles, refusedBundles }: Delivered) {
    const leftOut = Array.from(bundles.bundles.values()).flatMap((bundle): ReadonlyArray<BundleEvent> => {
      const description = X509Bundle.describeLeftOut(bundle)
      const { trustDomain } = bundle
      return description === undefined ? [] : [{ _tag: "AuthoritiesLeftOut", trustDomain, description }]
    })
    const refused = refusedBundles.map((refusal): BundleEvent => ({ _tag: "BundleDiscarded", ...refusal }))
    const events = [...refused, ...leftOut]
    const before = yield* Ref.getAndSet(bundleEvents, events)
    const isNew = ({ description, trustDomain }: BundleEvent): boolean =>
      !before.some((known) => known.trustDomain === trustDomain && known.description === description)
    yield* Effect.forEach(events.filter(isNew), emit)
  })

  return { problems: reporter.problems, publish, emit, reportBundles }
})
