import type { TimeoutError } from "@agentweave/transport/TransportError"
import * as Effect from "effect/Effect"
import type { Sweeper, Timed } from "./sweeper.js"

/** Handshakes under way at a time. */
export const maxHandshakes = 32

/**
 * How long a handshake counts as one under way, in milliseconds: many times what one takes, and short enough that peers
 * that stay silent do not keep all others out.
 */
export const longestHold = 250

/** Ends once, by whichever comes first: its handshake, or its time. */
export type Leave = () => void

/**
 * Bounds how many handshakes are begun together. When an authority is withdrawn, or a pool's peers come back, everything
 * would connect anew at once: each handshake would wait for all others, and most would time out. In turn, most do not
 * wait. First come, first served.
 */
export class HandshakeLimit {
  private running = 0
  private readonly waiting = new Set<() => void>()
  private readonly sweeper: Sweeper

  constructor(sweeper: Sweeper) {
    this.sweeper = sweeper
  }

  /** A place now, if there is one. */
  tryEnter(): Leave | undefined {
    return this.running < maxHandshakes ? this.begin() : undefined
  }

  /** A place as soon as it is our turn; the failure when that is not before the deadline, milliseconds since the epoch. */
  enter(deadline: number, tooLate: () => TimeoutError): Effect.Effect<Leave, TimeoutError> {
    return Effect.async<Leave, TimeoutError>((resume) => {
      const proceed = () => {
        this.sweeper.remove(limit)
        resume(Effect.succeed(this.begin()))
      }
      const giveUp = () => {
        this.waiting.delete(proceed)
        this.sweeper.remove(limit)
      }
      const limit: Timed = {
        deadline,
        onDeadline: () => {
          giveUp()
          resume(Effect.fail(tooLate()))
        }
      }
      this.waiting.add(proceed)
      this.sweeper.add(limit)
      return Effect.sync(giveUp)
    })
  }

  private begin(): Leave {
    this.running++
    let isOver = false
    const leave = () => {
      if (isOver) return
      isOver = true
      this.sweeper.remove(hold)
      this.running--
      const [next] = this.waiting
      if (next === undefined) return
      this.waiting.delete(next)
      next()
    }
    const hold: Timed = { deadline: this.sweeper.now() + longestHold, onDeadline: leave }
    this.sweeper.add(hold)
    return leave
  }
}
