import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import { InvalidConfigError } from "../InvalidConfigError.js"

const isDurationInput = (input: unknown): input is Duration.DurationInput =>
  Option.isSome(Duration.decodeUnknown(input))

const show = (value: unknown): string =>
  Duration.isDuration(value)
    ? Duration.format(value)
    : typeof value === "string"
      ? JSON.stringify(value)
      : String(value)

/** A `Duration` from any `DurationInput`; encodes to `"<n> millis"`. */
const FromInput: Schema.Schema<Duration.Duration, Duration.DurationInput> = Schema.transform(
  Schema.declare(isDurationInput, {
    message: (issue) => ({
      message: `expected a duration such as "30 seconds", got ${show(issue.actual)}`,
      override: true
    })
  }),
  Schema.DurationFromSelf,
  {
    strict: true,
    decode: (input) => Duration.decode(input),
    encode: (duration) => `${Duration.toMillis(duration)} millis` as const
  }
)

/** A positive, finite duration. */
export const PositiveDuration = FromInput.pipe(
  Schema.filter(
    (value) =>
      (Duration.isFinite(value) && Duration.greaterThan(value, Duration.zero)) ||
      `expected a positive, finite duration, got ${show(value)}`
  )
)

/** A finite duration; zero is allowed. */
export const NonNegativeDuration = FromInput.pipe(
  Schema.filter((value) => Duration.isFinite(value) || `expected a finite duration, got ${show(value)}`)
)

/** A number within `[min, max]`; an integer unless said otherwise. */
export const NumberIn = (min: number, max = Number.MAX_SAFE_INTEGER, integer = true) =>
  Schema.Number.annotations({
    message: (issue) => ({ message: `expected a number, got ${show(issue.actual)}`, override: true })
  }).pipe(
    Schema.filter(
      (value) =>
        (value >= min && value <= max && (!integer || Number.isInteger(value))) ||
        `expected ${integer ? "an integer" : "a number"} of at least ${min}${max === Number.MAX_SAFE_INTEGER ? "" : ` and at most ${max}`}, got ${show(value)}`
    )
  )

/** Decodes options into a configuration class; the first broken rule becomes an {@link InvalidConfigError}. */
export const decoder =
  <A, I>(name: string, schema: Schema.Schema<A, I>) =>
  (options: I): Either.Either<A, InvalidConfigError> =>
    Either.mapLeft(Schema.decodeUnknownEither(schema)(options), (error) => {
      const issue = ParseResult.ArrayFormatter.formatErrorSync(error)[0]
      return new InvalidConfigError({
        config: name,
        field: issue?.path.map(String).join(".") ?? "",
        description: issue?.message ?? error.message
      })
    })

/** Options read from `Config`, checked by the same rules. */
export const fromConfig = <O, A>(
  options: Config.Config<O>,
  decode: (options: O) => Either.Either<A, InvalidConfigError>
): Config.Config<A> =>
  Config.mapOrFail(options, (value) =>
    Either.mapLeft(decode(value), (error) =>
      ConfigError.InvalidData(error.field === "" ? [] : [error.field], error.description)
    )
  )

/** A field of `Config` that may be absent, so that the default of the schema applies. */
export const optional = <A>(config: Config.Config<A>): Config.Config<A | undefined> =>
  Config.map(Config.option(config), Option.getOrUndefined)
