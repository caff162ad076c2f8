/**
 * The source of this workload's identity, as a service.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import type { IdentityError } from "./IdentityError.js"
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
    /** The current snapshot first, then every rotation. Ends only with an error or with the provider. */
    readonly changes: Stream.Stream<X509Context, IdentityError>
    /**
     * What the source met: the problems of the past, as many as are kept, then each new one, once. A source that has it
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

/** The failures of `changes`: each once, however often it is met again before the identity is back. */
const losses = ({ changes }: Context.Tag.Service<IdentityProvider>): Stream.Stream<IdentityProblem> =>
  Stream.suspend(() => {
    let subscribed = false
    let last: string | undefined
    const drain = Stream.runForEach(changes, () => Effect.sync(() => (last = undefined)))
    const next: Effect.Effect<IdentityProblem, Option.Option<never>> = Effect.gen(function* () {
      while (true) {
        if (subscribed) yield* Effect.sleep(resubscribeAfter)
        subscribed = true
        const ended = yield* Effect.either(drain)
        if (Either.isRight(ended)) return yield* Effect.fail(Option.none())
        const { description, message, reason } = ended.left
        if (message === last) continue
        last = message
        return { time: yield* Clock.currentTimeMillis, kind: kindOf(reason), reason, description }
      }
    })
    return Stream.repeatEffectOption(next)
  })

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
 * @category watching
 */
export const forEachChange = <R>(
  provider: Pick<Context.Tag.Service<IdentityProvider>, "changes">,
  onChange: (context: X509Context) => Effect.Effect<void, never, R>
): Effect.Effect<void, never, R> =>
  Stream.runForEach(provider.changes, onChange).pipe(Effect.retry(Schedule.spaced(resubscribeAfter)), Effect.ignore)

/**
 * A fixed identity that never rotates.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerStatic = (context: X509Context): Layer.Layer<IdentityProvider> =>
  Layer.succeed(IdentityProvider, {
    x509Context: Effect.succeed(context),
    changes: Stream.concat(Stream.make(context), Stream.never)
  })
