import * as Config from "effect/Config"
import { optional, optionalDuration } from "../config.js"

/** The options of retries as `Config` has them, not checked yet. */
export const optionsFromConfig = Config.all({
  maxRetries: optional(Config.integer("maxRetries")),
  baseDelay: optionalDuration("baseDelay"),
  maxDelay: optionalDuration("maxDelay"),
  exponentialBase: optional(Config.number("exponentialBase")),
  jitter: optional(Config.boolean("jitter")),
  statuses: optional(Config.array(Config.integer(), "statuses")),
  attemptTimeout: optionalDuration("attemptTimeout"),
  totalTimeout: optionalDuration("totalTimeout")
})

/** The same in a part of its own that may be absent as a whole. */
export const optionalPart = (name: string) =>
  Config.map(Config.nested(optionsFromConfig, name), (options) =>
    Object.values(options).every((value) => value === undefined) ? undefined : options
  )
