import { CircuitBreaker, TripRule } from "@agentweave/transport"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, type Fiber, Stream } from "effect"
import * as fc from "fast-check"
import { breakerModel, type ModelOptions, type Token } from "./breakerModel.js"
import { ManualRuntime } from "./manualRuntime.js"

interface Call {
  readonly fiber: Fiber.RuntimeFiber<unknown, unknown>
  readonly finish: (effect: Effect.Effect<unknown, string>) => void
  readonly token: Token
}

const outcomes = {
  ok: Effect.succeed("ok"),
  fail: Effect.fail("failed"),
  die: Effect.die("died"),
  exclude: Effect.fail("excluded")
}

const config = ({ maxProbes, successThreshold, threshold, timeout, watched, window }: ModelOptions) => {
  const row = TripRule.consecutiveFailures(threshold)
  const size = window === undefined || "millis" in window ? { window: window?.millis } : window
  return {
    target: "model",
    successThreshold,
    halfOpenMaxCalls: maxProbes,
    timeout,
    timeoutMultiplier: 2,
    maxTimeout: timeout * 4,
    isExcluded: (error: unknown) => error === "excluded",
    isFailure: watched ? () => false : undefined,
    rule:
      window === undefined ? row : TripRule.anyOf(row, TripRule.failureRatio({ ratio: 0.5, minimumCalls: 2, ...size }))
  }
}

/** Plays a program on the breaker and on its model; each step chooses, by its number, what happens and to which call. */
const run = (runtime: ManualRuntime, options: ModelOptions, program: ReadonlyArray<number>, reads: boolean): void => {
  const { clock } = runtime
  const now = <A>(effect: Effect.Effect<A, unknown>): A => {
    const fiber = runtime.fork(effect)
    runtime.flush()
    return Exit.getOrElse(fiber.unsafePoll() ?? Exit.die("it waits"), (cause) => assert.fail(String(cause)))
  }
  const model = breakerModel(options)
  const breaker = now(CircuitBreaker.make(config(options)))
  const seen: Array<string> = []
  const transitions = ["Closed"]
  const reader = reads
    ? runtime.fork(Stream.runForEach(breaker.changes, (state) => Effect.sync(() => seen.push(state))))
    : undefined
  runtime.flush()
  const running: Array<Call> = []

  const start = () => {
    const calls: Array<Call["finish"]> = []
    const fiber = runtime.fork(breaker.protect(Effect.async<unknown, string>((resume) => void calls.push(resume))))
    runtime.flush()
    const token = model.start(clock.now)
    const [finish] = calls
    const [expected, through] = [token !== undefined, finish !== undefined]
    if (through !== expected) assert.strictEqual(through, expected, "let through")
    if (token !== undefined && finish !== undefined) running.push({ fiber, token, finish })
  }

  const end = (call: Call, outcome: "ok" | "fail" | "die" | "exclude" | "interrupt") => {
    if (outcome === "interrupt") call.fiber.unsafeInterruptAsFork(call.fiber.id())
    else call.finish(outcomes[outcome])
    runtime.flush()
    if (call.fiber.unsafePoll() === null) assert.fail("a call that does not end")
    model.end(call.token, outcome === "die" ? "fail" : outcome, clock.now)
  }

  const act = (step: number, argument: number) => {
    if (step < 3) return start()
    if (step < 7) {
      const [call] = running.splice(argument % Math.max(1, running.length), 1)
      const ends = [["ok"], ["fail"], ["die", "exclude"], ["interrupt"]] as const
      const end_ = ends[step - 3] ?? []
      const outcome = end_[argument % end_.length]
      return call && outcome && end(call, outcome)
    }
    if (argument < 8) {
      now(breaker.reset)
      model.reset(clock.now)
    } else if (argument < 14) {
      now(breaker.isolate)
      model.isolate(clock.now)
    } else {
      runtime.advance(argument)
    }
  }

  for (const number of program) {
    act(number & 7, number >> 3)
    runtime.flush()
    model.tick(clock.now)
    const metrics: Record<string, unknown> = now(breaker.metrics)
    for (const [name, expected] of Object.entries(model.model)) {
      if (metrics[name] !== expected) assert.deepInclude(metrics, model.model)
    }
    if (transitions.at(-1) !== model.model.state) transitions.push(model.model.state)
    if (reads && seen.join() !== transitions.join()) assert.deepStrictEqual(seen, transitions)
  }
  reader?.unsafeInterruptAsFork(reader.id())
  for (const { fiber } of running) fiber.unsafeInterruptAsFork(fiber.id())
  runtime.flush()
}

const options = fc.record<ModelOptions>({
  threshold: fc.integer({ min: 1, max: 4 }),
  successThreshold: fc.integer({ min: 1, max: 3 }),
  maxProbes: fc.integer({ min: 1, max: 3 }),
  timeout: fc.integer({ min: 1, max: 60 }),
  window: fc.constantFrom(undefined, undefined, { calls: 4 }, { millis: 100 }),
  watched: fc.boolean()
})

const program = fc.array(fc.nat({ max: 1_023 }), { minLength: 8, maxLength: 20 })

/** A failure prints its seed; FC_SEED=<seed> replays it. */
const check = (numRuns: number, reads: boolean): void => {
  const seed = process.env["FC_SEED"]
  const runtime = new ManualRuntime()
  fc.assert(
    fc.property(options, program, (options, program) => run(runtime, options, program, reads)),
    { numRuns, ...(seed === undefined ? {} : { seed: Number(seed) }) }
  )
}

describe("CircuitBreaker", () => {
  it("is equal to its model after every step of 20,000 random programs", () => check(20_000, false), 120_000)

  it("tells its changes as the model goes through them", () => check(300, true))
})
