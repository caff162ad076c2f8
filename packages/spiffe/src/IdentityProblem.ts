/**
 * Problems of this workload's own identity, as values: its source met them and went on.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as PubSub from "effect/PubSub"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

/**
 * - `Discarded`: what the source delivered, or a part of it, cannot be used. The last good one goes on serving; a federated
 *   bundle that came with a good SVID is left out instead, and its trust domain cannot be verified.
 * - `Withdrawn`: the source took the identity back.
 * - `Expired`: the SVID is past its notAfter, and no successor came.
 * - `Unavailable`: the source cannot be asked or read; what it delivered last goes on serving until it expires.
 * - `Exposed`: others may have seen what is to be secret.
 *
 * @since 0.1.0
 * @category models
 */
export const IdentityProblemKind = Schema.Literal("Discarded", "Withdrawn", "Expired", "Unavailable", "Exposed")

/**
 * The kinds of an `IdentityProblem`.
 *
 * @since 0.1.0
 * @category models
 */
export type IdentityProblemKind = typeof IdentityProblemKind.Type

/**
 * A problem: a plain value that never holds key material. One that lasts is told once.
 *
 * @since 0.1.0
 * @category models
 */
export const IdentityProblem = Schema.Struct({
  /** Milliseconds since the epoch, from Effect's Clock. */
  time: Schema.Number,
  kind: IdentityProblemKind,
  /** The source's own literal for it, such as `Malformed`. */
  reason: Schema.String,
  /** One line: what was expected, what came, and where. */
  description: Schema.String
})

/**
 * A problem of this workload's own identity, with the instant it was met.
 *
 * @since 0.1.0
 * @category models
 */
export type IdentityProblem = typeof IdentityProblem.Type

/**
 * How a source tells its problems.
 *
 * @since 0.1.0
 * @category models
 */
export interface Reporter {
  /** Tells everybody who listens. It never waits and never fails, whoever listens and however slowly. */
  readonly report: (problem: Omit<IdentityProblem, "time">) => Effect.Effect<void>
  /** For `IdentityProvider`: the problems of the past, as many as are kept, then those that come. Ends with the scope. */
  readonly problems: Stream.Stream<IdentityProblem>
}

/** Most problems kept for those who begin to listen later, and for one who falls behind: then the oldest are lost. */
const capacity = 64

/**
 * For sources of identity: a {@link Reporter} that lives as long as the scope. What is reported before anybody listens,
 * say while the source is being built, is there for those who come later.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { IdentityProblem, type IdentityProvider, type X509Context } from "@agentweave/spiffe"
 * import { type Context, Effect, Stream } from "effect"
 *
 * const source = (context: X509Context.X509Context) =>
 *   Effect.gen(function* () {
 *     const { problems, report } = yield* IdentityProblem.makeReporter
 *     yield* report({ kind: "Unavailable", reason: "Unreachable", description: "expected an answer, got none" })
 *     const provider: Context.Tag.Service<IdentityProvider.IdentityProvider> = {
 *       x509Context: Effect.succeed(context),
 *       changes: Stream.concat(Stream.make(context), Stream.never),
 *       problems
 *     }
 *     return provider
 *   })
 * ```
 */
export const makeReporter: Effect.Effect<Reporter, never, Scope.Scope> = Effect.gen(function* () {
  const published = yield* PubSub.sliding<IdentityProblem>({ capacity, replay: capacity })
  const closed = yield* Deferred.make<void>()
  yield* Effect.addFinalizer(() => Deferred.succeed(closed, undefined))
  return {
    report: ({ description, kind, reason }) =>
      Effect.flatMap(Clock.currentTimeMillis, (time) => PubSub.publish(published, { time, kind, reason, description })),
    problems: Stream.interruptWhenDeferred(Stream.fromPubSub(published), closed)
  }
})
