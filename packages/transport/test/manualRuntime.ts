import { Clock, Duration, Effect, type Fiber, Runtime, type Scheduler } from "effect"

/** Stands still until told otherwise. */
class ManualClock implements Clock.Clock {
  readonly [Clock.ClockTypeId]: Clock.ClockTypeId = Clock.ClockTypeId
  /** Monotonic milliseconds. */
  now = 0
  /** What the wall clock shows when the monotonic one shows 0. */
  wallOffset = 0
  private sleepers: Array<{ readonly at: number; readonly wake: () => void }> = []
  readonly unsafeCurrentTimeMillis = () => this.now + this.wallOffset
  readonly unsafeCurrentTimeNanos = () => BigInt(this.now) * 1_000_000n
  readonly currentTimeMillis = Effect.sync(this.unsafeCurrentTimeMillis)
  readonly currentTimeNanos = Effect.sync(this.unsafeCurrentTimeNanos)
  readonly scheduler = () => Effect.dieMessage("not used")
  readonly sleep = (duration: Duration.Duration) =>
    Effect.async<void>((resume) => {
      const sleeper = { at: this.now + Duration.toMillis(duration), wake: () => resume(Effect.void) }
      this.sleepers.push(sleeper)
      return Effect.sync(() => {
        this.sleepers = this.sleepers.filter((other) => other !== sleeper)
      })
    })
  /** How long the next sleeper sleeps still. */
  get untilNext(): number {
    return Math.min(Number.POSITIVE_INFINITY, ...this.sleepers.map(({ at }) => at - this.now))
  }
  /** How many fibers sleep. */
  get sleeping(): number {
    return this.sleepers.length
  }
  advance(millis: number): void {
    this.now += millis
    if (this.sleepers.every(({ at }) => at > this.now)) return
    const due = this.sleepers.filter(({ at }) => at <= this.now)
    this.sleepers = this.sleepers.filter(({ at }) => at > this.now)
    for (const { wake } of due) wake()
  }
}

/**
 * Fibers that run only when told to, on a clock that moves only when told to, all of it synchronous: thousands of
 * programs a second, and the same one again for the same seed.
 */
export class ManualRuntime {
  readonly clock = new ManualClock()
  /** With 2 (one goes into coming back) others come between any two steps of a fiber. */
  opsBeforeYield: number
  private readonly tasks: Array<() => void> = []
  private readonly scheduler: Scheduler.Scheduler = {
    scheduleTask: (task) => {
      this.tasks.push(task)
    },
    // No priority: with one, the yield itself is made of so many operations that a fiber would never get further.
    shouldYield: (fiber) => (fiber.currentOpCount > this.opsBeforeYield ? (undefined as never) : false)
  }
  private readonly runtime: Runtime.Runtime<never>

  constructor(opsBeforeYield = 2048) {
    this.opsBeforeYield = opsBeforeYield
    this.runtime = Effect.runSync(Effect.withClock(Effect.runtime<never>(), this.clock))
  }

  /** Starts a fiber; it runs until it waits. */
  fork<A, E>(effect: Effect.Effect<A, E>): Fiber.RuntimeFiber<A, E> {
    return Runtime.runFork(this.runtime, effect, { scheduler: this.scheduler })
  }

  /** Runs everything that can run, or that many tasks. */
  flush(tasks = Number.POSITIVE_INFINITY): void {
    for (let count = 0; count < tasks; count++) {
      const task = this.tasks.shift()
      if (task === undefined) return
      task()
      if (count > 1_000_000) throw new Error("the fibers do not come to rest")
    }
  }

  /** How many tasks are waiting to be run. */
  get pending(): number {
    return this.tasks.length
  }

  /** Lets time pass; whoever it wakes runs at the next `flush`. */
  advance(millis: number): void {
    this.clock.advance(millis)
  }
}
