import { IdentityError, PeerVerificationError } from "@agentweave/spiffe"
import { AuditLog, CircuitBreaker, RetryBudget, RetryConfig, RetryPolicy, TransportError } from "@agentweave/transport"
import { HttpBody, HttpClient, HttpClientError, HttpClientRequest, HttpClientResponse } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Clock, Duration, Effect, Either, Exit, Fiber, Random, Schedule, Stream, TestClock } from "effect"
import * as fc from "fast-check"

const address = "10.0.0.1:443"

const lost = new TransportError.ConnectionError({ reason: "Lost", outcome: "Unknown", address, description: "gone" })
const refused = new TransportError.ConnectionError({
  reason: "Refused",
  outcome: "NotSent",
  address,
  description: "nobody listens"
})
const peer = new PeerVerificationError.PeerVerificationError({
  expectedId: "spiffe://example.org/billing",
  actualId: null,
  reason: "UntrustedChain",
  description: "no path"
})

const errors: Record<string, unknown> = { lost, refused, peer, odd: "odd" }

/** An effect that fails with these errors one after the other, and then succeeds; when it ran, and how it ended. */
const traceOf = (
  script: ReadonlyArray<string>,
  retry: (effect: Effect.Effect<string, unknown>) => Effect.Effect<string, unknown>,
  seed: string
) =>
  Effect.gen(function* () {
    const times: Array<number> = []
    const start = yield* Clock.currentTimeMillis
    const effect = Effect.flatMap(Clock.currentTimeMillis, (now) => {
      // To the microsecond: jittered delays are no whole numbers, and their sums depend on the order.
      times.push(Math.round((now - start) * 1_000) / 1_000)
      const error = script[times.length - 1]
      return error === undefined ? Effect.succeed("done") : Effect.fail(errors[error])
    })
    const fiber = yield* Effect.fork(Effect.exit(Effect.withRandom(retry(effect), Random.make(seed))))
    yield* TestClock.adjust("2 hours")
    return { times, exit: yield* Fiber.join(fiber) }
  })

it.effect("attemptTimeout cuts off an attempt under withRetry and retry; a bare Schedule cannot", () =>
  Effect.gen(function* () {
    const policy = yield* RetryPolicy.make({ maxRetries: 1, baseDelay: 0, attemptTimeout: "1 second" })
    const ways: Record<string, (hanging: Effect.Effect<never>) => Effect.Effect<never, unknown>> = {
      withRetry: RetryPolicy.withRetry(policy),
      retry: (hanging) => policy.retry(hanging),
      "Effect.retry": Effect.retry(policy)
    }
    const started: Record<string, number> = {}
    for (const [name, way] of Object.entries(ways)) {
      started[name] = 0
      const hanging = Effect.suspend(() => {
        started[name] = (started[name] ?? 0) + 1
        return Effect.never
      })
      const fiber = yield* Effect.fork(Effect.exit(way(hanging)))
      yield* TestClock.adjust("1 hour")
      yield* Fiber.interrupt(fiber)
    }
    expect(started).toEqual({ withRetry: 2, retry: 2, "Effect.retry": 1 })
  })
)

const configs = fc.record({
  maxRetries: fc.nat(5),
  baseDelay: fc.nat(2_000),
  maxDelay: fc.integer({ min: 2_000, max: 10_000 }),
  exponentialBase: fc.constantFrom(1, 1.5, 2, 3),
  jitter: fc.boolean()
})
const scripts = fc.array(fc.constantFrom("lost", "lost", "lost", "refused", "peer", "odd"), { maxLength: 8 })

/** The documented backoff, made of Effect's own parts. */
const reference = ({
  baseDelay,
  exponentialBase,
  isRetryable,
  jitter,
  maxDelay,
  maxRetries
}: RetryConfig.RetryConfig) =>
  Schedule.recurs(maxRetries).pipe(
    Schedule.whileInput((error: unknown) => error !== peer && isRetryable(error)),
    Schedule.addDelayEffect((attempt) => {
      const longest = Math.min(Duration.toMillis(baseDelay) * exponentialBase ** attempt, Duration.toMillis(maxDelay))
      return jitter
        ? Effect.map(Random.next, (random) => Duration.millis(Math.round(longest * random)))
        : Effect.succeed(Duration.millis(longest))
    })
  )

type Any = Schedule.Schedule<unknown, unknown>

