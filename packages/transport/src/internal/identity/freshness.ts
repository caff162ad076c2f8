/** How fresh an identity is: now, and as it changes. */
import { IdentityError } from "@agentweave/spiffe/IdentityError"
import { type IdentityProvider, states } from "@agentweave/spiffe/IdentityProvider"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { type Freshness, freshnessOf, untilNextFreshness } from "./events.js"

type Identity = Context.Tag.Service<IdentityProvider>
type State = Either.Either<X509Context, IdentityError>

const noneYet: State = Either.left(
  new IdentityError({ reason: "Unavailable", description: "expected an identity, none has been received yet" })
)

/** The provider's identity at this moment; a provider that waits for its first identity has none. */
export const present = ({ x509Context }: Identity): Effect.Effect<State> =>
  Effect.either(x509Context).pipe(
    Effect.timeoutTo({ duration: Duration.zero, onSuccess: (state) => state, onTimeout: () => noneYet })
  )

export const ofState = (state: State, now: number): Freshness =>
  Either.match(state, {
    onLeft: ({ reason }) => (reason === "Expired" ? "Expired" : "None"),
    onRight: (context) => freshnessOf(context, now)
  })

/** Timers of the platform are bound to 31 bits of milliseconds, so a longer sleep is taken in pieces. */
const longestSleep = Duration.toMillis("1 day")

/** The freshness of one state as time goes by, from now on. */
const timeline = (state: State): Stream.Stream<Freshness> =>
  Stream.unfoldEffect(0, (wait) =>
    Effect.gen(function* () {
      if (wait === Number.POSITIVE_INFINITY) return Option.none()
      yield* Effect.sleep(Math.min(wait, longestSleep))
      const now = yield* Clock.currentTimeMillis
      const next = untilNextFreshness(Either.getOrUndefined(state), now)
      return Option.some([ofState(state, now), next] as const)
    })
  )

/** The freshness now, then each other one. Ends with the provider. */
export const changes = (identity: Identity): Stream.Stream<Freshness> =>
  Stream.fromEffect(present(identity)).pipe(
    Stream.concat(states(identity)),
    Stream.flatMap(timeline, { switch: true }),
    Stream.changes
  )
