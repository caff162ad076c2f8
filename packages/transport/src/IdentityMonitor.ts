/**
 * Watches this workload's own identity: its freshness as a value, a stream and a readiness check; rotations and problems on
 * record; freshness and time to expiry as metrics.
 *
 * @since 0.1.0
 */
import { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import * as HttpRouter from "@effect/platform/HttpRouter"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import * as AuditLog from "./AuditLog.js"
import type { InvalidConfigError } from "./InvalidConfigError.js"
import { decoder, PositiveDuration } from "./internal/config.js"
import * as state from "./internal/identity/freshness.js"
import * as watch from "./internal/identity/watch.js"

/**
 * The one state of our identity.
 *
 * - `Fresh`: our SVID is valid and younger than two thirds of its life: its source keeps it up to date.
 * - `Stale`: still valid, but a successor is overdue. Sources renew at half of an SVID's life.
 * - `Expired`: past its notAfter.
 * - `None`: there is none: none received yet, withdrawn, or not valid yet.
 *
 * @since 0.1.0
 * @category models
 */
export type Freshness = "Fresh" | "Stale" | "Expired" | "None"

/**
 * Watches the identity of this workload and says how fresh it is.
 *
 * @since 0.1.0
 * @category tags
 */
export class IdentityMonitor extends Context.Tag("@agentweave/transport/IdentityMonitor")<
  IdentityMonitor,
  {
    /** How fresh our identity is at this moment, from the first moment on. It never waits for a first identity. */
    readonly freshness: Effect.Effect<Freshness>
    /** The freshness now, then each other one when it comes, by the source or by the clock. Ends with the provider. */
    readonly changes: Stream.Stream<Freshness>
    /** Whether this workload can prove who it is at this moment. */
    readonly readiness: Effect.Effect<Readiness>
  }
>() {}

/**
 * A workload is ready while it holds a valid identity: one that is `Fresh` or `Stale`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Readiness {
  readonly ready: boolean
  readonly freshness: Freshness
}

/**
 * Options of the monitor, each with its default.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** How often the metrics are brought up to date between rotations. Default 10 seconds. */
  readonly interval?: Duration.DurationInput | undefined
}

const decode = decoder(
  "IdentityMonitor",
  Schema.Struct({
    interval: Schema.optionalWith(PositiveDuration, { default: () => Duration.seconds(10) })
  })
)

/**
 * Watches until the scope closes. All who watch the same provider for the same audit log share one watch, with the options
 * of the first: nothing is recorded twice, and who begins again where another ended goes on from there.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { IdentityMonitor } from "@agentweave/transport"
 * import { Effect, Stream } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const monitor = yield* IdentityMonitor.make()
 *   yield* Stream.runForEach(monitor.changes, (freshness) => Effect.log(`our identity is ${freshness}`))
 * }).pipe(Effect.scoped)
 * ```
 */
export const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<
  Context.Tag.Service<IdentityMonitor>,
  InvalidConfigError,
  IdentityProvider | AuditLog.AuditLog | Scope.Scope
> {
  const { interval } = yield* decode(options)
  const identity = yield* IdentityProvider
  yield* watch.make({
    identity,
    log: yield* AuditLog.AuditLog,
    record: yield* AuditLog.recorder,
    interval
  })
  const freshness = Effect.zipWith(state.present(identity), Clock.currentTimeMillis, state.ofState)
  return {
    freshness,
    changes: state.changes(identity),
    readiness: Effect.map(freshness, (freshness) => ({
      ready: freshness === "Fresh" || freshness === "Stale",
      freshness
    }))
  }
})

/**
 * Records `SvidRotated`, `BundleRotated` and `IdentityProblem`, and keeps the metrics of our identity up to date, for as
 * long as the layer lives: what changed, what the source discarded, took back or could not deliver, and what is overdue.
 * Each is recorded once, however many of these layers there are. What the audit log does with it never holds up the
 * identity: it rotates even where nothing can be recorded.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { AuditLog, IdentityMonitor } from "@agentweave/transport"
 * import { WorkloadApi } from "@agentweave/workload-api"
 * import { Layer } from "effect"
 *
 * const MonitorLive = IdentityMonitor.layer().pipe(
 *   Layer.provide(AuditLog.layerLogger),
 *   Layer.provideMerge(WorkloadApi.layer())
 * )
 * ```
 */
export const layer = (
  options?: Options
): Layer.Layer<IdentityMonitor, InvalidConfigError, IdentityProvider | AuditLog.AuditLog> =>
  Layer.scoped(IdentityMonitor, make(options))

/**
 * The readiness as a response without a secret in it: 200 or 503, and `{"ready":true,"freshness":"Fresh"}` as JSON. It is
 * not to be cached.
 *
 * @since 0.1.0
 * @category getters
 */
export const readinessResponse: Effect.Effect<HttpServerResponse.HttpServerResponse, never, IdentityMonitor> =
  Effect.map(
    Effect.flatMap(IdentityMonitor, ({ readiness }) => readiness),
    (readiness) =>
      HttpServerResponse.unsafeJson(readiness, {
        status: readiness.ready ? 200 : 503,
        headers: { "cache-control": "no-store" }
      })
  )

/**
 * A router with a `GET` route for {@link readinessResponse}, for an orchestrator that asks without an SVID: serve it on a
 * listener of its own that only the orchestrator can reach.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { IdentityMonitor } from "@agentweave/transport"
 * import { HttpRouter } from "@effect/platform"
 *
 * const router = IdentityMonitor.withReadinessRoute(HttpRouter.empty, "/readyz")
 * ```
 */
export const withReadinessRoute: {
  (
    path: HttpRouter.PathInput
  ): <E, R>(self: HttpRouter.HttpRouter<E, R>) => HttpRouter.HttpRouter<E, R | IdentityMonitor>
  <E, R>(self: HttpRouter.HttpRouter<E, R>, path: HttpRouter.PathInput): HttpRouter.HttpRouter<E, R | IdentityMonitor>
} = dual(
  2,
  <E, R>(
    self: HttpRouter.HttpRouter<E, R>,
    path: HttpRouter.PathInput
  ): HttpRouter.HttpRouter<E, R | IdentityMonitor> => HttpRouter.get(self, path, readinessResponse)
)
