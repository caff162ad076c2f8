/**
 * One circuit breaker a target, made when it is first asked for.
 *
 * @since 0.1.0
 */

import { forkScoped } from "@agentweave/spiffe/Background"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { optionalRecorder } from "./AuditLog.js"
import type { CircuitBreaker } from "./CircuitBreaker.js"
import * as CircuitBreakerConfig from "./CircuitBreakerConfig.js"
import type { CircuitBreakerMetrics } from "./CircuitBreakerMetrics.js"
import type { InvalidConfigError } from "./InvalidConfigError.js"
import * as internal from "./internal/breaker/registry.js"
import * as internalConfig from "./internal/config.js"
import { unsafeCircuitMade } from "./TransportMetrics.js"

/**
 * The breakers of an application.
 *
 * @since 0.1.0
 * @category tags
 */
export class CircuitBreakerRegistry extends Context.Tag("@agentweave/transport/CircuitBreakerRegistry")<
  CircuitBreakerRegistry,
  {
    /** The breaker of a target: the same one for everybody who asks, however many ask at once. */
    readonly get: (target: string) => Effect.Effect<CircuitBreaker>
    /** The metrics of all breakers in the registry, by target. */
    readonly metrics: Effect.Effect<ReadonlyMap<string, CircuitBreakerMetrics>>
    /** Resets all breakers in the registry. */
    readonly resetAll: Effect.Effect<void>
  }
>() {}

const fields = Schema.Struct({
  forTarget: Schema.optional(internalConfig.FunctionOf<NonNullable<Options["forTarget"]>>()),
  /**
   * A closed breaker without a failure on its count that has not been used for so long leaves the registry. One that is
   * still held somewhere (by a client, say) comes back as it is when it is asked for or fails. Default 10 minutes.
   */
  idleTimeout: Schema.optionalWith(internalConfig.PositiveDuration, { default: () => Duration.minutes(10) }),
  /**
   * The counts of a half-open breaker, or of a closed one with failures, are stale when it has not been used for so long. An open breaker stays. Default 1 hour.
   */
  staleTimeout: Schema.optionalWith(internalConfig.PositiveDuration, { default: () => Duration.hours(1) }),
  /** How often to look for idle breakers; a breaker is noticed to be idle up to twice this late. Default 1 minute. */
  cleanupInterval: Schema.optionalWith(internalConfig.PositiveDuration, { default: () => Duration.minutes(1) })
})

/**
 * The options of {@link make} and {@link layer}: the configuration of all breakers, and how long idle ones are kept.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends CircuitBreakerConfig.Options {
  /** The configuration of one target, where it differs. Asked once, when the breaker is made. */
  readonly forTarget?: (target: string) => CircuitBreakerConfig.CircuitBreakerConfig | undefined
  readonly idleTimeout?: Duration.DurationInput | undefined
  readonly staleTimeout?: Duration.DurationInput | undefined
  readonly cleanupInterval?: Duration.DurationInput | undefined
}

const decode = internalConfig.decoder("CircuitBreakerRegistry", fields)

/**
 * A registry that lives as long as the scope. Where there is an `AuditLog` in the context, transitions are put on record.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { CircuitBreakerRegistry } from "@agentweave/transport"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const breakers = yield* CircuitBreakerRegistry.make({ failureThreshold: 3 })
 *   const billing = yield* breakers.get("spiffe://example.org/billing")
 *   return yield* billing.protect(Effect.succeed("paid"))
 * }).pipe(Effect.scoped)
 * ```
 */
export const make = ({
  forTarget,
  idleTimeout,
  staleTimeout,
  cleanupInterval,
  ...options
}: Options = {}): Effect.Effect<typeof CircuitBreakerRegistry.Service, InvalidConfigError, Scope.Scope> =>
  Effect.gen(function* () {
    const config = yield* CircuitBreakerConfig.make(options)
    const limits = yield* decode({ forTarget, idleTimeout, staleTimeout, cleanupInterval })
    const clock = yield* Effect.clock
    const record = yield* optionalRecorder
    const registry = new internal.Registry(
      (target) => {
        unsafeCircuitMade(target)
        return forTarget?.(target) ?? config
      },
      (target, from, to) => {
        // An event that cannot be put on record does not keep a breaker from changing its state either.
        record({ _tag: "CircuitStateChanged", time: clock.unsafeCurrentTimeMillis(), target, from, to })
      }
    )
    yield* registry
      .sweep(Duration.toMillis(limits.idleTimeout), Duration.toMillis(limits.staleTimeout))
      .pipe(Effect.delay(limits.cleanupInterval), Effect.forever, forkScoped)
    return registry
  })

/**
 * A layer of the registry: its breakers have these options, unless `forTarget` has others for a target.
 *
 * The registry, whose breakers all have these options.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { CircuitBreakerConfig, CircuitBreakerRegistry } from "@agentweave/transport"
 * import { Effect, Layer } from "effect"
 *
 * const RegistryLive = Layer.unwrapEffect(
 *   Effect.map(CircuitBreakerConfig.make({ failureThreshold: 2, timeout: "5 minutes" }), (batch) =>
 *     CircuitBreakerRegistry.layer({
 *       failureThreshold: 5,
 *       forTarget: (target) => (target === "spiffe://example.org/batch" ? batch : undefined)
 *     })
 *   )
 * )
 * ```
 */
export const layer = (options: Options = {}): Layer.Layer<CircuitBreakerRegistry, InvalidConfigError> =>
  Layer.scoped(CircuitBreakerRegistry, make(options))

/**
 * {@link layer} with options from `Config`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { CircuitBreakerRegistry } from "@agentweave/transport"
 * import { Config } from "effect"
 *
 * const RegistryLive = CircuitBreakerRegistry.layerConfig({
 *   failureThreshold: Config.withDefault(Config.integer("BREAKER_FAILURES"), 5)
 * })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<CircuitBreakerRegistry, ConfigError | InvalidConfigError> =>
  Layer.scoped(CircuitBreakerRegistry, Effect.flatMap(Config.unwrap(options), make))
