import type * as Effect from "effect/Effect"
import type * as Api from "../RetryBudget.js"
import { millis, withClock } from "./monotonic.js"
import { SlidingCounts } from "./slidingCounts.js"

export const TypeId: Api.TypeId = Symbol.for("@agentweave/transport/RetryBudget") as Api.TypeId

const requests = 0
const retries = 1

/** A retry needs one token: each request brings `ratio` of one, and the reserve is there without any. */
export class Budget implements Api.RetryBudget {
  readonly [TypeId]: Api.TypeId = TypeId
  private readonly ratio: number
  private readonly reserve: number
  private readonly counts: SlidingCounts

  constructor(ratio: number, minRetriesPerSecond: number, ttl: number) {
    this.ratio = ratio
    this.reserve = (minRetriesPerSecond * ttl) / 1_000
    this.counts = new SlidingCounts(ttl, 2)
  }

  readonly deposit: Effect.Effect<void> = withClock((clock) => this.counts.add(requests, millis(clock)))

  readonly withdraw: Effect.Effect<boolean> = withClock((clock) => {
    const now = millis(clock)
    if (this.tokens(now) < 1) {
      return false
    }
    this.counts.add(retries, now)
    return true
  })

  readonly balance: Effect.Effect<number> = withClock((clock) => Math.max(0, Math.floor(this.tokens(millis(clock)))))

  /** The sum is rounded to millionths, so that five fifths make one. */
  private tokens(now: number): number {
    const tokens = this.reserve + this.ratio * this.counts.sum(requests, now) - this.counts.sum(retries, now)
    return Math.round(tokens * 1_000_000) / 1_000_000
  }
}
