import type * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import type { CircuitBreakerConfig } from "../../CircuitBreakerConfig.js"
import type { CircuitBreakerMetrics, CircuitState } from "../../CircuitBreakerMetrics.js"
import { millis } from "../clock.js"
import { fromRule, type Trip, type Window } from "./window.js"

/**
 * The right to run one call, and what its outcome is worth: it counts in the epoch it was given in and in no other, and a
 * success ends a row of failures only if it carries the permit of that row.
 */
export interface CallPermit {
  readonly epoch: number
}

/**
 * The breaker without Effect: a state, the events that change it, and the time as a clock handed in with each event.
 *
 * Each transition begins a new epoch. Within `Closed`, a row of failures has a permit of its own, so that a call which
 * began before the row cannot end it: what it says about the target is older than the failures.
 */
export class BreakerMachine {
  readonly config: CircuitBreakerConfig
  readonly listeners = new Set<(state: CircuitState) => void>()
  state: CircuitState = "Closed"
  isolated = false
  /** The present permit, while no failure is counted and the rule looks at nothing else: successes change nothing then. */
  healthy: CallPermit | undefined
  /** Monotonic milliseconds at which `Open` ends. */
  openUntil = 0
  failureCount = 0
  successCount = 0
  probes = 0
  totalFailures = 0
  totalSuccesses = 0
  totalExcluded = 0
  totalRejected = 0
  totalOpened = 0

  private readonly trip: Trip
  private readonly timed: boolean
  private readonly maxProbes: number
  private readonly maxTimeout: number
  private permit: CallPermit = { epoch: 0 }
  private windows: ReadonlyArray<Window>
  /** Times in a row that half-open ended in `Open`. */
  private relapses = 0
  private lastFailureTime: Option.Option<DateTime.Utc> = Option.none()
  private lastStateChange: DateTime.Utc

  constructor(config: CircuitBreakerConfig, clock: Clock.Clock) {
    const timeout = Duration.toMillis(config.timeout)
    this.config = config
    this.trip = fromRule(config.rule ?? { _tag: "ConsecutiveFailures", threshold: config.failureThreshold })
    this.windows = this.trip.windows()
    this.timed = this.windows.some((window) => window.timed)
    this.maxProbes = config.halfOpenMaxCalls ?? config.successThreshold
    this.maxTimeout =
      config.maxTimeout === undefined ? Math.max(timeout, 300_000) : Duration.toMillis(config.maxTimeout)
    this.lastStateChange = wallClock(clock)
    this.refresh()
  }

  /** Lets time pass: an open breaker whose time is over is half-open. */
  advance(clock: Clock.Clock): void {
    if (this.state === "Open" && !this.isolated) {
      const late = millis(clock) - this.openUntil
      if (late >= 0) {
        this.enter("HalfOpen", DateTime.subtract(wallClock(clock), { millis: Math.floor(late) }))
      }
    }
  }

  /** Whether a call would get a permit now; nothing is counted. */
  admits(clock: Clock.Clock): boolean {
    this.advance(clock)
    return this.state === "Closed" || (this.state === "HalfOpen" && this.probes < this.maxProbes)
  }

  /** Takes a permit, and a probe slot with it when half-open; `undefined` means that the call is to be rejected. */
  acquirePermit(clock: Clock.Clock): CallPermit | undefined {
    if (!this.admits(clock)) {
      return undefined
    }
    if (this.state === "HalfOpen") {
      this.probes++
    }
    return this.permit
  }

  /** Calls that came to an outcome. A call that was interrupted has none, so that nothing has to be taken back. */
  get totalCalls(): number {
    return this.totalSuccesses + this.totalFailures + this.totalExcluded
  }

  /** When a call starts, if the rule wants to know how long it takes. */
  startedAt(clock: Clock.Clock): number {
    return this.timed ? millis(clock) : 0
  }

