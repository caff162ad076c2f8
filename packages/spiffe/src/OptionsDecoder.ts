/**
 * How the options of every layer are read: for authors of packages like these. A negative, unreadable or infinite duration, a
 * number out of its range or an unknown field is an `InvalidConfigError` that names the field.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import { InvalidConfigError } from "./InvalidConfigError.js"

const show = (value: unknown): string =>
  Duration.isDuration(value)
    ? Duration.format(value)
    : typeof value === "string"
      ? JSON.stringify(value)
      : Array.isArray(value)
        ? `[${value.map(show).join(", ")}]`
        : String(value)

const expecting = (expected: string) => (issue: ParseResult.ParseIssue) => ({
  message: `expected ${expected}, got ${show(issue.actual)}`,
  override: true
})

/** `Duration.decode` takes a negative duration, and one that is not a number, for zero. */
const isNegativeOrNaN = (input: unknown): boolean => {
  switch (typeof input) {
    case "number":
    case "bigint":
      return !(input >= 0)
    case "string":
      return /^\s*-/.test(input)
    default:
      return Array.isArray(input) && input.some(isNegativeOrNaN)
  }
}

const isDurationInput = (input: unknown): input is Duration.DurationInput =>
  Option.isSome(Duration.decodeUnknown(input))

/** A `Duration` from any `DurationInput`; encodes to `"<n> millis"`. */
const FromInput: Schema.Schema<Duration.Duration, Duration.DurationInput> = Schema.transform(
  Schema.declare(isDurationInput, { message: expecting('a duration such as "30 seconds"') }).pipe(
    Schema.filter((input) => !isNegativeOrNaN(input) || `expected a duration that is not negative, got ${show(input)}`)
  ),
  Schema.DurationFromSelf,
  {
    strict: true,
    decode: (input) => Duration.decode(input),
    encode: (duration) => `${Duration.toMillis(duration)} millis` as const
  }
)

/**
 * A positive, finite duration.
 *
 * @since 0.1.0
 * @category schemas
 */
export const PositiveDuration = FromInput.pipe(
  Schema.filter(
    (value) =>
      (Duration.isFinite(value) && Duration.greaterThan(value, Duration.zero)) ||
      `expected a positive, finite duration, got ${show(value)}`
  )
)

/**
 * A positive duration, which may be without end.
 *
 * @since 0.1.0
 * @category schemas
 */
export const PositiveOrInfiniteDuration = FromInput.pipe(
  Schema.filter(
    (value) => Duration.greaterThan(value, Duration.zero) || `expected a positive duration, got ${show(value)}`
  )
)

/**
 * A finite duration; zero is allowed.
 *
 * @since 0.1.0
 * @category schemas
 */
export const NonNegativeDuration = FromInput.pipe(
  Schema.filter((value) => Duration.isFinite(value) || `expected a finite duration, got ${show(value)}`)
)

/**
 * A finite duration within `[min, max]`; without `max` there is no upper limit.
 *
 * @since 0.1.0
 * @category schemas
 */
export const DurationIn = (min: Duration.DurationInput, max?: Duration.DurationInput) =>
  FromInput.pipe(
    Schema.filter(
      (value) =>
        (Duration.isFinite(value) &&
          Duration.greaterThanOrEqualTo(value, min) &&
          (max === undefined || Duration.lessThanOrEqualTo(value, max))) ||
        `expected a finite duration of at least ${Duration.format(min)}${max === undefined ? "" : ` and at most ${Duration.format(max)}`}, got ${show(value)}`
    )
  )

/**
 * A number within `[min, max]`; an integer unless `integer` is `false`.
 *
 * @since 0.1.0
 * @category schemas
 */
export const NumberIn = (min: number, max = Number.MAX_SAFE_INTEGER, integer = true) =>
  Schema.Number.annotations({ message: expecting("a number") }).pipe(
    Schema.filter(
      (value) =>
        (value >= min && value <= max && (!integer || Number.isInteger(value))) ||
        `expected ${integer ? "an integer" : "a number"} of at least ${min}${max === Number.MAX_SAFE_INTEGER ? "" : ` and at most ${max}`}, got ${show(value)}`
    )
  )

