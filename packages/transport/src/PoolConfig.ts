/**
 * How many connections a pool keeps, and for how long.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import type * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import type { InvalidConfigError } from "./InvalidConfigError.js"
import * as internal from "./internal/config.js"

const maxConnections = internal.NumberIn(1, 65_535)

const fields = Schema.Struct({
  /** Connections to one peer at most, those being opened included. Default 10. */
  maxConnectionsPerTarget: Schema.optionalWith(maxConnections, { default: () => 10 }),
  /** Connections of the whole pool at most, those being opened included. Default 100. */
  maxTotalConnections: Schema.optionalWith(maxConnections, { default: () => 100 }),
  /** How long a connection may be idle; looked at every `cleanupInterval`. Default 60 seconds. */
  idleTimeout: Schema.optionalWith(internal.PositiveDuration, { default: () => Duration.seconds(60) }),
  /** Time between two health checks of the idle connections. Default 30 seconds. */
  healthCheckInterval: Schema.optionalWith(internal.PositiveDuration, { default: () => Duration.seconds(30) }),
  /** Time between two rounds that close what was idle or lived for too long, and look for leaks. Default 10 seconds. */
  cleanupInterval: Schema.optionalWith(internal.PositiveDuration, { default: () => Duration.seconds(10) }),
  /**
   * How long a request waits for a connection when a limit is reached, first come first. Then, or at once when it is
   * zero, it fails with `PoolExhaustedError`. Default zero.
   */
  acquireTimeout: Schema.optionalWith(internal.NonNegativeDuration, { default: () => Duration.zero }),
  /** Fibers that may wait at the same time; one more fails at once with `PoolExhaustedError`. Default 1,000. */
  maxWaiting: Schema.optionalWith(internal.NumberIn(1), { default: () => 1_000 }),
  /**
   * Longest life of a connection in the pool: afterwards it is not leased again. The channel's `maxConnectionAge` and
   * the notAfter of the certificates on it hold besides. Default: none.
   */
  maxLifetime: Schema.optional(internal.PositiveDuration),
  /**
   * A lease held longer than this is reported as a leak, once, with the place that took it. Looked at every
   * `cleanupInterval`. Every lease then captures a stack, which takes microseconds. Default: nobody looks.
   */
  leakThreshold: Schema.optional(internal.PositiveDuration)
}).pipe(
  Schema.filter((config) =>
    config.maxConnectionsPerTarget > config.maxTotalConnections
      ? {
          path: ["maxTotalConnections"],
          message: `expected at least maxConnectionsPerTarget ${config.maxConnectionsPerTarget}, got ${config.maxTotalConnections}`
        }
      : undefined
  )
)

/**
 * The configuration of a connection pool: all fields have defaults, all are checked.
 *
 * @since 0.1.0
 * @category models
 */
export class PoolConfig extends Schema.Class<PoolConfig>("@agentweave/transport/PoolConfig")(fields) {}

/**
 * The options of {@link make}: every field optional, every duration a `DurationInput`. A `PoolConfig` is one too.
 *
 * @since 0.1.0
 * @category models
 */
export type Options = typeof PoolConfig.Encoded

/**
 * Checks options and fills in defaults.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { PoolConfig } from "@agentweave/transport"
 *
 * const config = PoolConfig.make({ maxConnectionsPerTarget: 4, acquireTimeout: "2 seconds" })
 * ```
 */
export const make: (options: Options) => Either.Either<PoolConfig, InvalidConfigError> = internal.decoder(
  "PoolConfig",
  PoolConfig
)

/**
 * All defaults.
 *
 * @since 0.1.0
 * @category constants
 */
export const defaults: PoolConfig = new PoolConfig({})

/**
 * The configuration read from `Config`: `maxConnectionsPerTarget`, `maxTotalConnections`, `idleTimeout`,
 * `healthCheckInterval`, `cleanupInterval`, `acquireTimeout`, `maxWaiting`, `maxLifetime`, `leakThreshold`, each
 * optional.
 *
 * @since 0.1.0
 * @category config
 */
export const config: Config.Config<PoolConfig> = internal.fromConfig(
  Config.all({
    maxConnectionsPerTarget: internal.optional(Config.integer("maxConnectionsPerTarget")),
    maxTotalConnections: internal.optional(Config.integer("maxTotalConnections")),
    idleTimeout: internal.optionalDuration("idleTimeout"),
    healthCheckInterval: internal.optionalDuration("healthCheckInterval"),
    cleanupInterval: internal.optionalDuration("cleanupInterval"),
    acquireTimeout: internal.optionalDuration("acquireTimeout"),
    maxWaiting: internal.optional(Config.integer("maxWaiting")),
    maxLifetime: internal.optionalDuration("maxLifetime"),
    leakThreshold: internal.optionalDuration("leakThreshold")
  }),
  make
)
