/**
 * Trust domain names: the authority part of a SPIFFE ID (SPIFFE-ID section 2.1).
 *
 * @since 0.1.0
 */
import type * as Brand from "effect/Brand"
import * as Either from "effect/Either"
import * as ParseResult from "effect/ParseResult"
import * as S from "effect/Schema"
import { InvalidSpiffeIdError } from "./InvalidSpiffeIdError.js"
import { trustDomainViolation } from "./internal/spiffeIdGrammar.js"

/**
 * A valid trust domain name, e.g. `example.org`: 1 to 255 bytes of `a-z`, `0-9`, `.`, `-` and `_`.
 *
 * @since 0.1.0
 * @category models
 */
export type TrustDomain = string & Brand.Brand<"@agentweave/spiffe/TrustDomain">

/**
 * Whether a value is a valid trust domain name.
 *
 * @since 0.1.0
 * @category guards
 */
export const isTrustDomain = (text: unknown): text is TrustDomain =>
  typeof text === "string" && trustDomainViolation(text, 0, text.length) === undefined

/**
 * Parses a bare trust domain name. The text is judged as it is: no trimming, no case folding.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { TrustDomain } from "@agentweave/spiffe"
 * import { Either } from "effect"
 *
 * console.log(Either.isRight(TrustDomain.parse("example.org"))) // true
 * console.log(Either.isLeft(TrustDomain.parse("Example.org"))) // true
 * ```
 */
export const parse = (text: string): Either.Either<TrustDomain, InvalidSpiffeIdError> => {
  if (isTrustDomain(text)) return Either.right(text)
  const violation = trustDomainViolation(text, 0, text.length)
  return Either.left(
    new InvalidSpiffeIdError({
      input: text.slice(0, 256),
      rule: violation?.rule ?? "TrustDomainEmpty",
      expected: violation?.expected ?? "a trust domain name",
      position: violation?.position
    })
  )
}

/**
 * A trust domain from a literal the program's author wrote; throws {@link InvalidSpiffeIdError} on a bad one. For text
 * that comes from outside use {@link parse}.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { PeerMatcher, TrustDomain } from "@agentweave/spiffe"
 *
 * const everyWorkload = PeerMatcher.memberOf(TrustDomain.make("example.org"))
 * ```
 */
export const make = (text: string): TrustDomain => Either.getOrThrowWith(parse(text), (error) => error)

/**
 * A valid trust domain name, without `spiffe://`, as a string of its own type.
 *
 * @since 0.1.0
 * @category schemas
 */
export const TrustDomain: S.Schema<TrustDomain, string> = S.transformOrFail(S.String, S.declare(isTrustDomain), {
  strict: true,
  decode: (text, _options, ast) =>
    Either.mapLeft(parse(text), (error) => new ParseResult.Type(ast, text, error.message)),
  encode: (domain) => Either.right<string>(domain)
}).annotations({ identifier: "TrustDomain" })
