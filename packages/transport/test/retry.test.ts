import { IdentityError, PeerVerificationError } from "@agentweave/spiffe"
import {
  CircuitBreaker,
  CurrentAttempt,
  RetryBudget,
  RetryConfig,
  RetryPolicy,
  TransportError
} from "@agentweave/transport"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Duration, Effect, Exit, Fiber, Random, Schedule, TestClock } from "effect"
import { quicken } from "../../spiffe/test/support/quickTestClock.js"

const connection = (reason: "Lost" | "NotTls") =>
  new TransportError.ConnectionError({
    reason,
    outcome: "Unknown",
    address: "10.0.0.1:443",
    description: "it went wrong"
  })

const outcomes: Record<string, Effect.Effect<unknown, unknown>> = {
  ok: Effect.succeed("ok"),
  lost: Effect.fail(connection("Lost")),
  notTls: Effect.fail(connection("NotTls")),
  odd: Effect.fail("odd"),
  die: Effect.die("died"),
  lostAndMore: Effect.failCause(Cause.parallel(Cause.fail(connection("Lost")), Cause.die("died"))),
  interrupt: Effect.interrupt,
  hang: Effect.never,
  timeout: Effect.fail(new Cause.TimeoutException()),
  peer: Effect.fail(
    new PeerVerificationError.PeerVerificationError({
      expectedId: "spiffe://example.org/billing",
      actualId: null,
      reason: "UntrustedChain",
      description: "no path"
    })
  ),
  identity: Effect.fail(new IdentityError.IdentityError({ reason: "Expired", description: "it ended" })),
  open: Effect.flatMap(CircuitBreaker.make({ target: "open" }), (breaker) =>
    Effect.zipRight(breaker.isolate, breaker.protect(Effect.void))
  ),
  overBudget: Effect.fail(new RetryBudget.RetryBudgetExhaustedError({ target: "inner", attempts: 1, lastError: "odd" }))
}

/** Plays attempts one after the other (the last one again and again); gives when each started, in seconds, and the end. */
const play = <L extends RetryPolicy.Limit>(policy: RetryPolicy.RetryPolicy<L>, script: string) =>
  Effect.gen(function* () {
    yield* quicken
    const steps = script.split(" ")
    const times: Array<number> = []
    const origin = yield* Clock.currentTimeMillis
    const attempt = Effect.flatMap(Clock.currentTimeMillis, (now) => {
      times.push((now - origin) / 1_000)
      return outcomes[steps[times.length - 1] ?? steps.at(-1) ?? ""] ?? assert.fail(`no outcome in ${script}`)
    })
    const fiber = yield* Effect.fork(policy.retry(attempt))
    yield* TestClock.adjust("1 day")
    return { exit: yield* Fiber.await(fiber), times }
  })

/** How a call ended, in a word. */
const end = (exit: Exit.Exit<unknown, unknown>): string =>
  Exit.match(exit, {
    onSuccess: String,
    onFailure: (cause) =>
      cause._tag === "Fail"
        ? cause.error instanceof TransportError.TimeoutError
          ? cause.error.phase
          : String(cause.error).split(":", 1).join()
        : cause._tag
  })

type Row = readonly [
  behaviour: string,
  script: string,
  times: ReadonlyArray<number>,
  end: string,
  options?: RetryConfig.Options
]

const plain = { jitter: false }