const combinators: Record<string, (schedule: Any) => Any> = {
  "as it is": (schedule) => schedule,
  intersect: (schedule) => Schedule.intersect(schedule, Schedule.recurs(2)),
  "intersect with a longer delay": (schedule) => Schedule.intersect(schedule, Schedule.spaced("3 seconds")),
  union: (schedule) => Schedule.union(schedule, Schedule.intersect(Schedule.spaced("700 millis"), Schedule.recurs(4))),
  jittered: (schedule) => Schedule.jittered(schedule),
  andThen: (schedule) =>
    Schedule.andThen(schedule, Schedule.intersect(Schedule.spaced("5 seconds"), Schedule.recurs(2))),
  "andThen, the other way": (schedule) => Schedule.andThen(Schedule.recurs(1), schedule),
  upTo: (schedule) => Schedule.upTo(schedule, "4 seconds"),
  whileOutput: (schedule) => Schedule.whileOutput(schedule, (retry) => retry !== 2),
  delayed: (schedule) => Schedule.delayed(schedule, (delay) => Duration.times(delay, 2)),
  "either, repeated by resetAfter": (schedule) => Schedule.resetAfter(schedule, "1 hour")
}

const property = <A>(arbitrary: fc.Arbitrary<A>, check: (value: A) => Effect.Effect<void, unknown>, runs = 60) =>
  Effect.forEach(fc.sample(arbitrary, { numRuns: runs, seed: 7 }), check, { discard: true })

describe("a RetryPolicy is a Schedule", () => {
  for (const [name, combine] of Object.entries(combinators)) {
    it.effect(`equal to its backoff made of Effect's own schedules: ${name}`, () =>
      property(fc.tuple(configs, scripts, fc.string()), ([options, script, seed]) =>
        Effect.gen(function* () {
          const policy = yield* RetryPolicy.make(options)
          const ours = combine(policy)
          const theirs = combine(reference(policy.config))
          expect(yield* traceOf(script, Effect.retry(ours), seed)).toEqual(
            yield* traceOf(script, Effect.retry(theirs), seed)
          )
        })
      )
    )
  }

  it.effect("its own retry makes the same attempts at the same times as Effect.retry with it", () =>
    property(fc.tuple(configs, scripts, fc.string()), ([options, script, seed]) =>
      Effect.gen(function* () {
        const policy = yield* RetryPolicy.make(options)
        const own = yield* traceOf(script, (effect) => policy.retry(effect), seed)
        expect(own).toEqual(yield* traceOf(script, Effect.retry(policy), seed))
        expect(yield* traceOf(script, RetryPolicy.withRetry(policy), seed)).toEqual(own)
      })
    )
  )

  it.effect("the same seed gives the same delays, another one others", () =>
    Effect.gen(function* () {
      const policy = yield* RetryPolicy.make({ maxRetries: 5 })
      const script = Array.from({ length: 5 }, () => "lost")
      const first = yield* traceOf(script, (effect) => policy.retry(effect), "a seed")
      expect(yield* traceOf(script, (effect) => policy.retry(effect), "a seed")).toEqual(first)
      expect(yield* traceOf(script, (effect) => policy.retry(effect), "another")).not.toEqual(first)
    })
  )

  it.effect("draws on its budget, and ends with the error itself when there is nothing left", () =>
    Effect.gen(function* () {
      const budget = yield* RetryBudget.make({ ratio: 0, minRetriesPerSecond: 0.2 })
      const policy = yield* RetryPolicy.make({ maxRetries: 9, baseDelay: 0, budget })
      const { exit, times } = yield* traceOf(
        Array.from({ length: 9 }, () => "lost"),
        Effect.retry(policy),
        ""
      )
      expect(times).toHaveLength(3)
      expect(exit).toEqual(Exit.fail(lost))
    })
  )

  it.effect("recurs no more when the next attempt would start totalTimeout after the first failure", () =>
    Effect.gen(function* () {
      const policy = yield* RetryPolicy.make({ maxRetries: 9, jitter: false, totalTimeout: "7 seconds" })
      const { times } = yield* traceOf(
        Array.from({ length: 9 }, () => "lost"),
        Effect.retry(policy),
        ""
      )
      expect(times).toEqual([0, 1_000, 3_000])
    })
  )

  it.effect("its state is its caller's: two uses of one policy do not count each other's retries", () =>
    Effect.gen(function* () {
      const policy = yield* RetryPolicy.make({ maxRetries: 2, jitter: false })
      const script = ["lost", "lost"]
      const both = yield* Effect.all(
        [traceOf(script, Effect.retry(policy), ""), traceOf(script, Effect.retry(policy), "")],
        { concurrency: 2 }
      )
      expect(both.map(({ times }) => times.length)).toEqual([3, 3])
    })
  )
})

const byThirds = Schedule.intersect(Schedule.spaced("3 seconds"), Schedule.recurs(2))