/**
 * `true` or `false`.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Flag = Schema.Boolean.annotations({ message: expecting("true or false") })

/**
 * A text that is not empty.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Text = Schema.String.annotations({ message: expecting("a text") }).pipe(
  Schema.filter((text) => text !== "" || "expected a text, got an empty one")
)

/**
 * One of a few texts.
 *
 * @since 0.1.0
 * @category schemas
 */
export const OneOf = <const Texts extends readonly [string, ...ReadonlyArray<string>]>(...texts: Texts) =>
  Schema.Literal(...texts).annotations({
    message: expecting(`one of ${texts.map((text) => JSON.stringify(text)).join(", ")}`)
  })

/**
 * A function of the caller's. What it takes and returns is for its type to say.
 *
 * @since 0.1.0
 * @category schemas
 */
export const FunctionOf = <F extends (...args: never) => unknown>(): Schema.Schema<F> =>
  Schema.declare((input: unknown): input is F => typeof input === "function", {
    message: (issue) => ({ message: `expected a function, got ${typeof issue.actual}`, override: true })
  })

/**
 * A value that is known by a guard: a service, a matcher, a schedule. `expected` is its name with an article.
 *
 * @since 0.1.0
 * @category schemas
 */
export const ValueOf = <A>(expected: string, is: (input: unknown) => input is A): Schema.Schema<A> =>
  Schema.declare(is, {
    message: (issue) => ({ message: `expected ${expected}, got ${typeof issue.actual}`, override: true })
  })

const unknownField = (issue: ParseResult.ArrayFormatterIssue): string =>
  issue._tag === "Unexpected" ? `expected no field of this name; ${issue.message}` : issue.message

/**
 * Reads options by their schema. The first broken rule becomes an `InvalidConfigError` of the configuration `name`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { OptionsDecoder } from "@agentweave/spiffe"
 * import { Duration, Schema } from "effect"
 *
 * const decode = OptionsDecoder.decoder(
 *   "Poller",
 *   Schema.Struct({
 *     interval: Schema.optionalWith(OptionsDecoder.PositiveDuration, { default: () => Duration.seconds(5) }),
 *     maxErrors: Schema.optional(OptionsDecoder.NumberIn(1))
 *   })
 * )
 *
 * console.log(decode({ interval: "-5 seconds" })) // Left: Poller.interval: expected a duration that is not negative, ...
 * ```
 */
export const decoder = <A, I>(
  name: string,
  schema: Schema.Schema<A, I>
): ((options: I) => Either.Either<A, InvalidConfigError>) => {
  const decode = Schema.decodeUnknownEither(schema, { onExcessProperty: "error" })
  return (options) =>
    Either.mapLeft(decode(options), (error) => {
      const issue = ParseResult.ArrayFormatter.formatErrorSync(error)[0]
      return new InvalidConfigError({
        config: name,
        field: issue?.path.map(String).join(".") ?? "",
        description: issue === undefined ? error.message : unknownField(issue)
      })
    })
}

/**
 * Options read from `Config`, checked by the same rules.
 *
 * @since 0.1.0
 * @category config
 */
export const fromConfig = <O, A>(
  options: Config.Config<O>,
  decode: (options: O) => Either.Either<A, InvalidConfigError>
): Config.Config<A> =>
  Config.mapOrFail(options, (value) =>
    Either.mapLeft(decode(value), (error) =>
      ConfigError.InvalidData(error.field === "" ? [] : error.field.split("."), error.description)
    )
  )

/**
 * A field of `Config` that may be absent, so that the default of the schema applies.
 *
 * @since 0.1.0
 * @category config
 */
export const optional = <A>(config: Config.Config<A>): Config.Config<A | undefined> =>
  Config.map(Config.option(config), Option.getOrUndefined)

/**
 * A duration of `Config` that may be absent, as its text: `Config.duration` would take a negative one for zero.
 *
 * @since 0.1.0
 * @category config
 */
export const optionalDuration = (name: string): Config.Config<Duration.DurationInput | undefined> =>
  optional(
    Config.mapOrFail(Config.string(name), (text) =>
      isDurationInput(text)
        ? Either.right(text)
        : Either.left(ConfigError.InvalidData([], `expected a duration such as "30 seconds", got ${show(text)}`))
    )
  )
