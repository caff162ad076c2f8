/** The options of a secure socket server, read. */
import { decoder, Text } from "@agentweave/spiffe/OptionsDecoder"
import type { InvalidConfigError } from "@agentweave/transport/InvalidConfigError"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import type { Options } from "../../NodeSecureSocketServer.js"
import { common, type Read, withTls } from "../server/serverOptions.js"

const Settings = Schema.Struct({
  ...common,
  protocols: Schema.optionalWith(Schema.Array(Text), { default: () => [] })
})

const decode = decoder("NodeSecureSocketServer", Settings)

export const read = (options: Options): Either.Either<Read<typeof Settings.Type>, InvalidConfigError> =>
  Either.flatMap(decode(options), withTls("NodeSecureSocketServer"))
