import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { CircuitState } from "../../CircuitState.js"
import { millis } from "../clock.js"
import { clockOf, withFiber } from "../fiber.js"
import type { BreakerMachine } from "./machine.js"

/** How many states a reader that falls behind keeps: the latest states, the present one always among them. */
const capacity = 16

/** The longest a JavaScript timer waits: 2^31 - 1 milliseconds. A longer wait is made of several. */
const longestSleep = 2_147_483_647

/** Calls `f` in each transition. */
export const onTransition = (machine: BreakerMachine, f: (from: CircuitState, to: CircuitState) => void): void => {
  let before = machine.state
  machine.listeners.add((state) => {
    const from = before
    before = state
    f(from, state)
  })
}

/** The present state, then each transition when it takes place: a reader also waits for the end of the open time. */
export const changes = (machine: BreakerMachine): Stream.Stream<CircuitState> =>
  Stream.unwrapScoped(
    Effect.map(Effect.acquireRelease(subscribe(machine), unsubscribe(machine)), (reader) =>
      Stream.repeatEffectChunk(next(machine, reader))
    )
  )

interface Reader {
  readonly states: Array<CircuitState>
  readonly listener: (state: CircuitState) => void
  wake: () => void
}

const idle = () => {}

const subscribe = (machine: BreakerMachine): Effect.Effect<Reader> =>
  withFiber((fiber) => {
    machine.advance(clockOf(fiber))
    const reader: Reader = {
      states: [machine.state],
      wake: idle,
      listener: (state) => {
        if (reader.states.push(state) > capacity) {
          reader.states.shift()
        }
        reader.wake()
      }
    }
    machine.listeners.add(reader.listener)
    return Effect.succeed(reader)
  })

const unsubscribe = (machine: BreakerMachine) => (reader: Reader) =>
  Effect.sync(() => machine.listeners.delete(reader.listener))

const next = (machine: BreakerMachine, reader: Reader): Effect.Effect<Chunk.Chunk<CircuitState>> =>
  withFiber((fiber) => {
    const clock = clockOf(fiber)
    machine.advance(clock)
    if (reader.states.length > 0) {
      return Effect.succeed(Chunk.unsafeFromArray(reader.states.splice(0)))
    }
    const awaken = Effect.async<void>((resume) => {
      if (reader.states.length > 0) {
        resume(Effect.void)
      }
      reader.wake = () => resume(Effect.void)
      return Effect.sync(() => {
        reader.wake = idle
      })
    })
    const wait =
      machine.state === "Open" && !machine.isolated
        ? Effect.raceFirst(awaken, Effect.sleep(Math.min(machine.openUntil - millis(clock), longestSleep)))
        : awaken
    return Effect.flatMap(wait, () => next(machine, reader))
  })
