/**
 * @since 0.1.0
 */
import * as Data from "effect/Data"

/**
 * A program was called wrongly, or what it was pointed at is not there.
 *
 * @since 0.1.0
 * @category errors
 */
export class UsageError extends Data.TaggedError("UsageError")<{ readonly message: string }> {}
