import { Clock, Duration, Effect } from "effect"
import { settled } from "../../../spiffe/test/support/settled.js"

/**
 * A clock whose wall and monotonic halves move apart: `pass` lets time go by, `setWall` sets the wall clock as an operator
 * does. Sleepers wake by the monotonic half, as timers do.
 */
export class SteppedClock implements Clock.Clock {
  readonly [Clock.ClockTypeId]: Clock.ClockTypeId = Clock.ClockTypeId
  mono = 0
  offset: number
  private sleepers: Array<{ readonly at: number; readonly wake: () => void }> = []

  constructor(wall = 1_767_225_600_000) {
    this.offset = wall
  }

  readonly unsafeCurrentTimeMillis = () => this.mono + this.offset
  readonly unsafeCurrentTimeNanos = () => BigInt(this.mono) * 1_000_000n
  readonly currentTimeMillis = Effect.sync(this.unsafeCurrentTimeMillis)
  readonly currentTimeNanos = Effect.sync(this.unsafeCurrentTimeNanos)
  readonly scheduler = () => Effect.dieMessage("not used")
  readonly sleep = (duration: Duration.Duration) =>
    Effect.async<void>((resume) => {
      const sleeper = { at: this.mono + Duration.toMillis(duration), wake: () => resume(Effect.void) }
      this.sleepers.push(sleeper)
      return Effect.sync(() => {
        this.sleepers = this.sleepers.filter((other) => other !== sleeper)
      })
    })

  get sleeping(): number {
    return this.sleepers.length
  }

  /** Moves the wall clock by so much, and nothing else. */
  setWall(by: number): void {
    this.offset += by
  }

  private advance(to: number): void {
    this.mono = to
    const due = this.sleepers.filter(({ at }) => at <= to)
    this.sleepers = this.sleepers.filter(({ at }) => at > to)
    for (const { wake } of due) wake()
  }

  /** Lets time go by: every sleeper wakes in its own moment, and what it forks runs before the next. */
  pass(millis: number): Effect.Effect<void> {
    const until = this.mono + millis
    const next: Effect.Effect<void> = Effect.suspend(() => {
      const at = Math.min(until, ...this.sleepers.map((sleeper) => sleeper.at))
      this.advance(Math.max(at, this.mono))
      return this.mono < until || this.sleepers.some((sleeper) => sleeper.at <= until)
        ? Effect.zipRight(settled, next)
        : settled
    })
    return Effect.zipRight(settled, next)
  }
}
