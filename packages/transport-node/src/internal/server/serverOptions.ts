/** The options of a secure server, read. */
import {
  DurationIn,
  decoder,
  NonNegativeDuration,
  NumberIn,
  PositiveDuration,
  PositiveOrInfiniteDuration,
  Text,
  ValueOf
} from "@agentweave/spiffe/OptionsDecoder"
import { isPeerMatcher } from "@agentweave/spiffe/PeerMatcher"
import { InvalidConfigError } from "@agentweave/transport/InvalidConfigError"
import * as TransportConfig from "@agentweave/transport/TransportConfig"
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import type { Options } from "../../NodeSecureServer.js"

const Settings = Schema.Struct({
  port: NumberIn(0, 65_535),
  host: Schema.optionalWith(Text, { default: () => "0.0.0.0" }),
  authorize: ValueOf("a PeerMatcher", isPeerMatcher),
  tlsMinVersion: Schema.optional(TransportConfig.TlsVersion),
  tlsMaxVersion: Schema.optional(TransportConfig.TlsVersion),
  handshakeTimeout: Schema.optionalWith(DurationIn("1 millis", "10 seconds"), { default: () => Duration.seconds(10) }),
  keepAliveTimeout: Schema.optionalWith(PositiveDuration, { default: () => Duration.seconds(65) }),
  headersTimeout: Schema.optionalWith(PositiveDuration, { default: () => Duration.minutes(1) }),
  requestTimeout: Schema.optionalWith(PositiveOrInfiniteDuration, { default: () => Duration.minutes(5) }),
  maxConnectionAge: Schema.optional(PositiveDuration),
  maxRequestBodySize: Schema.optionalWith(NumberIn(1), { default: () => 16 * 1024 * 1024 }),
  maxConnections: Schema.optionalWith(NumberIn(1), { default: () => 10_000 }),
  maxConnectionsPerAddress: Schema.optionalWith(NumberIn(1), { default: () => 2_000 }),
  maxHandshakes: Schema.optionalWith(NumberIn(1), { default: () => 1_024 }),
  maxHandshakesPerAddress: Schema.optionalWith(NumberIn(1), { default: () => 256 }),
  gracefulShutdownTimeout: Schema.optionalWith(NonNegativeDuration, { default: () => Duration.seconds(20) })
}).pipe(
  Schema.filter(({ headersTimeout, requestTimeout }) =>
    Duration.lessThan(requestTimeout, headersTimeout)
      ? {
          path: ["requestTimeout"],
          message: `expected at least headersTimeout ${Duration.format(headersTimeout)}, got ${Duration.format(requestTimeout)}`
        }
      : undefined
  )
)

export type Settings = typeof Settings.Type

const decode = decoder("NodeSecureServer", Settings)

export interface Read {
  readonly settings: Settings
  /** The TLS versions, as the code that makes TLS contexts takes them. */
  readonly tls: TransportConfig.TransportConfig
}

export const read = (options: Options): Either.Either<Read, InvalidConfigError> =>
  Either.flatMap(decode(options), (settings) =>
    TransportConfig.make({ tlsMinVersion: settings.tlsMinVersion, tlsMaxVersion: settings.tlsMaxVersion }).pipe(
      Either.mapBoth({
        onLeft: ({ description, field }) => new InvalidConfigError({ config: "NodeSecureServer", field, description }),
        onRight: (tls) => ({ settings, tls })
      })
    )
  )

/** The limits that Node keeps, on its own monotonic clock, in milliseconds. It looks at its connections at intervals. */
export const timeLimits = ({ headersTimeout, requestTimeout }: Settings) => {
  const headers = Math.ceil(Duration.toMillis(headersTimeout))
  return {
    headersTimeout: headers,
    requestTimeout: Duration.isFinite(requestTimeout) ? Math.ceil(Duration.toMillis(requestTimeout)) : 0,
    connectionsCheckingInterval: Math.min(Math.max(Math.ceil(headers / 4), 10), 10_000)
  }
}
