/**
 * How a channel behaves. Nothing in it can weaken verification.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import type * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import type { InvalidConfigError } from "./InvalidConfigError.js"
import * as internal from "./internal/config.js"
import { optionalPart } from "./internal/retry/retryOptions.js"
import { FromInput } from "./RetryConfig.js"

/**
 * The TLS versions there are: a lower one does not exist as a value.
 *
 * @since 0.1.0
 * @category models
 */
export const TlsVersion = Schema.Literal("TLSv1.2", "TLSv1.3").annotations({
  message: (issue) => ({
    message: `expected "TLSv1.2" or "TLSv1.3", got ${JSON.stringify(issue.actual)}`,
    override: true
  })
})

/**
 * The TLS versions that are allowed.
 *
 * @since 0.1.0
 * @category models
 */
export type TlsVersion = typeof TlsVersion.Type

const fields = Schema.Struct({
  /** Lowest TLS version to speak. Default `"TLSv1.3"`. */
  tlsMinVersion: Schema.optionalWith(TlsVersion, { default: () => "TLSv1.3" }),
  /** Highest TLS version to speak. Default `"TLSv1.3"`. */
  tlsMaxVersion: Schema.optionalWith(TlsVersion, { default: () => "TLSv1.3" }),
  /**
   * Longest time without progress in one phase of a request: waiting for a free connection, for the next piece of the
   * request's body, for the response's headers. Default 30 seconds.
   */
  timeout: Schema.optionalWith(internal.PositiveDuration, { default: () => Duration.seconds(30) }),
  /**
   * Longest silence in a response's body, and longest time that a body larger than 64 KiB waits for its reader to begin; a
   * reader that has begun may pause ten times as long. `BodyTimeout.withBodyTimeout` sets another one for a request.
   * `Duration.infinity` is no limit. Default: `timeout`.
   */
  bodyTimeout: Schema.optional(internal.PositiveOrInfiniteDuration),
  /**
   * The most bytes of a response that is read as a whole (`json`, `text`, `arrayBuffer` and the like): one that has more
   * fails with a `ResponseError` whose cause is a `ResponseTooLargeError`, and its connection ends. Streams have no limit.
   * `HttpIncomingMessage.withMaxBodySize` sets another one for an effect that reads. Default 64 MiB.
   */
  maxResponseSize: Schema.optionalWith(internal.NumberIn(1), { default: () => 64 * 1024 * 1024 }),
  /** Always `true`: there is no other value. */
  verifyPeer: Schema.optionalWith(
    Schema.Literal(true).annotations({
      message: (issue) => ({
        message: `expected true, peer verification cannot be disabled, got ${JSON.stringify(issue.actual)}`,
        override: true
      })
    }),
    { default: () => true as const }
  ),
  /** Limit for TCP connect and TLS handshake together. Default 10 seconds. */
  connectTimeout: Schema.optionalWith(internal.PositiveDuration, { default: () => Duration.seconds(10) }),
  /** Connections a stand-alone channel keeps at most (a pooled channel owns exactly one). Default 10. */
  connections: Schema.optionalWith(internal.NumberIn(1, 65_535), { default: () => 10 }),
  /**
   * Retries of a channel's requests, under the rules of `RetryPolicy.withRetry`: of one that stands alone, and of the
   * channels and clients of a pool. A `Schedule`, or a `RetryPolicy` without a budget, does as well. Default none.
   */
  retry: Schema.optional(FromInput),
  /** Longest life of a connection; it then ends once its request has. Default: the earliest notAfter on it alone. */
  maxConnectionAge: Schema.optional(internal.PositiveDuration)
}).pipe(
  Schema.filter((config) =>
    config.tlsMinVersion > config.tlsMaxVersion
      ? {
          path: ["tlsMaxVersion"],
          message: `expected a version of at least tlsMinVersion ${config.tlsMinVersion}, got ${config.tlsMaxVersion}`
        }
      : undefined
  )
)

/**
 * The configuration of a channel: all fields have defaults, all are checked.
 *
 * @since 0.1.0
 * @category models
 */
export class TransportConfig extends Schema.Class<TransportConfig>("@agentweave/transport/TransportConfig")(fields) {}

/**
 * The options of {@link make}: every field optional, every duration a `DurationInput`. A `TransportConfig` is one too.
 *
 * @since 0.1.0
 * @category models
 */
export type Options = typeof TransportConfig.Encoded

/**
 * Checks options and fills in defaults.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { TransportConfig } from "@agentweave/transport"
 *
 * const config = TransportConfig.make({ timeout: "5 seconds", tlsMinVersion: "TLSv1.2" })
 * ```
 */
export const make: (options: Options) => Either.Either<TransportConfig, InvalidConfigError> = internal.decoder(
  "TransportConfig",
  TransportConfig
)

/**
 * All defaults.
 *
 * @since 0.1.0
 * @category constants
 */
export const defaults: TransportConfig = new TransportConfig({})

/**
 * The configuration read from `Config`: `tlsMinVersion`, `tlsMaxVersion`, `timeout`, `bodyTimeout`, `maxResponseSize`,
 * `verifyPeer`, `connectTimeout`, `connections`, `maxConnectionAge`, each optional; and, nested in `retry`, the fields of
 * `RetryConfig.config`.
 *
 * @since 0.1.0
 * @category config
 */
export const config: Config.Config<TransportConfig> = internal.fromConfig(
  Config.all({
    tlsMinVersion: internal.optional(Config.string("tlsMinVersion")),
    tlsMaxVersion: internal.optional(Config.string("tlsMaxVersion")),
    timeout: internal.optionalDuration("timeout"),
    bodyTimeout: internal.optionalDuration("bodyTimeout"),
    maxResponseSize: internal.optional(Config.integer("maxResponseSize")),
    verifyPeer: internal.optional(Config.boolean("verifyPeer")),
    connectTimeout: internal.optionalDuration("connectTimeout"),
    connections: internal.optional(Config.integer("connections")),
    retry: optionalPart("retry"),
    maxConnectionAge: internal.optionalDuration("maxConnectionAge")
  }),
  internal.decoder("TransportConfig", TransportConfig as Schema.Schema<TransportConfig, unknown>)
)
