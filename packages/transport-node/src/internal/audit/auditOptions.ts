/** The options of an audit file, read. */
import { DurationIn, decoder, NumberIn, OneOf, PositiveDuration, Text } from "@agentweave/spiffe/OptionsDecoder"
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"

const WhenFull = OneOf("FailClosed", "DropAndCount")

const size = (fallback: number) => Schema.optionalWith(NumberIn(1), { default: () => fallback })

const Settings = Schema.Struct({
  path: Text,
  whenFull: Schema.optionalWith(WhenFull, { default: () => "FailClosed" as const }),
  whenFullOfRequests: Schema.optionalWith(WhenFull, { default: () => "DropAndCount" as const }),
  flushWindow: Schema.optionalWith(DurationIn(0, "1 hour"), { default: () => Duration.millis(100) }),
  maxPending: Schema.optionalWith(NumberIn(0), { default: () => 65_536 }),
  maxFileSize: size(64 * 1024 * 1024),
  checkpointEvery: size(1000),
  checkpointInterval: Schema.optionalWith(PositiveDuration, { default: () => Duration.minutes(1) }),
  maxTotalSize: size(Number.MAX_SAFE_INTEGER),
  maxAge: Schema.optional(PositiveDuration),
  reservedSpace: Schema.optionalWith(NumberIn(0), { default: () => 64 * 1024 * 1024 }),
  maxStrangers: Schema.optionalWith(NumberIn(0), { default: () => 100 })
})

export type Settings = typeof Settings.Type

export const decode = decoder("NodeAuditLog", Settings)
