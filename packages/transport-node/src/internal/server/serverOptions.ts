/** The options of secure servers, read. */
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

/** The options that all servers have. */
export const common = {
  port: NumberIn(0, 65_535),
  host: Schema.optionalWith(Text, { default: () => "0.0.0.0" }),
  authorize: ValueOf("a PeerMatcher", isPeerMatcher),
  tlsMinVersion: Schema.optional(TransportConfig.TlsVersion),
  tlsMaxVersion: Schema.optional(TransportConfig.TlsVersion),
  handshakeTimeout: Schema.optionalWith(DurationIn("1 millis", "10 seconds"), { default: () => Duration.seconds(10) }),
  maxConnectionAge: Schema.optional(PositiveDuration),
  maxConnections: Schema.optionalWith(NumberIn(1), { default: () => 10_000 }),
  maxConnectionsPerAddress: Schema.optionalWith(NumberIn(1), { default: () => 2_000 }),
  maxHandshakes: Schema.optionalWith(NumberIn(1), { default: () => 1_024 }),
  maxHandshakesPerAddress: Schema.optionalWith(NumberIn(1), { default: () => 256 })
}

type Common = Schema.Struct.Type<typeof common>

/** Settings of a server, and its TLS versions as the code that makes TLS contexts takes them. */
export interface Read<Settings> {
  readonly settings: Settings
  readonly tls: TransportConfig.TransportConfig
}

/** Reads the range of TLS versions; `config` names the options in the error. */
export const withTls =
  (config: string) =>
  <Settings extends Common>(settings: Settings): Either.Either<Read<Settings>, InvalidConfigError> => {
    const { tlsMaxVersion, tlsMinVersion } = settings
    return Either.mapBoth(TransportConfig.make({ tlsMinVersion, tlsMaxVersion }), {
      onLeft: ({ description, field }) => new InvalidConfigError({ config, field, description }),
      onRight: (tls) => ({ settings, tls })
    })
  }

const Settings = Schema.Struct({
  ...common,
  keepAliveTimeout: Schema.optionalWith(PositiveDuration, { default: () => Duration.seconds(65) }),
  headersTimeout: Schema.optionalWith(PositiveDuration, { default: () => Duration.minutes(1) }),
  requestTimeout: Schema.optionalWith(PositiveOrInfiniteDuration, { default: () => Duration.minutes(5) }),
  sendTimeout: Schema.optionalWith(PositiveOrInfiniteDuration, { default: () => Duration.minutes(1) }),
  maxRequestBodySize: Schema.optionalWith(NumberIn(1), { default: () => 16 * 1024 * 1024 }),
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

export const read = (options: Options): Either.Either<Read<Settings>, InvalidConfigError> =>
  Either.flatMap(decode(options), withTls("NodeSecureServer"))

/** The limits that Node keeps, on its own monotonic clock, in milliseconds. It looks at its connections at intervals. */
export const timeLimits = ({ headersTimeout, requestTimeout }: Settings) => {
  const headers = Math.ceil(Duration.toMillis(headersTimeout))
  return {
    headersTimeout: headers,
    requestTimeout: Duration.isFinite(requestTimeout) ? Math.ceil(Duration.toMillis(requestTimeout)) : 0,
    connectionsCheckingInterval: Math.min(Math.max(Math.ceil(headers / 4), 10), 10_000)
  }
}
