import { CircuitBreaker, CircuitBreakerConfig, TripRule } from "@agentweave/transport"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, TestClock } from "effect"

/**
 * Runs a script against a breaker with this rule, `s` a success, `f` a failure, `x` an excluded error, a number the
 * seconds that pass, `s3` a success after three seconds, and gives the state after each step, `c`, `o` or `h`.
 */
const play = (rule: TripRule.Options, script: string, options: CircuitBreakerConfig.Options = {}) =>
  Effect.gen(function* () {
    const isExcluded = (error: string) => error === "x"
    const breaker = yield* CircuitBreaker.make({
      target: "ruled",
      rule,
      isExcluded: (e) => isExcluded(String(e)),
      ...options
    })
    const states = yield* Effect.forEach(script.split(" "), (step) =>
      Effect.gen(function* () {
        const seconds = Number(step.replace(/\D/, "") || "0")
        if (/^\d/.test(step)) {
          yield* TestClock.adjust(seconds * 1_000)
        } else {
          const outcome = step.startsWith("s") ? Effect.succeed("s") : Effect.fail(step[0])
          const call = yield* Effect.fork(Effect.exit(breaker.protect(Effect.delay(outcome, seconds * 1_000))))
          yield* TestClock.adjust(seconds * 1_000)
          yield* call
        }
        return (yield* breaker.state).charAt(0).toLowerCase()
      })
    )
    return states.join("")
  })

const rows: ReadonlyArray<
  readonly [
    title: string,
    rule: TripRule.Options,
    script: string,
    states: string,
    options?: CircuitBreakerConfig.Options
  ]
> = [
  ["so many failures in a row", TripRule.consecutiveFailures(3), "f f s f f f", "ccccco"],
  ["a rule goes before failureThreshold", TripRule.consecutiveFailures(3), "f f f", "cco", { failureThreshold: 1 }],

  ["a share of the latest calls", TripRule.failureRatio({ ratio: 0.5, calls: 4 }), "s s s f s f", "ccccco"],
  [
    "as soon as the window is full, a success may be what fills it",
    TripRule.failureRatio({ ratio: 0.5, calls: 4 }),
    "f f s s",
    "ccco"
  ],
  ["from minimumCalls on", TripRule.failureRatio({ ratio: 0.5, calls: 4, minimumCalls: 2 }), "s f", "co"],
  [
    "older calls are forgotten",
    TripRule.failureRatio({ ratio: 0.5, calls: 4 }),
    "f s s s f s s s f s s s",
    "cccccccccccc"
  ],
  ["just below the ratio stays closed", TripRule.failureRatio({ ratio: 0.51, calls: 4 }), "f f s s", "cccc"],
  ["excluded errors are not in the window", TripRule.failureRatio({ ratio: 0.5, calls: 2 }), "f x x s", "ccco"],
  ["closing makes a new window", TripRule.failureRatio({ ratio: 1, calls: 2 }), "f f 30 s s f s f f", "cohhcccco"],

  [
    "a share of the calls in a time",
    TripRule.failureRatio({ ratio: 0.5, window: "10 seconds", minimumCalls: 4 }),
    "s s f f",
    "ccco"
  ],
  [
    "a minimum of calls in that time",
    TripRule.failureRatio({ ratio: 0.5, window: "10 seconds", minimumCalls: 4 }),
    "f f f 10 f f f f",
    "ccccccco"
  ],
  [
    "which is 10 calls if nothing is said",
    TripRule.failureRatio({ ratio: 1, window: "10 seconds" }),
    "f f f f f f f f f f",
    "ccccccccco"
  ],
  [
    "older calls leave the window of time by tenths",
    TripRule.failureRatio({ ratio: 1, window: "10 seconds", minimumCalls: 2 }),
    "f 9 f 1",
    "ccoo"
  ],
  [
    "and have left after that time",
    TripRule.failureRatio({ ratio: 1, window: "10 seconds", minimumCalls: 2 }),
    "f 10 f",
    "ccc"
  ],
  ["after any pause", TripRule.failureRatio({ ratio: 1, window: "10 seconds", minimumCalls: 2 }), "f 1 f", "cco"],
  [
    "after a pause of nearly two windows too",
    TripRule.failureRatio({ ratio: 1, window: "10 seconds", minimumCalls: 2 }),
    "f 9 9 1 f",
    "ccccc"
  ],
  [
    "after a long pause the window is empty",
    TripRule.failureRatio({ ratio: 1, window: "10 seconds", minimumCalls: 2 }),
    "f 1000 f",
    "ccc"
  ],

  [
    "a share of slow calls, failed or not",
    TripRule.slowCallRatio({ ratio: 0.5, slowerThan: "2 seconds", calls: 4 }),
    "s3 s2 s f3",
    "ccco"
  ],
  [
    "exactly the limit is not slow",
    TripRule.slowCallRatio({ ratio: 0.5, slowerThan: "2 seconds", calls: 2 }),
    "s2 f2",
    "cc"
  ],
  [
    "a slow probe is a failure",
    TripRule.slowCallRatio({ ratio: 1, slowerThan: "2 seconds", calls: 1 }),
    "s3 30 s3 30 s s",
    "ohohhc"
  ],
  [
    "slow calls in a time",
    TripRule.slowCallRatio({ ratio: 1, slowerThan: "2 seconds", window: "20 seconds", minimumCalls: 2 }),
    "s3 17 s3 s3",
    "ccco"
  ],

  [
    "any of several: the failures in a row",
    TripRule.anyOf(TripRule.consecutiveFailures(2), TripRule.failureRatio({ ratio: 0.5, calls: 6 })),
    "s f f",
    "cco"
  ],
  [
    "any of several: the ratio",
    TripRule.anyOf(TripRule.consecutiveFailures(3), TripRule.failureRatio({ ratio: 0.5, calls: 4 })),
    "f s f s",
    "ccco"
  ],
  [
    "any of several: each rule sees each outcome",
    TripRule.anyOf(TripRule.failureRatio({ ratio: 1, calls: 1 }), TripRule.failureRatio({ ratio: 1, calls: 2 })),
    "s f",
    "co"
  ]
]

