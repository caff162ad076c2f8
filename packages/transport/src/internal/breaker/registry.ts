import type * as Clock from "effect/Clock"
import type * as Effect from "effect/Effect"
import type { CircuitBreaker } from "../../CircuitBreaker.js"
import type { CircuitBreakerConfig } from "../../CircuitBreakerConfig.js"
import type { CircuitBreakerMetrics } from "../../CircuitBreakerMetrics.js"
import type { CircuitState } from "../../CircuitState.js"
import { millis, withClock } from "../clock.js"
import { Breaker } from "./breaker.js"
import { onTransition } from "./changes.js"
import type { BreakerMachine } from "./machine.js"

interface Entry {
  readonly breaker: Breaker
  /** The uses seen by the last sweep: what tells use from rest without a clock on the path of a call. */
  seen: number
  /** When a sweep, or `get`, last noticed use. */
  usedAt: number
}

interface IdleEntry {
  readonly breaker: WeakRef<Breaker>
  readonly seen: number
}

/**
 * Breakers by target. An idle breaker leaves `entries` and is held weakly from then on: while anybody else still holds
 * it, there is no second one for its target, and as soon as nobody does it is collected.
 */
export class Registry {
  private readonly configure: (target: string) => CircuitBreakerConfig
  private readonly entries = new Map<string, Entry>()
  private readonly idle = new Map<string, IdleEntry>()

  private readonly onTransition: (target: string, from: CircuitState, to: CircuitState) => void

  constructor(
    configure: (target: string) => CircuitBreakerConfig,
    onTransition: (target: string, from: CircuitState, to: CircuitState) => void
  ) {
    this.configure = configure
    this.onTransition = onTransition
  }

  readonly get = (target: string): Effect.Effect<CircuitBreaker> =>
    withClock((clock) => {
      const now = millis(clock)
      const entry = this.entries.get(target)
      if (entry !== undefined) {
        entry.usedAt = now
        return entry.breaker
      }
      const breaker = this.idle.get(target)?.breaker.deref() ?? this.create(target, clock)
      this.keep(breaker, uses(breaker.machine), now)
      return breaker
    })

  readonly metrics: Effect.Effect<ReadonlyMap<string, CircuitBreakerMetrics>> = withClock((clock) => {
    this.recall(millis(clock))
    return new Map(
      Array.from(this.entries.values(), ({ breaker: { machine, target } }) => {
        machine.advance(clock)
        return [target, machine.metrics()]
      })
    )
  })

  readonly resetAll: Effect.Effect<void> = withClock((clock) => {
    this.recall(millis(clock))
    for (const { breaker } of this.entries.values()) {
      breaker.machine.reset(clock)
    }
  })

  /** Lets go of breakers that have been idle for `idleTimeout`, or `staleTimeout` if they remember failures. */
  sweep(idleTimeout: number, staleTimeout: number): Effect.Effect<void> {
    return withClock((clock) => {
      const now = millis(clock)
      this.recall(now)
      for (const [target, entry] of this.entries) {
        const { machine } = entry.breaker
        machine.advance(clock)
        if (uses(machine) !== entry.seen || machine.probes > 0) {
          entry.seen = uses(machine)
          entry.usedAt = now
        } else if (
          machine.state !== "Open" &&
          now - entry.usedAt >= (isHealthy(machine) ? idleTimeout : staleTimeout)
        ) {
          this.entries.delete(target)
          this.idle.set(target, { breaker: new WeakRef(entry.breaker), seen: entry.seen })
        }
      }
    })
  }

  private create(target: string, clock: Clock.Clock): Breaker {
    const breaker = new Breaker(target, this.configure(target), clock)
    onTransition(breaker.machine, (from, state) => {
      this.onTransition(target, from, state)
      // An open breaker is never held weakly. The next sweep takes it for used, and counts its rest from there.
      if (state === "Open" && !this.entries.has(target)) {
        this.keep(breaker, -1, 0)
      }
    })
    return breaker
  }

  private keep(breaker: Breaker, seen: number, usedAt: number): void {
    this.idle.delete(breaker.target)
    this.entries.set(breaker.target, { breaker, seen, usedAt })
  }

  /** Takes back the idle breakers that were used meanwhile, and forgets those that were collected. */
  private recall(now: number): void {
    for (const [target, entry] of this.idle) {
      const breaker = entry.breaker.deref()
      if (breaker === undefined) {
        this.idle.delete(target)
      } else if (uses(breaker.machine) !== entry.seen) {
        this.keep(breaker, uses(breaker.machine), now)
      }
    }
  }
}

const uses = (machine: BreakerMachine): number => machine.totalCalls + machine.totalRejected

const isHealthy = (machine: BreakerMachine): boolean => machine.state === "Closed" && machine.failureCount === 0
