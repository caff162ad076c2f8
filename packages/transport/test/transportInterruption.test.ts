import {
  CircuitBreaker,
  CircuitBreakerRegistry,
  ConnectionPool,
  PeerDirectory,
  RetryBudget,
  RetryPolicy,
  Transport
} from "@agentweave/transport"
import type { HttpClient } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Scope } from "effect"
import { type FakeExchange, FakeWire, identity } from "./fakeConnector.js"
import { ManualRuntime } from "./manualRuntime.js"

const peer = "spiffe://example.org/a"

/** A composition on a runtime whose fibers yield all the time. */
const setup = (serve: (exchange: FakeExchange) => void, options: Transport.Options = {}) => {
  const runtime = new ManualRuntime(2)
  const now = <A>(effect: Effect.Effect<A, unknown>): A => {
    const fiber = runtime.fork(effect)
    runtime.flush()
    return Exit.getOrElse(fiber.unsafePoll() ?? Exit.die("it waits"), (cause) => assert.fail(String(cause)))
  }
  const wire = new FakeWire()
  wire.behaviour = { ...wire.behaviour, serve }
  const scope = now(Scope.make())
  const context = now(
    Transport.layer({
      breaker: { failureThreshold: 1_000_000 },
      retry: { maxRetries: 2, baseDelay: "10 millis", jitter: false },
      retryBudget: { ratio: 0, minRetriesPerSecond: 1 },
      ...options
    }).pipe(
      Layer.provide(Layer.mergeAll(wire.layer, identity, PeerDirectory.layerStatic({ [peer]: "https://a.test" }))),
      Layer.buildWithScope(scope)
    )
  )
  return {
    runtime,
    now,
    wire,
    client: now(Context.get(context, Transport.Transport).client(peer)),
    breaker: now(Context.get(context, CircuitBreakerRegistry.CircuitBreakerRegistry).get(peer)),
    pool: Context.get(context, ConnectionPool.ConnectionPool)
  }
}

const servers: Record<string, () => (exchange: FakeExchange) => void> = {
  "answers at once": () => (exchange) => exchange.respond("served"),
  "answers with 503 twice, and then serves": () => {
    let left = 2
    return (exchange) => exchange.respond("", left-- > 0 ? 503 : 200)
  },
  "breaks off once, and then serves": () => {
    let left = 1
    return (exchange) => (left-- > 0 ? exchange.breakOff() : exchange.respond("served"))
  },
  "never answers": () => () => {}
}

/** More than the longest of these requests has. */
const most = 1_600

/** Interrupts a request after each of its steps, until it has come to its end. All in one world, which each leaves whole. */
const atEachStep = (
  serve: () => (exchange: FakeExchange) => void,
  options: Transport.Options,
  check: (world: ReturnType<typeof setup>, at: string, interrupted: boolean) => void,
  clientOf: (world: ReturnType<typeof setup>) => HttpClient.HttpClient.With<unknown> = ({ client }) => client
): number => {
  const world = setup(serve(), options)
  const { runtime, wire } = world
  const client = clientOf(world)
  const hasEnd = serve !== servers["never answers"]
  let interrupted = 0
  for (let step = 0; step < most; step++) {
    wire.behaviour = { ...wire.behaviour, serve: serve() }
    const fiber = runtime.fork(Effect.flatMap(client.get("/"), (response) => response.text))
    // Each turn is one task, and time passes where nothing else can.
    for (let turn = 0; turn < step; turn++) {
      if (runtime.pending === 0) runtime.advance(10)
      runtime.flush(1)
    }
    const done = fiber.unsafePoll() !== null
    fiber.unsafeInterruptAsFork(fiber.id())
    runtime.flush()
    const exit = fiber.unsafePoll() ?? assert.fail(`step ${step}: goes on`)
    if (Exit.isInterrupted(exit)) interrupted++
    check(world, `interrupted at step ${step}`, Exit.isInterrupted(exit))
    if (done) return interrupted
  }
  assert.isFalse(hasEnd, `goes on after ${most} steps`)
  return interrupted
}

