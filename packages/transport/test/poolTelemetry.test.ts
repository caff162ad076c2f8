import { type AuditEvent, AuditLog, ConnectionPool, PeerDirectory, TransportMetrics } from "@agentweave/transport"
import { assert, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Metric, Scope, TestClock } from "effect"
import { settled } from "../../spiffe/test/support/settled.js"
import { FakeWire, identity } from "./fakeConnector.js"
import { a, b, hold } from "./fakePool.js"

/** A pool with an audit log. It closes with the test at the latest: the gauges are of all pools there are. */
const setup = (options: ConnectionPool.Options) =>
  Effect.gen(function* () {
    const events: Array<AuditEvent.AuditEvent> = []
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const context = yield* ConnectionPool.layer(options).pipe(
      Layer.provide(
        Layer.mergeAll(
          new FakeWire().layer,
          identity,
          PeerDirectory.layerTemplate("https://{1}.test"),
          AuditLog.layerMemory(events)
        )
      ),
      Layer.buildWithScope(scope)
    )
    return { events, pool: Context.get(context, ConnectionPool.ConnectionPool), close: Scope.close(scope, Exit.void) }
  })

/** In use, idle and waiting. Pools of other tests that this process still holds are in them too. */
const gauges = Effect.forEach(["inUse", "idle", "waiting"], (state) =>
  Effect.map(Metric.value(Metric.tagged(TransportMetrics.pool, "state", state)), ({ value }) => value)
)

it.scoped("a refused lease is on record once, with the limit that was reached", () =>
  Effect.gen(function* () {
    const { events, pool } = yield* setup({ maxConnectionsPerTarget: 1, maxTotalConnections: 2 })
    yield* TestClock.adjust(5)
    yield* hold(pool, a)
    yield* Effect.flip(hold(pool, a))
    yield* hold(pool, b)
    yield* Effect.flip(pool.client("spiffe://example.org/c").get("/"))
    assert.deepStrictEqual(events, [
      { _tag: "PoolExhausted", time: 5, targetId: a, limit: "Target", maxConnections: 1 },
      { _tag: "PoolExhausted", time: 5, targetId: "spiffe://example.org/c", limit: "Total", maxConnections: 2 }
    ])
  })
)

it.scoped("a leaked lease is on record once, with where it was taken, and the caller hears of it too", () =>
  Effect.gen(function* () {
    const told: Array<string> = []
    const { events, pool } = yield* setup({
      leakThreshold: "1 minute",
      cleanupInterval: "10 seconds",
      onLeak: ({ peer }) => Effect.sync(() => told.push(peer))
    })
    yield* Effect.withSpan(hold(pool, a), "invoices")
    yield* hold(pool, b)
    yield* TestClock.adjust("5 minutes")
    assert.deepInclude(events[0], { _tag: "LeaseLeaked", targetId: a, heldMillis: 60_000, origin: "invoices" })
    assert.include(events[1]?._tag === "LeaseLeaked" ? events[1].origin : "", "fakePool")
    assert.strictEqual(events.length, 2)
    assert.deepStrictEqual(told, [a, b])
  })
)

it.scoped("the gauges show what all pools together hold, each cleanup interval and whenever stats are asked for", () =>
  Effect.gen(function* () {
    const before = yield* gauges
    const held = Effect.map(gauges, (now) => now.map((count, i) => count - (before[i] ?? 0)))
    const first = yield* setup({ maxConnectionsPerTarget: 1, acquireTimeout: "1 hour", cleanupInterval: "10 seconds" })
    const second = yield* setup({ cleanupInterval: "10 seconds" })
    yield* hold(first.pool, a)
    const waiting = yield* Effect.fork(hold(first.pool, a))
    yield* hold(second.pool, a)
    yield* Effect.flatMap(hold(second.pool, b), ({ end }) => end)
    yield* settled
    assert.deepStrictEqual(yield* held, [0, 0, 0])
    yield* TestClock.adjust("10 seconds")
    assert.deepStrictEqual(yield* held, [2, 1, 1])
    yield* Effect.flatMap(hold(second.pool, "spiffe://example.org/c"), ({ end }) => end)
    yield* second.pool.stats
    assert.deepStrictEqual(yield* held, [2, 2, 1])
    yield* second.close
    assert.deepStrictEqual(yield* held, [1, 0, 1])
    yield* Fiber.interrupt(waiting)
    yield* first.close
    assert.deepStrictEqual(yield* held, [0, 0, 0])
  })
)

/** How many waited, and the sum of their waits in seconds, by outcome. */
const waits = Effect.map(
  Effect.forEach(["Leased", "Refused", "Withdrawn"], (outcome) =>
    Metric.value(Metric.tagged(TransportMetrics.poolWait, "outcome", outcome))
  ),
  (states) => states.map(({ count, sum }) => [count, sum] as const)
)

it.scoped("a wait is measured from the claim until the connection, the refusal or the interruption", () =>
  Effect.gen(function* () {
    const before = yield* waits
    const { pool } = yield* setup({ maxConnectionsPerTarget: 1, acquireTimeout: "8 seconds", maxWaiting: 2 })
    const first = yield* hold(pool, a)
    const served = yield* Effect.fork(hold(pool, a))
    const late = yield* Effect.fork(Effect.flip(hold(pool, a)))
    yield* settled
    // Who finds the queue full does not wait.
    yield* Effect.flip(hold(pool, a))
    yield* TestClock.adjust("2 seconds")
    yield* first.end
    yield* Fiber.join(served)
    const gone = yield* Effect.fork(hold(pool, a))
    yield* TestClock.adjust("3 seconds")
    yield* Fiber.interrupt(gone)
    yield* TestClock.adjust("5 seconds")
    yield* Fiber.join(late)
    const after = yield* waits
    assert.deepStrictEqual(
      after.map(([count, sum], i) => [count - (before[i]?.[0] ?? 0), Math.round((sum - (before[i]?.[1] ?? 0)) * 1000)]),
      [
        [1, 2_000],
        [1, 8_000],
        [1, 3_000]
      ]
    )
  })
)
