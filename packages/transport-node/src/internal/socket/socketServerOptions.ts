/** The options of a secure socket server, read. */
import { DurationIn, decoder, NumberIn, PositiveDuration, Text, ValueOf } from "@agentweave/spiffe/OptionsDecoder"
import { isPeerMatcher } from "@agentweave/spiffe/PeerMatcher"
import { InvalidConfigError } from "@agentweave/transport/InvalidConfigError"
import * as TransportConfig from "@agentweave/transport/TransportConfig"
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import type { Options } from "../../NodeSecureSocketServer.js"

const Settings = Schema.Struct({
  port: NumberIn(0, 65_535),
  host: Schema.optionalWith(Text, { default: () => "0.0.0.0" }),
  authorize: ValueOf("a PeerMatcher", isPeerMatcher),
  protocols: Schema.optionalWith(Schema.Array(Text), { default: () => [] }),
  tlsMinVersion: Schema.optional(TransportConfig.TlsVersion),
  tlsMaxVersion: Schema.optional(TransportConfig.TlsVersion),
  handshakeTimeout: Schema.optionalWith(DurationIn("1 millis", "10 seconds"), { default: () => Duration.seconds(10) }),
  maxConnectionAge: Schema.optional(PositiveDuration),
  maxConnections: Schema.optionalWith(NumberIn(1), { default: () => 10_000 }),
  maxConnectionsPerAddress: Schema.optionalWith(NumberIn(1), { default: () => 2_000 }),
  maxHandshakes: Schema.optionalWith(NumberIn(1), { default: () => 1_024 }),
  maxHandshakesPerAddress: Schema.optionalWith(NumberIn(1), { default: () => 256 })
})

const decode = decoder("NodeSecureSocketServer", Settings)

export interface Read {
  readonly settings: typeof Settings.Type
  /** The TLS versions, as the code that makes TLS contexts takes them. */
  readonly tls: TransportConfig.TransportConfig
}

export const read = (options: Options): Either.Either<Read, InvalidConfigError> =>
  Either.flatMap(decode(options), (settings) =>
    TransportConfig.make({ tlsMinVersion: settings.tlsMinVersion, tlsMaxVersion: settings.tlsMaxVersion }).pipe(
      Either.mapBoth({
        onLeft: ({ description, field }) =>
          new InvalidConfigError({ config: "NodeSecureSocketServer", field, description }),
        onRight: (tls) => ({ settings, tls })
      })
    )
  )
