import { expect, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import * as Deadlines from "../../src/internal/connection/deadlines.js"
import { type Sending, SendWatch } from "../../src/internal/connection/sendTimeout.js"
import { SteppedClock } from "./steppedClock.js"

/** The connections of a server with a limit of a minute, on a clock that the test moves. */
const world = <A, E>(
  test: (world: {
    readonly clock: SteppedClock
    readonly live: Set<Sending>
    readonly watch: SendWatch
  }) => Effect.Effect<A, E, Scope.Scope>
) =>
  Effect.suspend(() => {
    const clock = new SteppedClock()
    const live = new Set<Sending>()
    return Effect.flatMap(Deadlines.make, (deadlines) =>
      test({ clock, live, watch: new SendWatch(deadlines, live, 60_000) })
    ).pipe(Effect.scoped, Effect.withClock(clock))
  })

it.effect("connections are looked at four times a limit, and nothing sleeps when the last one has ended", () =>
  world(({ clock, live, watch }) =>
    Effect.gen(function* () {
      let looks = 0
      const open = (): Sending => {
        const connection = { lookAtSending: () => void looks++ }
        live.add(connection)
        watch.begin()
        return connection
      }
      const end = (connection: Sending) => {
        live.delete(connection)
        watch.ended()
      }
      const [first, second] = [open(), open()]
      yield* clock.pass(60_000)
      expect(looks).toBe(8)
      end(first)
      yield* clock.pass(60_000)
      expect(looks).toBe(12)
      expect(clock.sleeping).toBe(1)
      end(second)
      yield* clock.pass(0)
      expect(clock.sleeping).toBe(0)
      yield* clock.pass(60_000)
      expect(looks).toBe(12)
      open()
      yield* clock.pass(15_000)
      expect(looks).toBe(13)
    })
  )
)

it.effect("nothing sleeps when a look cuts the last connection off", () =>
  world(({ clock, live, watch }) =>
    Effect.gen(function* () {
      const connection = {
        lookAtSending: () => {
          live.delete(connection)
          watch.ended()
        }
      }
      live.add(connection)
      watch.begin()
      yield* clock.pass(15_000)
      expect(live.size).toBe(0)
      expect(clock.sleeping).toBe(0)
    })
  )
)
