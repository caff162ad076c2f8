export interface ModelOptions {
  readonly threshold: number
  readonly successThreshold: number
  readonly maxProbes: number
  readonly timeout: number
  /** Opens when half of these latest calls, or of the calls of this time (in tenths of it), failed; at least two. */
  readonly window: { readonly calls: number } | { readonly millis: number } | undefined
  readonly watched: boolean
}

/** What a call was given when it was let through. */
export interface Token {
  readonly epoch: number
  readonly row: number
}

/** The breaker as a specification: everything is written down, and looked through when it matters. */
export const breakerModel = (options: ModelOptions) => {
  const counts = { failureCount: 0, successCount: 0, probes: 0, totalCalls: 0, totalFailures: 0 }
  const totals = { totalSuccesses: 0, totalExcluded: 0, totalRejected: 0, totalOpened: 0 }
  const model = { state: "Closed", isolated: false, ...counts, ...totals }
  let [epoch, row, until, relapses] = [0, 0, 0, 0]
  let outcomes: ReadonlyArray<{ readonly failed: boolean; readonly at: number }> = []
  const enter = (state: string, now: number, relapse = 0): void => {
    if (state === "Open" && model.state !== "Open") model.totalOpened++
    relapses = state === "Closed" ? 0 : relapses + relapse
    if (state === "Closed") model.failureCount = 0
    until = now + options.timeout * Math.min(2 ** relapses, 4)
    outcomes = []
    epoch++
    Object.assign(model, { state, isolated: false, successCount: 0, probes: 0 })
  }
  const tick = (now: number): void => {
    if (model.state === "Open" && !model.isolated && now >= until) enter("HalfOpen", now)
  }
  const start = (now: number): Token | undefined => {
    tick(now)
    const admits = model.state === "HalfOpen" ? model.probes < options.maxProbes : model.state === "Closed"
    if (!admits) {
      model.totalRejected++
      return undefined
    }
    if (model.state === "HalfOpen") model.probes++
    return { epoch, row }
  }
  const end = (token: Token, outcome: "ok" | "fail" | "exclude" | "interrupt", now: number): void => {
    if (outcome === "ok") model.totalSuccesses++
    if (outcome === "fail") model.totalFailures++
    if (outcome === "exclude") model.totalExcluded++
    if (outcome !== "interrupt") model.totalCalls++
    if (token.epoch !== epoch) return
    if (model.state === "HalfOpen") model.probes--
    if (outcome === "fail" && model.failureCount++ === 0) row++
    const probed = model.state === "HalfOpen"
    if (probed && outcome === "ok" && ++model.successCount >= options.successThreshold) enter("Closed", now)
    if (probed && outcome === "fail") enter("Open", now, 1)
    if (probed || model.state !== "Closed" || outcome === "exclude" || outcome === "interrupt") return
    if (outcome === "ok" && token.row === row) model.failureCount = 0
    outcomes = [...outcomes, { failed: outcome === "fail", at: now }]
    if (model.failureCount >= options.threshold || failing(now)) enter("Open", now)
  }
  const failing = (now: number): boolean => {
    const { window = { calls: 0 } } = options
    const tenth = (at: number) => ("millis" in window ? Math.floor(at / (window.millis / 10)) : 0)
    const seen = outcomes.filter((_, i) =>
      "millis" in window ? tenth(_.at) > tenth(now) - 10 : i >= outcomes.length - window.calls
    )
    return seen.length >= 2 && seen.filter((_) => _.failed).length * 2 >= seen.length
  }
  const isolate = (now: number): void => {
    enter("Open", now)
    model.isolated = true
  }
  return { model, tick, start, end, isolate, reset: (now: number) => enter("Closed", now) }
}
