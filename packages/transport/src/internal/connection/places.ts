import * as Effect from "effect/Effect"
import type { Deadlines, Timed } from "./deadlines.js"

/** Handshakes under way at a time. */
export const maxHandshakes = 32

/**
 * How long a handshake holds its place, in milliseconds: many times what one takes, and short enough that silent peers
 * do not keep all others out.
 */
export const longestHold = 250

/** Gives a place back, once. */
export type Leave = () => void

interface Waiter {
  readonly since: number
  readonly enter: () => void
}

/** Where handshakes go to: a host and a port. */
interface HandshakeTarget {
  /** Handshakes that have not ended, those that no longer hold a place too. */
  inFlight: number
  readonly waiting: Set<Waiter>
}

/**
 * Bounds how many handshakes are begun together. When an authority is withdrawn, or a pool's peers come back, everything
 * would connect anew at once: each handshake would wait for all others, and most would time out. In turn, most do not
 * wait.
 *
 * The next place goes to the target with the fewest handshakes that have not ended, and among equals to the handshake
 * that has waited longest: a peer that stays silent has some under way, so it comes after every peer that answers.
 */
export class HandshakePlaces {
  private running = 0
  private arrivals = 0
  private readonly targets = new Map<string, HandshakeTarget>()
  /** Targets for which a handshake waits. */
  private readonly waiting = new Set<HandshakeTarget>()
  private readonly deadlines: Deadlines

  constructor(deadlines: Deadlines) {
    this.deadlines = deadlines
  }

  /** A place now, if there is one. */
  tryEnter(key: string): Leave | undefined {
    return this.running < maxHandshakes ? this.begin(key, this.target(key)) : undefined
  }

  /**
   * A place as soon as it is this handshake's turn. `hold` is given what gives it back in the very moment it is taken, so
   * that an interruption in that moment can give it back too. Interruption leaves the queue.
   */
  enter(key: string, hold: (leave: Leave) => void): Effect.Effect<void> {
    return Effect.async<void>((resume) => {
      const target = this.target(key)
      const waiter: Waiter = {
        since: this.arrivals++,
        enter: () => {
          hold(this.begin(key, target))
          resume(Effect.void)
        }
      }
      target.waiting.add(waiter)
      this.waiting.add(target)
      return Effect.sync(() => {
        this.unqueue(target, waiter)
        this.forget(key, target)
      })
    })
  }

  private target(key: string): HandshakeTarget {
    const known = this.targets.get(key)
    if (known !== undefined) return known
    const target: HandshakeTarget = { inFlight: 0, waiting: new Set() }
    this.targets.set(key, target)
    return target
  }

  private forget(key: string, target: HandshakeTarget): void {
    if (target.inFlight === 0 && target.waiting.size === 0) this.targets.delete(key)
  }

  private unqueue(target: HandshakeTarget, waiter: Waiter): void {
    target.waiting.delete(waiter)
    if (target.waiting.size === 0) this.waiting.delete(target)
  }

  private begin(key: string, target: HandshakeTarget): Leave {
    this.running++
    target.inFlight++
    let holds = true
    let isOver = false
    const give = () => {
      if (!holds) return
      holds = false
      this.deadlines.remove(hold)
      this.running--
      this.beginNext()
    }
    const hold: Timed = {
      deadline: this.deadlines.now() + longestHold,
      date: Number.POSITIVE_INFINITY,
      onDeadline: give
    }
    this.deadlines.add(hold)
    return () => {
      if (isOver) return
      isOver = true
      target.inFlight--
      give()
      this.forget(key, target)
    }
  }

  private beginNext(): void {
    let next: { readonly target: HandshakeTarget; readonly waiter: Waiter } | undefined
    for (const target of this.waiting) {
      const [waiter] = target.waiting
      if (waiter === undefined) continue
      const fewer = next === undefined ? -1 : target.inFlight - next.target.inFlight
      if (next === undefined || fewer < 0 || (fewer === 0 && waiter.since < next.waiter.since)) {
        next = { target, waiter }
      }
    }
    if (next === undefined) return
    this.unqueue(next.target, next.waiter)
    next.waiter.enter()
  }
}