const rows: ReadonlyArray<Row> = [
  // The documented behaviour and configuration.
  ["a success is not retried", "ok", [0], "ok"],
  ["maxRetries: 3 by default, and the last error is the result", "lost", [0, 1, 3, 7], "ConnectionError", plain],
  ["a retry that succeeds ends it", "lost lost ok", [0, 1, 3], "ok", plain],
  ["maxRetries", "lost", [0, 1], "ConnectionError", { ...plain, maxRetries: 1 }],
  ["maxRetries zero retries nothing", "lost", [0], "ConnectionError", { ...plain, maxRetries: 0 }],
  ["baseDelay", "lost", [0, 2, 6, 14], "ConnectionError", { ...plain, baseDelay: "2 seconds" }],
  ["exponentialBase", "lost", [0, 1, 4, 13], "ConnectionError", { ...plain, exponentialBase: 3 }],
  ["exponentialBase one keeps the delay", "lost", [0, 1, 2, 3], "ConnectionError", { ...plain, exponentialBase: 1 }],
  ["maxDelay", "lost", [0, 1, 3, 6], "ConnectionError", { ...plain, maxDelay: "3 seconds" }],
  [
    "maxDelay: 30 seconds by default",
    "lost",
    [0, 1, 3, 7, 15, 31, 61, 91],
    "ConnectionError",
    { ...plain, maxRetries: 7 }
  ],
  ["no delay if baseDelay is zero", "lost", [0, 0, 0, 0], "ConnectionError", { baseDelay: 0 }],
  [
    "not even if it grows beyond all numbers",
    "lost",
    Array(41).fill(0),
    "ConnectionError",
    { ...plain, baseDelay: 0, exponentialBase: 1e9, maxRetries: 40 }
  ],
  [
    "a growth beyond all numbers stays at maxDelay",
    "lost",
    [0, ...Array.from({ length: 40 }, (_, i) => 1 + 30 * i)],
    "ConnectionError",
    { ...plain, exponentialBase: 1e9, maxRetries: 40 }
  ],
  [
    "isRetryable takes the place of the default",
    "odd lost",
    [0, 1],
    "ConnectionError",
    { ...plain, isRetryable: (e) => e === "odd" }
  ],
  // What is retried.
  ["an error that is not retryable ends it", "lost notTls", [0, 1], "ConnectionError", plain],
  ["an error of unknown kind ends it", "odd", [0], "odd", plain],
  ["a TimeoutException is retried", "timeout ok", [0, 1], "ok", plain],
  ["a defect is not retried", "die", [0], "Die", plain],
  ["interruption is not retried", "interrupt", [0], "Interrupt", plain],
  ["a failure beside a defect is retried, as Effect.retry does", "lostAndMore ok", [0, 1], "ok", plain],
  ["never retried: an open breaker", "open", [0], "CircuitOpenError", { ...plain, isRetryable: () => true }],
  [
    "never retried: a peer that is not who it should be",
    "peer",
    [0],
    "PeerVerificationError",
    { ...plain, isRetryable: () => true }
  ],
  [
    "never retried: an identity that does not hold",
    "identity",
    [0],
    "IdentityError",
    { ...plain, isRetryable: () => true }
  ],
  [
    "never retried: a budget used up further down",
    "overBudget",
    [0],
    "RetryBudgetExhaustedError",
    { ...plain, isRetryable: () => true }
  ],
  // The two limits of time.
  [
    "attemptTimeout ends each attempt, which is then retried",
    "hang",
    [0, 6, 13, 22],
    "Attempt",
    { ...plain, attemptTimeout: "5 seconds" }
  ],
  [
    "an attempt that is quicker than attemptTimeout is not touched",
    "hang ok",
    [0, 6],
    "ok",
    { ...plain, attemptTimeout: "5 seconds" }
  ],
  [
    "a timeout is retried only if isRetryable says so",
    "hang",
    [0],
    "Attempt",
    { ...plain, attemptTimeout: "5 seconds", isRetryable: () => false }
  ],
  ["totalTimeout ends an attempt that runs", "lost hang", [0, 1], "Total", { ...plain, totalTimeout: "5 seconds" }],
  [
    "totalTimeout leaves out a delay that would reach it",
    "lost",
    [0, 1, 3],
    "ConnectionError",
    { ...plain, totalTimeout: "7 seconds" }
  ],
  [
    "a delay that ends before totalTimeout is slept",
    "lost",
    [0, 1, 3, 7],
    "ConnectionError",
    { ...plain, totalTimeout: "7001 millis" }
  ],
  [
    "both: what ends first",
    "hang",
    [0, 5],
    "Total",
    { ...plain, attemptTimeout: "4 seconds", totalTimeout: "8 seconds" }
  ],
  [
    "both: no attempt starts after the deadline",
    "hang",
    [0, 5],
    "Attempt",
    { ...plain, attemptTimeout: "4 seconds", totalTimeout: "10 seconds" }
  ]
]