describe("a request of Transport.client that is interrupted at any of its steps", () => {
  for (const [what, serve] of Object.entries(servers)) {
    it(`leaves pool and breaker as they were, where the peer ${what}`, () => {
      let before = { calls: 0, ended: 0, exchanges: 0 }
      const steps = atEachStep(serve, {}, ({ breaker, now, pool, wire }, at) => {
        const stats = now(pool.stats)
        assert.deepInclude(stats, { inUse: 0, opening: 0, waiting: 0 }, at)
        assert.strictEqual(stats.totalConnections, wire.open.length, at)
        assert.deepStrictEqual(wire.faults, [], at)
        const metrics = now(breaker.metrics)
        assert.deepInclude(metrics, { state: "Closed", probes: 0, totalExcluded: 0 }, at)
        const after = {
          calls: metrics.totalCalls,
          ended: metrics.totalFailures + metrics.totalSuccesses,
          exchanges: wire.exchanges.length
        }
        // An attempt with an outcome is counted, one that was interrupted is not.
        assert.isAtMost(
          after.ended - before.ended,
          what === "never answers" ? 0 : after.exchanges - before.exchanges,
          at
        )
        assert.strictEqual(after.calls, after.ended, at)
        before = after
      })
      assert.isAbove(steps, 10)
    })
  }

  it("leaves a half-open breaker its probe", () => {
    let probed = 0
    atEachStep(
      () => (exchange) => exchange.respond("", 500),
      {
        breaker: { failureThreshold: 1, successThreshold: 1_000, halfOpenMaxCalls: 1, timeout: 10 },
        retry: { statuses: [] }
      },
      ({ breaker, now, runtime }, at) => {
        assert.strictEqual(now(breaker.metrics).probes, 0, at)
        // The next request finds it half-open: it fails by hand the first time, and by its 500 later.
        if (now(breaker.state) === "Closed") now(Effect.exit(breaker.protect(Effect.fail("down"))))
        runtime.advance(10)
        runtime.flush()
        assert.strictEqual(now(breaker.state), "HalfOpen", at)
        assert.strictEqual(now(breaker.protect(Effect.succeed("probe"))), "probe", at)
        probed++
      }
    )
    assert.isAbove(probed, 10)
  })
})

describe("a request that is interrupted at any of its steps, through a policy with a budget of its own", () => {
  for (const [what, serve] of Object.entries(servers)) {
    it(`brings the budget nothing and costs it nothing but the retries that started, where the peer ${what}`, () => {
      const seen = { ended: 0, succeeded: 0, retries: 0, balance: 100 }
      const parts = Effect.gen(function* () {
        const budget = yield* RetryBudget.make({ ratio: 1, minRetriesPerSecond: 1, ttl: "100 seconds" })
        const policy = yield* RetryPolicy.make({ maxRetries: 2, baseDelay: "10 millis", jitter: false, budget })
        return { budget, policy }
      })
      const made = setup(() => {}).now(parts)
      const steps = atEachStep(
        serve,
        {},
        ({ breaker, now }, at, interrupted) => {
          const { totalCalls, totalSuccesses } = now(breaker.metrics)
          const { retries } = now(made.policy.stats)
          const balance = now(made.budget.balance)
          const retried = retries - seen.retries
          const brought = balance - seen.balance + retried
          assert.include([0, 1], brought, at)
          if (interrupted && totalSuccesses === seen.succeeded) assert.strictEqual(brought, Math.min(1, retried), at)
          if (totalCalls === seen.ended) assert.deepStrictEqual([brought, retried], [0, 0], at)
          Object.assign(seen, { ended: totalCalls, succeeded: totalSuccesses, retries, balance })
        },
        ({ breaker, pool }) =>
          pool.client(peer).pipe(CircuitBreaker.withBreaker(breaker), RetryPolicy.withRetry(made.policy))
      )
      assert.isAbove(steps, 10)
    })
  }
})

describe("a retry that is interrupted while it waits", () => {
  it("costs no budget, at whatever step: what the budget lost are the retries that were made", () => {
    let waited = 0
    for (let step = 0; step < 200; step++) {
      const runtime = new ManualRuntime(2)
      const now = <A>(effect: Effect.Effect<A, unknown>): A => {
        const fiber = runtime.fork(effect)
        runtime.flush()
        return Exit.getOrElse(fiber.unsafePoll() ?? Exit.die("it waits"), (cause) => assert.fail(String(cause)))
      }
      const budget = now(RetryBudget.make({ ratio: 0, minRetriesPerSecond: 1 }))
      const policy = now(
        RetryPolicy.make({ maxRetries: 3, baseDelay: "10 millis", jitter: false, isRetryable: () => true, budget })
      )
      let attempts = 0
      const failing = Effect.suspend(() => {
        attempts++
        return Effect.fail("down")
      })
      const fiber = runtime.fork(policy.retry(failing))
      for (let turn = 0; turn < step; turn++) {
        if (runtime.pending === 0) runtime.advance(10)
        runtime.flush(1)
      }
      const done = fiber.unsafePoll() !== null
      fiber.unsafeInterruptAsFork(fiber.id())
      runtime.flush()
      const stats = now(policy.stats)
      assert.strictEqual(now(budget.balance), 10 - stats.retries, `step ${step}`)
      assert.isAtMost(attempts - 1, stats.retries, `step ${step}`)
      assert.isAtLeast(attempts, stats.retries, `step ${step}`)
      if (!done && stats.retries < 3) waited++
      if (done) break
    }
    assert.isAbove(waited, 10)
  })
})
