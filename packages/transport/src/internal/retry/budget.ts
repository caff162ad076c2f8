import type * as Effect from "effect/Effect"
import type * as Api from "../../RetryBudget.js"
import { retryBudget, retryBudgetExhausted } from "../../TransportMetrics.js"
import { millis, withClock } from "../clock.js"
import { BoundedLabels } from "../metrics/boundedLabels.js"
import { SlidingCounts } from "../metrics/slidingCounts.js"

export const TypeId: Api.TypeId = Symbol.for("@agentweave/transport/RetryBudget") as Api.TypeId

const requests = 0
const retries = 1

const byExhausted = new BoundedLabels(retryBudgetExhausted, ["peer"])
const byPeer = new BoundedLabels(retryBudget, ["peer"], { beyond: "nothing" })

/** The budgets in the gauge. They are held weakly: a budget has no scope that would say when it ends. */
const shown = new Map<string, WeakRef<Budget>>()

const show = (budget: Budget, target: string, now: number): void => {
  byPeer.update(budget.left(now), target)
  if (byPeer.knows(target) && shown.get(target)?.deref() !== budget) shown.set(target, new WeakRef(budget))
}

/** Brings the gauge up to date: a balance grows with requests and with time. */
export const updateBudgets: Effect.Effect<void> = withClock((clock) => {
  const now = millis(clock)
  for (const [target, ref] of shown) {
    const budget = ref.deref()
    if (budget === undefined) shown.delete(target)
    else byPeer.update(budget.left(now), target)
  }
})

/** A retry needs one token: each request brings `ratio` of one, and the reserve is there without any. */
export class Budget implements Api.RetryBudget {
  readonly [TypeId]: Api.TypeId = TypeId
  private readonly ratio: number
  private readonly reserve: number
  private readonly counts: SlidingCounts
  private readonly target: string | undefined

  constructor(ratio: number, minRetriesPerSecond: number, ttl: number, target: string | undefined) {
    this.target = target
    this.ratio = ratio
    this.reserve = (minRetriesPerSecond * ttl) / 1_000
    this.counts = new SlidingCounts(ttl, 2)
  }

  readonly deposit: Effect.Effect<void> = withClock((clock) => this.noteRequest(millis(clock)))

  readonly withdraw: Effect.Effect<boolean> = withClock((clock) => this.take(millis(clock)))

  readonly balance: Effect.Effect<number> = withClock((clock) => this.left(millis(clock)))

  take(now: number): boolean {
    const granted = this.tokens(now) >= 1
    if (granted) this.counts.add(retries, now)
    else byExhausted.update(1, this.target ?? "")
    if (this.target !== undefined) show(this, this.target, now)
    return granted
  }

  /** The retry that was taken at this time did not start. */
  giveBack(takenAt: number): void {
    this.counts.remove(retries, takenAt)
  }

  noteRequest(now: number): void {
    this.counts.add(requests, now)
  }

  /** The request that was noted at this time was interrupted. */
  forgetRequest(notedAt: number): void {
    this.counts.remove(requests, notedAt)
  }

  /** How many retries may start. */
  left(now: number): number {
    return Math.max(0, Math.floor(this.tokens(now)))
  }

  /** The sum is rounded to millionths, so that five fifths make one. */
  private tokens(now: number): number {
    const tokens = this.reserve + this.ratio * this.counts.sum(requests, now) - this.counts.sum(retries, now)
    return Math.round(tokens * 1_000_000) / 1_000_000
  }
}

/** A budget, which is in the gauge from now on where it has a target. */
export const make = (
  ratio: number,
  minRetriesPerSecond: number,
  ttl: number,
  target: string | undefined
): Effect.Effect<Budget> =>
  withClock((clock) => {
    const budget = new Budget(ratio, minRetriesPerSecond, ttl, target)
    if (target !== undefined) show(budget, target, millis(clock))
    return budget
  })