  succeed(permit: CallPermit, clock: Clock.Clock, startedAt: number): void {
    this.totalSuccesses++
    if (permit.epoch !== this.permit.epoch) {
      return
    }
    if (this.state === "HalfOpen") {
      this.probes--
      if (this.isSlow(clock, startedAt)) {
        this.relapse(clock)
      } else if (++this.successCount >= this.config.successThreshold) {
        this.enter("Closed", wallClock(clock))
      }
      return
    }
    if (this.failureCount > 0 && permit === this.permit) {
      this.failureCount = 0
      this.refresh()
    }
    if (this.windows.length > 0 && this.record(false, clock, startedAt)) {
      this.open(clock)
    }
  }

  fail(permit: CallPermit, clock: Clock.Clock, startedAt: number): void {
    this.totalFailures++
    this.lastFailureTime = Option.some(wallClock(clock))
    if (permit.epoch !== this.permit.epoch) {
      return
    }
    if (this.state === "HalfOpen") {
      this.probes--
      this.failureCount++
      this.relapse(clock)
      return
    }
    if (this.failureCount++ === 0) {
      this.permit = { epoch: this.permit.epoch }
      this.refresh()
    }
    if (this.failureCount >= this.trip.threshold || this.record(true, clock, startedAt)) {
      this.open(clock)
    }
  }

  exclude(permit: CallPermit): void {
    this.totalExcluded++
    this.release(permit)
  }

  /** A call ended without an outcome: interrupted. Its probe slot comes back. */
  release(permit: CallPermit): void {
    if (permit.epoch === this.permit.epoch && this.state === "HalfOpen") {
      this.probes--
    }
  }

  isolate(clock: Clock.Clock): void {
    this.isolated = true
    this.enter("Open", wallClock(clock))
  }

  reset(clock: Clock.Clock): void {
    this.enter("Closed", wallClock(clock))
  }

  metrics(): CircuitBreakerMetrics {
    return {
      state: this.state,
      isolated: this.isolated,
      failureCount: this.failureCount,
      successCount: this.successCount,
      probes: this.probes,
      totalCalls: this.totalCalls,
      totalFailures: this.totalFailures,
      totalSuccesses: this.totalSuccesses,
      totalExcluded: this.totalExcluded,
      totalRejected: this.totalRejected,
      totalOpened: this.totalOpened,
      lastFailureTime: this.lastFailureTime,
      lastStateChange: this.lastStateChange
    }
  }

  private relapse(clock: Clock.Clock): void {
    this.relapses++
    this.open(clock)
  }

  private open(clock: Clock.Clock): void {
    const timeout = Duration.toMillis(this.config.timeout) * this.config.timeoutMultiplier ** this.relapses
    this.openUntil = millis(clock) + Math.min(timeout, this.maxTimeout)
    this.enter("Open", wallClock(clock))
  }

  private enter(state: CircuitState, at: DateTime.Utc): void {
    const changed = state !== this.state
    this.permit = { epoch: this.permit.epoch + 1 }
    this.state = state
    this.successCount = 0
    this.probes = 0
    if (state === "Closed") {
      this.isolated = false
      this.failureCount = 0
      this.relapses = 0
      this.windows = this.trip.windows()
    }
    this.refresh()
    if (changed) {
      this.lastStateChange = at
      this.totalOpened += state === "Open" ? 1 : 0
      for (const listener of this.listeners) {
        listener(state)
      }
    }
  }

  private refresh(): void {
    const unwatched = this.windows.length === 0
    this.healthy = this.state === "Closed" && this.failureCount === 0 && unwatched ? this.permit : undefined
  }

  /** Whether a window says that the breaker has to open. Windows that are not asked any more begin anew when it closes. */
  private record(failed: boolean, clock: Clock.Clock, startedAt: number): boolean {
    if (this.windows.length === 0) return false
    const now = millis(clock)
    const outcome = { failed, duration: this.timed ? now - startedAt : 0 }
    return this.windows.some((window) => window.record(outcome, now))
  }

  private isSlow(clock: Clock.Clock, startedAt: number): boolean {
    return this.timed && this.windows.some((window) => window.isSlow(millis(clock) - startedAt))
  }
}

const wallClock = (clock: Clock.Clock): DateTime.Utc => DateTime.unsafeMake(clock.unsafeCurrentTimeMillis())