describe("TripRule", () => {
  for (const [title, rule, script, states, options] of rows) {
    it.effect(`${title}: ${script}`, () =>
      Effect.map(play(rule, script, options), (actual) => assert.strictEqual(actual, states))
    )
  }

  const refusals: ReadonlyArray<readonly [rule: unknown, message: string]> = [
    [TripRule.consecutiveFailures(0), "rule.threshold: expected an integer of at least 1, got 0"],
    [
      TripRule.failureRatio({ ratio: 0, calls: 4 }),
      "rule.ratio: expected a number of at least 5e-324 and at most 1, got 0"
    ],
    [
      TripRule.failureRatio({ ratio: 1.1, calls: 4 }),
      "rule.ratio: expected a number of at least 5e-324 and at most 1, got 1.1"
    ],
    [TripRule.failureRatio({ ratio: 1 }), "rule.window: expected one of calls and window, got both or neither"],
    [
      TripRule.failureRatio({ ratio: 1, calls: 4, window: "1 second" }),
      "rule.window: expected one of calls and window, got both or neither"
    ],
    [
      TripRule.failureRatio({ ratio: 1, calls: 4, minimumCalls: 5 }),
      "rule.minimumCalls: expected at most calls 4, got 5"
    ],
    [
      TripRule.slowCallRatio({ ratio: 1, calls: 4, slowerThan: 0 }),
      "rule.slowerThan: expected a positive, finite duration, got 0"
    ],
    [{ _tag: "Never" }, "rule._tag: "]
  ]
  for (const [rule, message] of refusals) {
    it(`refuses ${JSON.stringify(rule)}`, () => {
      const refusal = Either.flip(CircuitBreakerConfig.make({ rule } as CircuitBreakerConfig.Options))
      assert.include(Either.getOrThrow(refusal).message, `CircuitBreakerConfig.${message}`)
    })
  }
})
