import { InvalidConfigError } from "@agentweave/transport/InvalidConfigError"
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as Option from "effect/Option"

/** Reads the durations among the options of `config`: finite, and not below a minimum. */
export const durationsOf =
  (config: string) =>
  (
    field: string,
    input: Duration.DurationInput,
    minimum: Duration.DurationInput
  ): Either.Either<Duration.Duration, InvalidConfigError> =>
    Duration.decodeUnknown(input).pipe(
      Option.filter((duration) => Duration.isFinite(duration) && Duration.greaterThanOrEqualTo(duration, minimum)),
      Either.fromOption(
        () =>
          new InvalidConfigError({
            config,
            field,
            description: `expected a finite duration of at least ${Duration.format(minimum)}, got ${String(input)}`
          })
      )
    )
