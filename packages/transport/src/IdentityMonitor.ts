/**
 * Watches this workload's own identity: rotations and problems on record, freshness and time to expiry as metrics.
 *
 * @since 0.1.0
 */
import { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as AuditLog from "./AuditLog.js"
import type { InvalidConfigError } from "./InvalidConfigError.js"
import { decoder, PositiveDuration } from "./internal/config.js"
import * as watch from "./internal/identityWatch.js"

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
 */
export const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<
  Context.Tag.Service<IdentityMonitor>,
  InvalidConfigError,
  IdentityProvider | AuditLog.AuditLog | Scope.Scope
> {
  const { interval } = yield* decode(options)
  return yield* watch.make({
    identity: yield* IdentityProvider,
    log: yield* AuditLog.AuditLog,
    record: yield* AuditLog.recorder,
    interval
  })
})

/**
 * Records `SvidRotated`, `BundleRotated` and `IdentityProblem`, and keeps the metrics of our identity up to date, for as
 * long as the layer lives: what changed, what the source discarded, took back or could not deliver, and what is overdue.
 * Each is recorded once, however many of these layers there are. What the audit log does with it never holds up the
 * identity: it rotates even where nothing can be recorded.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options?: Options
): Layer.Layer<IdentityMonitor, InvalidConfigError, IdentityProvider | AuditLog.AuditLog> =>
  Layer.scoped(IdentityMonitor, make(options))