describe("a Schedule of the caller's", () => {
  const always = ["lost", "lost", "lost", "lost"]

  it.effect("says when and how often, in make and in withRetry", () =>
    Effect.gen(function* () {
      const made = yield* RetryPolicy.make(byThirds)
      const field = yield* RetryPolicy.make({ schedule: byThirds, isRetryable: () => true })
      for (const retry of [made.retry.bind(made), field.retry.bind(field), RetryPolicy.withRetry(byThirds)]) {
        const { exit, times } = yield* traceOf(always, retry, "")
        expect(times).toEqual([0, 3_000, 6_000])
        expect(exit).toEqual(Exit.fail(lost))
      }
      expect(yield* made.stats).toMatchObject({ retries: 2, exhausted: 1, delayed: Duration.seconds(6) })
    })
  )

  it.effect("is equal to Effect.retry with it, where every error is worth a retry", () =>
    property(
      fc.tuple(scripts, fc.string(), fc.constantFrom(...Object.values(combinators))),
      ([script, seed, combine]) =>
        Effect.gen(function* () {
          const schedule = combine(Schedule.intersect(Schedule.exponential("200 millis"), Schedule.recurs(3)))
          const policy = yield* RetryPolicy.make({ schedule, isRetryable: () => true })
          const allowed = script.filter((error) => error !== "peer")
          expect(yield* traceOf(allowed, (effect) => policy.retry(effect), seed)).toEqual(
            yield* traceOf(allowed, Effect.retry(schedule), seed)
          )
        })
    )
  )

  it.effect("sees the errors, one after the other, and the response whose status is worth a retry", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const watching = Schedule.tapInput(Schedule.recurs(2), (input) => Effect.sync(() => seen.push(input)))
      yield* traceOf(["lost", "refused", "lost"], RetryPolicy.withRetry(watching), "")
      expect(seen).toEqual([lost, refused, lost])
      seen.length = 0
      const client = answering(503)
      yield* RetryPolicy.withRetry(client, watching).get("/")
      expect(seen).toMatchObject([{ status: 503 }, { status: 503 }, { status: 503 }])
    })
  )

  it.effect("does not take the numbers of a configuration besides", () =>
    Effect.gen(function* () {
      expect(yield* Effect.flip(RetryPolicy.make({ schedule: byThirds, maxRetries: 5 }))).toMatchObject({
        _tag: "InvalidConfigError",
        config: "RetryConfig",
        field: "maxRetries"
      })
      const config = yield* RetryConfig.make(byThirds)
      expect((yield* RetryPolicy.make(config)).config.schedule).toBe(byThirds)
    })
  )

  it.effect("Retry-After prolongs its delays, up to maxDelay", () =>
    Effect.gen(function* () {
      const policy = yield* RetryPolicy.make({ schedule: byThirds, maxDelay: "20 seconds" })
      const start = yield* Clock.currentTimeMillis
      const client = answering(503, { "retry-after": "60" })
      const fiber = yield* Effect.fork(
        Effect.zipRight(RetryPolicy.withRetry(client, policy).get("/"), Clock.currentTimeMillis)
      )
      yield* TestClock.adjust("1 hour")
      expect((yield* Fiber.join(fiber)) - start).toBe(40_000)
    })
  )
})

/** A client that always answers with this status. */
const answering = (status: number, headers: Record<string, string> = {}) =>
  HttpClient.makeWith<never, never, never, never>(
    Effect.map((request) => HttpClientResponse.fromWeb(request, new Response(null, { status, headers }))),
    Effect.succeed
  )

