/**
 * The source of this workload's identity, as a service.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { IdentityError } from "./IdentityError.js"
import type { IdentityProblem, IdentityProblemKind } from "./IdentityProblem.js"
import type { X509Context } from "./X509Context.js"

/**
 * Own SVID and trust bundles, now and as they rotate.
 *
 * @since 0.1.0
 * @category tags
 */
export class IdentityProvider extends Context.Tag("@agentweave/spiffe/IdentityProvider")<
  IdentityProvider,
  {
    /** The newest snapshot. Cheap: it is read at every handshake. */
    readonly x509Context: Effect.Effect<X509Context, IdentityError>
    /**
     * The current snapshot first, then every rotation. Ends only with an error or with the provider; `x509Context` fails from
     * then on. See {@link until}.
     */
    readonly changes: Stream.Stream<X509Context, IdentityError>
    /**
     * The problems of the source: those of the past, as many as are kept, then each new one, once. A source that has it
     * tells there too what `changes` fails with. Ends with the provider. See {@link problems}.
     */
    readonly problems?: Stream.Stream<IdentityProblem> | undefined
  }
>() {}

/** How soon `changes` is asked for again after it failed. */
const resubscribeAfter = "250 millis"

const kindOf = (reason: IdentityError["reason"]): IdentityProblemKind => {
  switch (reason) {
    case "Withdrawn":
    case "Expired":
      return reason
    case "Unavailable":
    case "NotYetValid":
      return "Unavailable"
    default:
      return "Discarded"
  }
}

const isSame = (
  before: Either.Either<X509Context, IdentityError>,
  after: Either.Either<X509Context, IdentityError>
): boolean =>
  Either.isRight(before)
    ? Either.isRight(after) && before.right === after.right
    : Either.isLeft(after) && before.left.message === after.left.message

/**
 * The changes of the identity, with its loss as a value: the present state first, then every other one. A loss
 * means that the SVID before it must not be used any more when its reason is `Withdrawn` (SPIFFE_Workload_API section
 * 5.2.1). Where `changes` fails it is asked for again every 250 milliseconds, so that the return of the identity is seen;
 * the same state twice is one. Ends with the provider.
 *
 * @since 0.1.0
 * @category getters
 */
export const states = ({
  changes
}: Pick<Context.Tag.Service<IdentityProvider>, "changes">): Stream.Stream<Either.Either<X509Context, IdentityError>> =>
  Stream.asyncPush<Either.Either<X509Context, IdentityError>>((emit) =>
    Stream.runForEach(changes, (context) => Effect.sync(() => emit.single(Either.right(context)))).pipe(
      Effect.tapError((error) => Effect.sync(() => emit.single(Either.left(error)))),
      Effect.retry(Schedule.spaced(resubscribeAfter)),
      Effect.ignore,
      Effect.zipRight(Effect.sync(() => emit.end())),
      Effect.interruptible,
      Effect.forkScoped
    )
  ).pipe(Stream.changesWith(isSame))

/** The failures of `changes`: each once, however often it is met again before the identity is back. */
const losses = (provider: Context.Tag.Service<IdentityProvider>): Stream.Stream<IdentityProblem> =>
  Stream.filterMapEffect(states(provider), (state) =>
    Either.isRight(state)
      ? Option.none()
      : Option.some(
          Effect.map(Clock.currentTimeMillis, (time) => {
            const { description, reason } = state.left
            return { time, kind: kindOf(reason), reason, description }
          })
        )
  )

/**
 * The problems of any provider: what it tells itself, or, of one that does not, the failures of its `changes`. A provider
 * that wraps another passes these on beside its own.
 *
 * @since 0.1.0
 * @category getters
 */
export const problems = (provider: Context.Tag.Service<IdentityProvider>): Stream.Stream<IdentityProblem> =>
  provider.problems ?? losses(provider)

/**
 * Runs an effect for each snapshot, the current one first, for as long as the provider lives. Where `changes` fails because
 * the identity is lost, it is asked for again every 250 milliseconds, so that the return of the identity is seen.
 *
 * @since 0.1.0
 * @category operations
 */
export const forEachChange = <R>(
  provider: Pick<Context.Tag.Service<IdentityProvider>, "changes">,
  onChange: (context: X509Context) => Effect.Effect<void, never, R>
): Effect.Effect<void, never, R> =>
  Stream.runForEach(provider.changes, onChange).pipe(Effect.retry(Schedule.spaced(resubscribeAfter)), Effect.ignore)

const scopeEnded = new IdentityError({
  reason: "Unavailable",
  description:
    "expected an identity provider that is in use, the scope of its layer has ended: provide its layer around the whole use of what needs an identity"
})

/**
 * A provider that ends when `ended` does, as it is to with the scope of its source: what nobody keeps current any more is not
 * handed out. `x509Context` then fails with `IdentityError` `Unavailable`, and `changes` ends.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { IdentityProvider, type X509Context } from "@agentweave/spiffe"
 * import { Deferred, Effect, SubscriptionRef } from "effect"
 *
 * const source = (state: SubscriptionRef.SubscriptionRef<X509Context.X509Context>) =>
 *   Effect.gen(function* () {
 *     const ended = yield* Deferred.make<void>()
 *     yield* Effect.addFinalizer(() => Deferred.succeed(ended, undefined))
 *     return IdentityProvider.until({ x509Context: SubscriptionRef.get(state), changes: state.changes }, ended)
 *   })
 * ```
 */
export const until = <Provider extends Context.Tag.Service<IdentityProvider>>(
  provider: Provider,
  ended: Deferred.Deferred<void>
): Provider => ({
  ...provider,
  x509Context: Effect.flatMap(Deferred.isDone(ended), (isDone) =>
    isDone ? Effect.fail(scopeEnded) : provider.x509Context
  ),
  changes: Stream.unwrap(
    Effect.map(Deferred.isDone(ended), (isDone) =>
      isDone ? Stream.empty : Stream.interruptWhenDeferred(provider.changes, ended)
    )
  )
})

/**
 * A fixed identity that never rotates.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { IdentityProvider, X509BundleSet, X509Context, type X509Bundle, type X509Svid } from "@agentweave/spiffe"
 *
 * const identity = (svid: X509Svid.X509Svid, bundle: X509Bundle.X509Bundle) =>
 *   IdentityProvider.layerStatic(X509Context.make({ svid, bundles: X509BundleSet.of(bundle) }))
 * ```
 */
export const layerStatic = (context: X509Context): Layer.Layer<IdentityProvider> =>
  Layer.succeed(IdentityProvider, {
    x509Context: Effect.succeed(context),
    changes: Stream.concat(Stream.make(context), Stream.never)
  })