describe("RetryPolicy", () => {
  for (const [behaviour, script, times, ended, options] of rows) {
    it.effect(behaviour, () =>
      Effect.gen(function* () {
        const result = yield* play(yield* RetryPolicy.make(options), script)
        assert.deepStrictEqual(result.times, times)
        assert.strictEqual(end(result.exit), ended)
      })
    )
  }

  it.effect("with jitter a delay is anything between zero and the computed one", () =>
    Effect.gen(function* () {
      const policy = yield* RetryPolicy.make({ maxRetries: 200, maxDelay: "8 seconds" })
      const { times } = yield* Effect.withRandom(play(policy, "lost"), Random.make("a seed"))
      const delays = times.slice(1).map((time, i) => time - (times[i] ?? 0))
      const longest = delays.map((_, i) => Math.min(2 ** i, 8))
      assert.strictEqual(delays.length, 200)
      assert.isTrue(delays.every((delay, i) => delay >= 0 && delay <= (longest[i] ?? 0)))
      const share = delays.map((delay, i) => delay / (longest[i] ?? 1))
      for (const tenth of [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]) {
        assert.isTrue(
          share.some((_) => Math.floor(_ * 10) === tenth),
          `no delay in tenth ${tenth}`
        )
      }
    })
  )

  it.effect("with a seed the delays are the same on every run, and those of the schedule", () =>
    Effect.gen(function* () {
      const config = yield* RetryConfig.make({ maxRetries: 6 })
      const seeded = <A, E, R>(effect: Effect.Effect<A, E, R>, seed: string) =>
        Effect.withRandom(effect, Random.make(seed))
      const policy = yield* RetryPolicy.make(config)
      const first = yield* seeded(play(policy, "lost"), "one")
      const again = yield* seeded(play(policy, "lost"), "one")
      const other = yield* seeded(play(policy, "lost"), "two")
      assert.deepStrictEqual(again.times, first.times)
      assert.notDeepEqual(other.times, first.times)
      const times: Array<number> = []
      const origin = yield* Clock.currentTimeMillis
      const attempt = Effect.flatMap(Clock.currentTimeMillis, (now) => {
        times.push((now - origin) / 1_000)
        return Effect.fail(connection("Lost"))
      })
      yield* seeded(Effect.fork(Effect.retry(attempt, RetryPolicy.schedule(config))), "one")
      yield* TestClock.adjust("1 day")
      assert.deepStrictEqual(times, first.times)
    })
  )

  it.effect("the schedule is a plain Schedule: it ends with maxRetries, and at an error that is not retryable", () =>
    Effect.gen(function* () {
      const schedule = RetryPolicy.schedule(yield* RetryConfig.make({ jitter: false, maxRetries: 4 }))
      const run = (errors: ReadonlyArray<unknown>) => Schedule.run(schedule, 0, errors)
      assert.deepStrictEqual(Array.from(yield* run(Array(9).fill(connection("Lost")))), [0, 1, 2, 3, 4])
      assert.deepStrictEqual(Array.from(yield* run([connection("Lost"), "odd", connection("Lost")])), [0, 1])
      const delays = yield* Schedule.run(Schedule.delays(schedule), 0, Array(9).fill(connection("Lost")))
      assert.deepStrictEqual(Array.from(delays, Duration.toMillis), [1_000, 2_000, 4_000, 8_000, 0])
      const open = yield* Effect.flip(outcomes["open"] ?? Effect.void)
      const anything = RetryPolicy.schedule(yield* RetryConfig.make({ isRetryable: () => true }))
      assert.strictEqual((yield* Schedule.run(anything, 0, [open, open])).length, 1)
    })
  )

  it.effect("an attempt that is timed out is interrupted before the next one starts", () =>
    Effect.gen(function* () {
      const policy = yield* RetryPolicy.make({ jitter: false, maxRetries: 2, attemptTimeout: "1 second" })
      const log: Array<string> = []
      const attempt = Effect.suspend(() => {
        log.push("start")
        return Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push("interrupt")))
      })
      const fiber = yield* Effect.fork(policy.retry(attempt))
      yield* TestClock.adjust("1 minute")
      const error = yield* Effect.flip(Fiber.join(fiber))
      assert.deepStrictEqual(log, ["start", "interrupt", "start", "interrupt", "start", "interrupt"])
      assert.strictEqual(
        error.message,
        "Attempt: expected one attempt within 1s, nothing came from the operation; request outcome unknown"
      )
    })
  )

  it.effect("an error of a limit names the target and the limit that was set", () =>
    Effect.gen(function* () {
      const policy = yield* RetryPolicy.make({ target: "billing", totalTimeout: "7 seconds", jitter: false })
      const { exit } = yield* play(policy, "lost hang")
      assert.strictEqual(
        String(Exit.isFailure(exit) ? Cause.squash(exit.cause) : exit),
        "TimeoutError: Total: expected all attempts within 7s, nothing came from billing; request outcome unknown"
      )
    })
  )

  it.effect("interruption ends a call while it runs and while it waits", () =>
    Effect.gen(function* () {
      const policy = yield* RetryPolicy.make({ jitter: false })
      for (const outcome of ["hang", "lost"]) {
        let started = 0
        const attempt = Effect.suspend(() => {
          started++
          return outcomes[outcome] ?? Effect.void
        })
        const fiber = yield* Effect.fork(policy.retry(attempt))
        yield* TestClock.adjust("500 millis")
        assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(started, 1)
      }
    })
  )

  it.effect("an attempt knows its number", () =>
    Effect.gen(function* () {
      for (const attemptTimeout of [undefined, "1 hour"] as const) {
        const policy = yield* RetryPolicy.make({ baseDelay: 0, attemptTimeout })
        const seen: Array<number> = []
        const attempt = Effect.flatMap(CurrentAttempt.CurrentAttempt, (number) => {
          seen.push(number)
          return number < 4 ? Effect.fail(connection("Lost")) : Effect.succeed(number)
        })
        assert.strictEqual(yield* policy.retry(attempt), 4)
        assert.strictEqual(yield* RetryPolicy.retry(attempt, policy), 4)
        assert.strictEqual(yield* attempt.pipe(RetryPolicy.retry(policy)), 4)
        assert.deepStrictEqual(seen, [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4])
        assert.strictEqual(yield* CurrentAttempt.CurrentAttempt, 1)
      }
      assert.isTrue(RetryPolicy.isRetryPolicy(yield* RetryPolicy.make()))
    })
  )

  it.effect("a first attempt inside a retry has the retry's number", () =>
    Effect.gen(function* () {
      const outer = yield* RetryPolicy.make({ baseDelay: 0, maxRetries: 1 })
      const inner = yield* RetryPolicy.make({ baseDelay: 0, maxRetries: 2, attemptTimeout: "1 hour" })
      const seen: Array<number> = []
      const attempt = Effect.flatMap(CurrentAttempt.CurrentAttempt, (number) => {
        seen.push(number)
        return Effect.fail(connection("Lost"))
      })
      yield* Effect.flip(outer.retry(inner.retry(attempt)))
      assert.deepStrictEqual(seen, [1, 2, 3, 2, 2, 3])
    })
  )

  it.effect("stats count what was done", () =>
    Effect.gen(function* () {
      const policy = yield* RetryPolicy.make({ jitter: false, attemptTimeout: "2 seconds", totalTimeout: "20 seconds" })
      for (const script of ["ok", "lost ok", "hang lost ok", "lost", "odd", "lost odd", "lost lost lost hang"]) {
        yield* play(policy, script)
      }
      const { delayed, ...counts } = yield* policy.stats
      assert.deepStrictEqual(counts, {
        retries: 1 + 2 + 3 + 1 + 3,
        recovered: 2,
        exhausted: 2,
        notRetryable: 2,
        outOfTime: 0,
        overBudget: 0,
        attemptTimeouts: 2,
        totalTimeouts: 0
      })
      assert.strictEqual(Duration.toSeconds(delayed), 1 + 3 + 7 + 1 + 7)
      const short = yield* RetryPolicy.make({ jitter: false, totalTimeout: "2 seconds" })
      yield* play(short, "lost")
      yield* play(short, "lost hang")
      assert.deepInclude(yield* short.stats, { outOfTime: 2, totalTimeouts: 1, retries: 2, exhausted: 0 })
    })
  )

  it.effect("a wall clock set back neither prolongs nor shortens anything", () =>
    Effect.gen(function* () {
      const test = yield* TestClock.testClock()
      let offset = 0
      const jumping: Clock.Clock = Object.assign(Object.create(test), {
        unsafeCurrentTimeMillis: () => test.unsafeCurrentTimeMillis() + offset,
        unsafeCurrentTimeNanos: () => test.unsafeCurrentTimeNanos()
      })
      const policy = yield* RetryPolicy.make({ jitter: false, totalTimeout: "7 seconds" })
      const times: Array<number> = []
      const attempt = Effect.suspend(() => {
        times.push(test.unsafeCurrentTimeMillis())
        offset -= 3_600_000
        return Effect.fail(connection("Lost"))
      })
      const fiber = yield* Effect.fork(Effect.withClock(policy.retry(attempt), jumping))
      yield* TestClock.adjust("1 day")
      yield* Fiber.await(fiber)
      assert.deepStrictEqual(times, [0, 1_000, 3_000])
    })
  )
})