describe("is never retried, whatever a schedule and isRetryable say", () => {
  const request = HttpClientRequest.get("/")
  const forbidden: Record<string, unknown> = {
    "a refused peer": peer,
    "our own refused identity": new IdentityError.IdentityError({ reason: "Expired", description: "it ended" }),
    "an identity error inside another": new HttpClientError.RequestError({ request, reason: "Transport", cause: peer }),
    "a channel whose scope has ended": new TransportError.ScopeClosedError({ reason: "Channel", target: "billing" }),
    "a closed pool": new TransportError.PoolClosedError({ targetId: "spiffe://example.org/billing" }),
    "an event that cannot be put on record": new AuditLog.AuditError({ reason: "Full", description: "no room" }),
    "a header that cannot be sent": new HttpClientError.RequestError({ request, reason: "Encode" }),
    "a URL that is none": new HttpClientError.RequestError({ request, reason: "InvalidUrl" })
  }
  for (const [what, error] of Object.entries(forbidden)) {
    it.effect(what, () =>
      Effect.gen(function* () {
        const policy = yield* RetryPolicy.make({ schedule: Schedule.forever, isRetryable: () => true })
        let runs = 0
        const failing = Effect.suspend(() => {
          runs++
          return Effect.fail(error)
        })
        yield* Effect.exit(policy.retry(failing))
        yield* Effect.exit(Effect.retry(failing, policy))
        expect(runs).toBe(2)
      })
    )
  }

  it.effect("an open circuit", () =>
    Effect.gen(function* () {
      const policy = yield* RetryPolicy.make({ schedule: Schedule.forever, isRetryable: () => true })
      const breaker = yield* CircuitBreaker.make({ target: "billing" })
      yield* breaker.isolate
      yield* Effect.exit(policy.retry(breaker.protect(Effect.void)))
      expect(yield* breaker.metrics).toMatchObject({ totalRejected: 1 })
    })
  )

  const requests: Record<string, HttpClientRequest.HttpClientRequest> = {
    "a POST of unknown outcome": HttpClientRequest.post("/"),
    "a PATCH of unknown outcome": HttpClientRequest.patch("/"),
    "a body that cannot be sent again": HttpClientRequest.put("/", {
      body: HttpBody.stream(Stream.make(new Uint8Array(1)))
    })
  }
  for (const [what, unsafe] of Object.entries(requests)) {
    it.effect(`${what}, of a client under withRetry, and as an error of an HttpClient under Effect.retry`, () =>
      Effect.gen(function* () {
        const policy = yield* RetryPolicy.make({ schedule: Schedule.recurs(5), isRetryable: () => true })
        let sent = 0
        const client = HttpClient.makeWith<never, never, HttpClientError.RequestError, never>(
          Effect.flatMap((request) =>
            Effect.suspend(() => {
              sent++
              return Effect.fail(new HttpClientError.RequestError({ request, reason: "Transport", cause: lost }))
            })
          ),
          Effect.succeed
        )
        yield* Effect.exit(RetryPolicy.withRetry(client, policy).execute(unsafe))
        yield* Effect.exit(Effect.retry(client.execute(unsafe), policy))
        yield* Effect.exit(client.pipe(HttpClient.retry(policy)).execute(unsafe))
        yield* Effect.exit(policy.retry(client.execute(unsafe)))
        expect(sent).toBe(4)
      })
    )
  }
})

describe("the errors retried by default are connections that failed and limits of time", () => {
  const coded = (code: string) => Object.assign(new Error(code), { code })
  const retried: Record<string, unknown> = {
    "a typed connection error": lost,
    "ECONNREFUSED of Node": coded("ECONNREFUSED"),
    "ECONNRESET of Node": coded("ECONNRESET"),
    "ETIMEDOUT of Node": coded("ETIMEDOUT"),
    "EPIPE of Node": coded("EPIPE"),
    "the TimeoutError of AbortSignal.timeout": new DOMException("too slow", "TimeoutError"),
    "a code inside what a promise rejected with": { _tag: "UnknownException", cause: coded("ECONNREFUSED") },
    "the failed fetch of undici": new TypeError("fetch failed", { cause: coded("UND_ERR_CONNECT_TIMEOUT") })
  }
  for (const [what, error] of Object.entries(retried)) {
    it(`retries ${what}`, () => expect(RetryConfig.isRetryableByDefault(error)).toBe(true))
  }

  const others: Record<string, unknown> = {
    "an abort of the caller's": new DOMException("enough", "AbortError"),
    ENOENT: coded("ENOENT"),
    "a TypeError": new TypeError("x is not a function"),
    "a text": "ECONNREFUSED",
    nothing: undefined
  }
  for (const [what, error] of Object.entries(others)) {
    it(`does not retry ${what}`, () => expect(RetryConfig.isRetryableByDefault(error)).toBe(false))
  }

  it.effect("a promise that Node rejects with a refused connection is retried, and so is Effect.timeout", () =>
    Effect.gen(function* () {
      const policy = yield* RetryPolicy.make({ maxRetries: 2, baseDelay: 0 })
      // Nobody listens on port 2.
      yield* Effect.exit(policy.retry(Effect.tryPromise(() => fetch("http://127.0.0.1:2/"))))
      expect(yield* policy.stats).toMatchObject({ retries: 2, exhausted: 1 })
      const fiber = yield* Effect.fork(Effect.exit(policy.retry(Effect.timeout(Effect.never, "1 second"))))
      yield* TestClock.adjust("1 minute")
      yield* fiber
      expect(yield* policy.stats).toMatchObject({ retries: 4, exhausted: 2 })
    })
  )
})

it("a policy with a budget is refused where there is no place for the budget", () => {
  const budget = Effect.runSync(RetryBudget.make())
  const policy = Effect.runSync(RetryPolicy.make({ budget }))
  expect(Either.flip(RetryConfig.make(policy)).pipe(Either.getOrThrow)).toMatchObject({ field: "budget" })
})
