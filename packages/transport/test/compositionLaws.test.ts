import { CircuitBreaker, RetryPolicy, TransportError } from "@agentweave/transport"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, TestClock } from "effect"
import * as fc from "fast-check"

const lost = new TransportError.ConnectionError({
  reason: "Lost",
  outcome: "Unknown",
  address: "10.0.0.1:443",
  description: "gone"
})

type Outcome = "ok" | "fail"

interface Program {
  readonly threshold: number
  readonly maxRetries: number
  /** How the attempts end, one after the other; those after the last one succeed. */
  readonly attempts: ReadonlyArray<Outcome>
  readonly calls: number
}

const programs: fc.Arbitrary<Program> = fc.record({
  threshold: fc.integer({ min: 1, max: 4 }),
  maxRetries: fc.nat(3),
  attempts: fc.array(fc.constantFrom<Outcome>("ok", "fail", "fail"), { maxLength: 12 }),
  calls: fc.integer({ min: 1, max: 6 })
})

type Composition = (
  attempt: Effect.Effect<string, TransportError.ConnectionError>,
  breaker: CircuitBreaker.CircuitBreaker,
  policy: RetryPolicy.RetryPolicy
) => Effect.Effect<string, unknown>

const breakerInside: Composition = (attempt, breaker, policy) =>
  attempt.pipe(CircuitBreaker.withBreaker(breaker), RetryPolicy.withRetry(policy))

const breakerOutside: Composition = (attempt, breaker, policy) =>
  attempt.pipe(RetryPolicy.withRetry(policy), CircuitBreaker.withBreaker(breaker))

const tagOf = (error: unknown): string =>
  typeof error === "object" && error !== null && "_tag" in error ? String(error._tag) : String(error)

/** Runs the calls of a program one after the other, by the composition and by what the guide says of it. */
const run = (program: Program, compose: Composition) =>
  Effect.gen(function* () {
    const breaker = yield* CircuitBreaker.make({ target: "peer", failureThreshold: program.threshold })
    const policy = yield* RetryPolicy.make({ maxRetries: program.maxRetries, baseDelay: 0 })
    let made = 0
    const attempt = Effect.suspend(() =>
      program.attempts[made++] === "fail" ? Effect.fail(lost) : Effect.succeed("ok")
    )
    const results: Array<string> = []
    for (let call = 0; call < program.calls; call++) {
      results.push(yield* Effect.merge(Effect.mapError(compose(attempt, breaker, policy), tagOf)))
    }
    const { state, totalFailures, totalSuccesses } = yield* breaker.metrics
    return { made, results, state, totalFailures, totalSuccesses }
  })

/** The breaker counts every attempt, and ends the retries when it opens. */
const everyAttempt = ({ attempts, calls, maxRetries, threshold }: Program) => {
  const seen = { made: 0, results: [] as Array<string>, state: "Closed", totalFailures: 0, totalSuccesses: 0 }
  let row = 0
  for (let call = 0; call < calls; call++) {
    let result = ""
    for (let attempt = 0; attempt <= maxRetries && result !== "ok" && result !== "CircuitOpenError"; attempt++) {
      if (seen.state === "Open") result = "CircuitOpenError"
      else if (attempts[seen.made++] === "fail") {
        result = "ConnectionError"
        seen.totalFailures++
        if (++row >= threshold) seen.state = "Open"
      } else {
        result = "ok"
        seen.totalSuccesses++
        row = 0
      }
    }
    seen.results.push(result)
  }
  return seen
}

/** The breaker counts a call once, with all its attempts. */
const everyCall = ({ attempts, calls, maxRetries, threshold }: Program) => {
  const seen = { made: 0, results: [] as Array<string>, state: "Closed", totalFailures: 0, totalSuccesses: 0 }
  let row = 0
  for (let call = 0; call < calls; call++) {
    if (seen.state === "Open") {
      seen.results.push("CircuitOpenError")
      continue
    }
    let result = "ConnectionError"
    for (let attempt = 0; attempt <= maxRetries && result !== "ok"; attempt++) {
      result = attempts[seen.made++] === "fail" ? "ConnectionError" : "ok"
    }
    seen.results.push(result)
    if (result === "ok") {
      seen.totalSuccesses++
      row = 0
    } else {
      seen.totalFailures++
      if (++row >= threshold) seen.state = "Open"
    }
  }
  return seen
}

const forAll = (check: (program: Program) => Effect.Effect<void, unknown>) =>
  Effect.forEach(fc.sample(programs, { numRuns: 300, seed: 12 }), check, { discard: true })

describe("retry and breaker, in either order, are what the guide says", () => {
  it.effect("withRetry(withBreaker(x)): every attempt counts, and a breaker that opens ends the retries", () =>
    forAll((program) => Effect.map(run(program, breakerInside), (seen) => expect(seen).toEqual(everyAttempt(program))))
  )

  it.effect("withBreaker(withRetry(x)): a call counts once, and one that a retry made good is a success", () =>
    forAll((program) => Effect.map(run(program, breakerOutside), (seen) => expect(seen).toEqual(everyCall(program))))
  )

  it.effect("the two orders differ only where a call has more than one attempt", () =>
    forAll((program) =>
      Effect.gen(function* () {
        const single = { ...program, maxRetries: 0 }
        expect(yield* run(single, breakerInside)).toEqual(yield* run(single, breakerOutside))
      })
    )
  )
})

describe("a limit of time", () => {
  const hang = (compose: (breaker: CircuitBreaker.CircuitBreaker) => Effect.Effect<unknown, unknown>) =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make({ target: "peer", failureThreshold: 1 })
      const call = yield* Effect.fork(Effect.exit(compose(breaker)))
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(call)
      return yield* breaker.state
    })

  it.effect("inside the breaker is a failure", () =>
    Effect.gen(function* () {
      const state = yield* hang((breaker) =>
        Effect.never.pipe(Effect.timeout("1 second"), CircuitBreaker.withBreaker(breaker))
      )
      expect(state).toBe("Open")
    })
  )

  it.effect("outside the breaker is neutral", () =>
    Effect.gen(function* () {
      const state = yield* hang((breaker) =>
        Effect.never.pipe(CircuitBreaker.withBreaker(breaker), Effect.timeout("1 second"))
      )
      expect(state).toBe("Closed")
    })
  )
})
