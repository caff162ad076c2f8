/**
 * SPIFFE IDs of workloads: `spiffe://<trust domain>/<path>` (SPIFFE-ID section 2).
 *
 * @since 0.1.0
 */
import type * as Brand from "effect/Brand"
import * as Either from "effect/Either"
import * as ParseResult from "effect/ParseResult"
import * as S from "effect/Schema"
import { InvalidSpiffeIdError } from "./InvalidSpiffeIdError.js"
import { pathStart, spiffeIdViolation, spiffeScheme } from "./internal/spiffeIdGrammar.js"
import type { TrustDomain } from "./TrustDomain.js"

/**
 * The SPIFFE ID of a workload. A branded string, so that equality, hashing, `Map` keys and JSON are those of the text.
 * It always has a path: the ID of a trust domain itself is a `TrustDomain`.
 *
 * @since 0.1.0
 * @category models
 */
export type SpiffeId = string & Brand.Brand<"@agentweave/spiffe/SpiffeId">

/**
 * Whether a value is a valid SPIFFE ID.
 *
 * @since 0.1.0
 * @category guards
 */
export const isSpiffeId = (text: unknown): text is SpiffeId =>
  typeof text === "string" && spiffeIdViolation(text) === undefined

/**
 * Parses a workload's SPIFFE ID. The raw text is judged against the whole grammar and never normalised: no upper-case
 * trust domain, port, user, query, fragment, percent sign, empty or dot segment, or trailing slash; at most 2048 bytes.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { SpiffeId } from "@agentweave/spiffe"
 * import { Either } from "effect"
 *
 * console.log(Either.isRight(SpiffeId.parse("spiffe://example.org/api"))) // true
 * console.log(Either.isLeft(SpiffeId.parse("spiffe://example.org/api/"))) // true
 * ```
 */
export const parse = (text: string): Either.Either<SpiffeId, InvalidSpiffeIdError> => {
  if (isSpiffeId(text)) return Either.right(text)
  const violation = spiffeIdViolation(text)
  return Either.left(
    new InvalidSpiffeIdError({
      input: text.slice(0, 256),
      rule: violation?.rule ?? "Empty",
      expected: violation?.expected ?? "a SPIFFE ID",
      position: violation?.position
    })
  )
}

/**
 * A SPIFFE ID from a literal the program's author wrote; throws {@link InvalidSpiffeIdError} on a bad one. For text
 * that comes from outside use {@link parse}.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { SpiffeId } from "@agentweave/spiffe"
 *
 * const billing = SpiffeId.make("spiffe://example.org/ns/prod/sa/billing")
 * console.log(SpiffeId.path(billing)) // /ns/prod/sa/billing
 * ```
 */
export const make = (text: string): SpiffeId => Either.getOrThrowWith(parse(text), (error) => error)

/**
 * The trust domain of an ID.
 *
 * @since 0.1.0
 * @category getters
 */
export const trustDomain = (id: SpiffeId): TrustDomain => id.slice(spiffeScheme.length, pathStart(id)) as TrustDomain

/**
 * The path of an ID, with its leading slash.
 *
 * @since 0.1.0
 * @category getters
 */
export const path = (id: SpiffeId): string => id.slice(pathStart(id))

/**
 * A valid SPIFFE ID, as a string of its own type.
 *
 * @since 0.1.0
 * @category schemas
 */
export const SpiffeId: S.Schema<SpiffeId, string> = S.transformOrFail(S.String, S.declare(isSpiffeId), {
  strict: true,
  decode: (text, _options, ast) =>
    Either.mapLeft(parse(text), (error) => new ParseResult.Type(ast, text, error.message)),
  encode: (id) => Either.right<string>(id)
}).annotations({ identifier: "SpiffeId" })
