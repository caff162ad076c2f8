import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

/** Work in steps: between two of them others may run. */
export type Pieces<A> = Generator<undefined, A>

/** All steps in one piece. */
export const runAtOnce = <A>(pieces: Pieces<A>): A => {
  let step = pieces.next()
  while (!step.done) step = pieces.next()
  return step.value
}

/** The steps with a turn of the event loop between them. */
export const runInTurns = <A>(makePieces: () => Pieces<A>): Effect.Effect<A> =>
  Effect.gen(function* () {
    const pieces = makePieces()
    let step = pieces.next()
    while (!step.done) {
      // A timer, which the event loop only looks at after it has looked at its sockets.
      yield* Effect.sleep(Duration.zero)
      step = pieces.next()
    }
    return step.value
  })
