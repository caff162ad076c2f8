/** The streams of snapshots that are open: a bounded number, which can be ended together. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"

/** Most streams at a time. */
export const maxStreams = 8

export class Streams {
  private readonly open = new Set<Deferred.Deferred<void>>()

  /** A place for the time of the scope, and the sign that its stream is to end; `None` when all places are taken. */
  readonly enter: Effect.Effect<Option.Option<Deferred.Deferred<void>>, never, Scope.Scope> = Effect.acquireRelease(
    Effect.flatMap(Deferred.make<void>(), (ended) =>
      Effect.sync(() => {
        if (this.open.size >= maxStreams) return Option.none()
        this.open.add(ended)
        return Option.some(ended)
      })
    ),
    (place) =>
      Effect.sync(() => {
        if (Option.isSome(place)) this.open.delete(place.value)
      })
  )

  /** Ends the streams there are now. */
  readonly end: Effect.Effect<void> = Effect.suspend(() =>
    Effect.forEach(Array.from(this.open), (ended) => Deferred.succeed(ended, undefined), { discard: true })
  )
}
