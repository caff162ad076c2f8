import { CircuitBreaker, type CircuitBreakerConfig } from "@agentweave/transport"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Option, TestClock } from "effect"
import { ManualRuntime } from "./manualRuntime.js"

/**
 * A fiber that may do ten operations yields after every tenth, for Effect's own yield needs nine. So many operations
 * before the effect move these points to each of its own operations.
 */
const paddings = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
const padded = <A, E, R>(operations: number, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  operations === 0 ? effect : Effect.suspend(() => padded(operations - 1, effect))

/** A half-open breaker on a runtime whose fibers yield all the time. */
const halfOpen = (options: CircuitBreakerConfig.Options) => {
  const runtime = new ManualRuntime(10)
  const now = <A>(effect: Effect.Effect<A, unknown>): A => {
    const fiber = runtime.fork(effect)
    runtime.flush()
    return Exit.getOrElse(fiber.unsafePoll() ?? Exit.die("it waits"), (cause) => assert.fail(String(cause)))
  }
  const breaker = now(
    CircuitBreaker.make({
      target: "probed",
      failureThreshold: 1,
      successThreshold: 100,
      halfOpenMaxCalls: 1,
      ...options
    })
  )
  now(Effect.exit(breaker.protect(Effect.fail("failed"))))
  runtime.advance(30_000)
  assert.strictEqual(now(breaker.state), "HalfOpen")
  return { breaker, now, runtime }
}

const probes: Record<string, Effect.Effect<unknown, unknown>> = {
  "succeeds at once": Effect.succeed(1),
  "succeeds after a few steps": Effect.zipRight(Effect.yieldNow(), Effect.yieldNow()),
  "fails at once": Effect.fail("failed"),
  "is excluded": Effect.zipRight(Effect.yieldNow(), Effect.fail("excluded")),
  "dies after a few steps": Effect.zipRight(Effect.yieldNow(), Effect.die("died")),
  waits: Effect.never,
  "cannot be interrupted": Effect.uninterruptible(Effect.zipRight(Effect.yieldNow(), Effect.yieldNow())),
  "takes its time to be interrupted": Effect.onInterrupt(Effect.never, () => Effect.yieldNow()),
  "fails when it is interrupted": Effect.onInterrupt(Effect.never, () => Effect.die("in a finalizer")),
  "interrupts itself": Effect.zipRight(Effect.yieldNow(), Effect.interrupt)
}

const around: Record<string, <A, E>(effect: Effect.Effect<A, E>) => Effect.Effect<A, E>> = {
  "": (effect) => effect,
  " in an uninterruptible region": Effect.uninterruptible,
  " inside a region made interruptible again": (effect) => Effect.uninterruptible(Effect.interruptible(effect))
}

const configs: Record<string, CircuitBreakerConfig.Options> = {
  "": {},
  ", results judged": { isFailure: () => false },
  ", excluded errors": { isExcluded: (error) => error === "excluded" }
}

describe("a probe slot comes back, whenever the call is interrupted:", () => {
  for (const [region, wrap] of Object.entries(around)) {
    for (const [judged, options] of Object.entries(configs)) {
      it(`at each of its steps${region}${judged}`, () => {
        for (const [name, probe] of Object.entries(probes)) {
          const endless = region === " in an uninterruptible region" && !/ once|step|excluded|cannot|itself/.test(name)
          let interrupted = 0
          for (const padding of endless ? [] : paddings) {
            for (let step = 0; step < 9; step++) {
              const at = `a probe that ${name}, interrupted at step ${step}, padding ${padding}`
              const { breaker, now, runtime } = halfOpen(options)
              const fiber = runtime.fork(
                wrap(Effect.zipRight(Effect.yieldNow(), padded(padding, breaker.protect(probe))))
              )
              runtime.flush(step)
              fiber.unsafeInterruptAsFork(fiber.id())
              runtime.flush()
              const exit = fiber.unsafePoll() ?? assert.fail(`${at}: goes on`)
              interrupted += Exit.isInterrupted(exit) ? 1 : 0
              const metrics = now(breaker.metrics)
              assert.strictEqual(metrics.probes, 0, at)
              // The slot can be used, and an interrupted call has no outcome.
              if (metrics.state === "HalfOpen") {
                assert.strictEqual(now(breaker.protect(Effect.succeed(2))), 2)
              } else {
                assert.strictEqual(metrics.totalFailures, 2, at)
              }
            }
          }
          assert.isTrue(endless || interrupted > 1, `a probe that ${name} was interrupted ${interrupted} times`)
        }
      })
    }
  }

  it("also if a predicate throws, which is a failure and a defect", () => {
    const thrower = () => {
      throw new Error("in a predicate")
    }
    for (const [options, probe] of [
      [{ isFailure: thrower }, Effect.succeed(1)],
      [{ isExcluded: thrower }, Effect.fail("failed")]
    ] as const) {
      const { breaker, now } = halfOpen(options)
      const exit = now(Effect.exit(breaker.protect(probe)))
      assert.isTrue(Exit.isFailure(exit) && Cause.isDie(exit.cause))
      assert.deepInclude(now(breaker.metrics), { state: "Open", probes: 0, totalFailures: 2 })
    }
  })
})

describe("no more probes run than there are slots", () => {
  it("whoever comes between the steps of the others", () => {
    for (const padding of paddings) {
      for (const other of paddings) {
        const { breaker, now, runtime } = halfOpen({})
        let running = 0
        let most = 0
        const probe = Effect.zipRight(
          Effect.sync(() => {
            most = Math.max(most, ++running)
          }),
          Effect.zipRight(
            Effect.yieldNow(),
            Effect.sync(() => running--)
          )
        )
        for (const operations of [padding, other]) {
          runtime.fork(Effect.zipRight(Effect.yieldNow(), padded(operations, breaker.protect(probe))))
        }
        runtime.flush()
        assert.strictEqual(most, 1, `paddings ${padding} and ${other}`)
        const { probes, totalCalls, totalRejected } = now(breaker.metrics)
        assert.deepStrictEqual([probes, totalCalls + totalRejected], [0, 3])
      }
    }
  })
})

describe("interruption is neutral", () => {
  for (const [title, isFailure] of [
    ["", undefined],
    [", whose successes are watched", () => false]
  ] as const) {
    it.effect(`in a timeout around the breaker${title}: it is in no count`, () =>
      Effect.gen(function* () {
        const breaker = yield* CircuitBreaker.make({ target: "hanging", failureThreshold: 1, isFailure })
        yield* breaker.protect(Effect.void)
        const fiber = yield* Effect.fork(breaker.protect(Effect.never).pipe(Effect.timeoutOption("1 second")))
        const counts = {
          state: "Closed",
          totalCalls: 1,
          totalFailures: 0,
          totalSuccesses: 1,
          totalExcluded: 0
        } as const
        yield* TestClock.adjust("500 millis")
        assert.deepInclude(yield* breaker.metrics, counts)
        yield* TestClock.adjust("500 millis")
        assert.isTrue(Option.isNone(yield* Fiber.join(fiber)))
        assert.deepInclude(yield* breaker.metrics, counts)
      })
    )
  }
})
