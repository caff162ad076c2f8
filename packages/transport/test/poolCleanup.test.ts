import type { ConnectionPool } from "@agentweave/transport"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Logger, TestClock } from "effect"
import { settled } from "../../spiffe/test/support/settled.js"
import type { FakeExchange } from "./fakeConnector.js"
import { a, b, hold, peek, setup, tag } from "./fakePool.js"

const warnings = () => {
  const messages: Array<string> = []
  const layer = Logger.replace(
    Logger.defaultLogger,
    Logger.make(({ annotations, message }) => {
      messages.push([String(message), ...Array.from(annotations, ([key, value]) => `${key}=${value}`)].join("\n"))
    })
  )
  return { messages, layer }
}

describe("cleanup", () => {
  it.effect("closes connections that were idle for the idle timeout, at the next round", () =>
    Effect.gen(function* () {
      const { pool, wire } = yield* setup({ idleTimeout: "25 seconds", cleanupInterval: "10 seconds" })
      const first = yield* hold(pool, a)
      yield* TestClock.adjust("2 seconds")
      yield* first.end
      const second = yield* hold(pool, b)
      yield* TestClock.adjust("27 seconds")
      assert.deepInclude(yield* pool.stats, { idle: 1, inUse: 1, totalCleanups: 0 })
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(
        wire.connections.map((_) => _.closed),
        ["Idle", undefined]
      )
      assert.deepInclude(yield* pool.stats, {
        idle: 0,
        inUse: 1,
        totalCleanups: 1,
        poolSizes: { [b]: 1 },
        peers: { [b]: { inUse: 1, idle: 0, opening: 0, waiting: 0 } },
        targetCount: 1
      })
      yield* second.end
    })
  )

  it.effect("closes idle connections that lived for their maximum lifetime", () =>
    Effect.gen(function* () {
      const { pool, wire } = yield* setup({ maxLifetime: "25 seconds", cleanupInterval: "10 seconds" })
      yield* pool.client(a).get("/")
      yield* TestClock.adjust("20 seconds")
      yield* pool.client(a).get("/")
      assert.strictEqual(wire.open.length, 1)
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(
        wire.connections.map((_) => _.closed),
        ["Age"]
      )
    })
  )

  it.effect("a connection past its maximum lifetime is not leased again, and a lease may outlive it", () =>
    Effect.gen(function* () {
      const { pool, wire } = yield* setup({ maxLifetime: "25 seconds", cleanupInterval: "1 hour" })
      const { channel, end } = yield* hold(pool, a)
      yield* TestClock.adjust("24 seconds")
      yield* end
      yield* TestClock.adjust("1 second")
      const second = yield* hold(pool, a)
      assert.deepStrictEqual(
        wire.connections.map((_) => _.closed),
        ["Age", undefined]
      )
      yield* TestClock.adjust("25 seconds")
      assert.strictEqual((yield* second.channel.get("/")).status, 200)
      yield* second.end
      assert.deepStrictEqual(
        wire.connections.map((_) => _.closed),
        ["Age", "Age"]
      )
      assert.strictEqual(tag(yield* Effect.flip(channel.get("/"))), "ScopeClosedError")
    })
  )

  it.effect("reports a lease that is held for too long, once, with the place that took it", () =>
    Effect.gen(function* () {
      const { layer, messages } = warnings()
      const leaks: Array<ConnectionPool.Leak> = []
      const { pool } = yield* setup({
        leakThreshold: "15 seconds",
        cleanupInterval: "10 seconds",
        onLeak: (leak) => Effect.sync(() => leaks.push(leak))
      }).pipe(Effect.provide(layer))
      yield* Effect.flatMap(hold(pool, a), ({ end }) => end)
      const leakyFunction = () => hold(pool, b)
      const { end } = yield* Effect.withSpan(leakyFunction(), "leaky span")
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(leaks, [])
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(leaks.length, 1)
      assert.deepInclude(leaks[0] ?? {}, { peer: b, span: "leaky span", heldFor: Duration.seconds(20) })
      assert.include(leaks[0]?.stack, "fakePool.ts")
      assert.strictEqual(messages.length, 1)
      assert.include(messages[0], `a connection to ${b} is leased for 20s already`)
      assert.include(messages[0], "span=leaky span")
      yield* end
    })
  )

  it.effect("reports a request whose response is never read, with the place that made it", () =>
    Effect.gen(function* () {
      const leaks: Array<ConnectionPool.Leak> = []
      const { pool } = yield* setup(
        { leakThreshold: "15 seconds", onLeak: (leak) => Effect.sync(() => leaks.push(leak)) },
        { serve: (exchange) => exchange.start() }
      ).pipe(Effect.provide(warnings().layer))
      const response = yield* pool.client(a).get("/")
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(leaks.length, 1)
      assert.include(leaks[0]?.stack, "poolCleanup.test.ts")
      // Held until here: the body of a response that is collected as garbage is given up, and its connection comes back.
      assert.strictEqual(response.status, 200)
    })
  )

  it.effect("of a request that waited it names the span of the request, whoever gave the connection back", () =>
    Effect.gen(function* () {
      const leaks: Array<ConnectionPool.Leak> = []
      const exchanges: Array<FakeExchange> = []
      const { pool } = yield* setup(
        {
          maxConnectionsPerTarget: 1,
          acquireTimeout: "1 minute",
          leakThreshold: "15 seconds",
          onLeak: (leak) => Effect.sync(() => leaks.push(leak))
        },
        { serve: (exchange) => exchanges.push(exchange) }
      ).pipe(Effect.provide(warnings().layer))
      for (const name of ["first", "second"]) {
        yield* Effect.fork(Effect.withSpan(pool.client(a).get(`/${name}`), name))
        yield* settled
      }
      yield* Effect.withSpan(
        Effect.sync(() => exchanges[0]?.respond()),
        "somebody else"
      )
      assert.deepStrictEqual(
        exchanges.map(({ path }) => path),
        ["/first", "/second"]
      )
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(
        leaks.map(({ span }) => span),
        ["second"]
      )
    })
  )

  it.effect("goes on when the hook fails", () =>
    Effect.gen(function* () {
      const { layer, messages } = warnings()
      const { pool, wire } = yield* setup({
        leakThreshold: "5 seconds",
        idleTimeout: "15 seconds",
        onLeak: () => Effect.die("broken hook")
      }).pipe(Effect.provide(layer))
      yield* hold(pool, a)
      yield* pool.client(a).get("/")
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual(messages.filter((_) => _.includes("maintenance of the connection pool failed")).length, 1)
      assert.deepStrictEqual(
        wire.connections.map((_) => _.closed),
        [undefined, "Idle"]
      )
    })
  )
})

describe("invalidation", () => {
  it.effect("closes a peer's idle connections at once and leased ones with their lease", () =>
    Effect.gen(function* () {
      const { pool, wire } = yield* setup()
      const [first, second, other] = [yield* hold(pool, a), yield* hold(pool, a), yield* hold(pool, b)]
      yield* first.end
      yield* other.end
      yield* pool.invalidate(a)
      assert.deepStrictEqual(
        wire.connections.map((_) => _.closed),
        ["Invalidated", undefined, undefined]
      )
      assert.strictEqual((yield* second.channel.get("/")).status, 200)
      yield* second.end
      assert.deepStrictEqual(
        wire.connections.map((_) => _.closed),
        ["Invalidated", "Invalidated", undefined]
      )
      assert.deepInclude(yield* pool.stats, { idle: 1, totalConnections: 1 })
    })
  )

  it.effect("closes one connection with its lease", () =>
    Effect.gen(function* () {
      const { pool, wire } = yield* setup()
      const [first, second] = [yield* hold(pool, a), yield* hold(pool, a)]
      yield* pool.invalidateChannel(first.channel)
      yield* Effect.all([first.end, second.end])
      assert.deepStrictEqual(
        wire.connections.map((_) => _.closed),
        ["Invalidated", undefined]
      )
    })
  )

  it.effect("a connection that is being opened is used once", () =>
    Effect.gen(function* () {
      const { pool, wire } = yield* setup({}, { connect: () => Effect.sleep("1 second") })
      const fiber = yield* Effect.fork(pool.client(a).get("/"))
      yield* settled
      yield* pool.invalidate(a)
      yield* TestClock.adjust("1 second")
      assert.deepInclude(yield* peek(fiber), { status: 200 })
      assert.deepStrictEqual(
        wire.connections.map((_) => _.closed),
        ["Invalidated"]
      )
    })
  )

  it.effect("closeAll closes everything and leaves the pool open", () =>
    Effect.gen(function* () {
      const { pool, wire } = yield* setup()
      const [first, second] = [yield* hold(pool, a), yield* hold(pool, b)]
      yield* first.end
      yield* pool.closeAll
      yield* second.end
      assert.deepStrictEqual(
        wire.connections.map((_) => _.closed),
        ["Invalidated", "Invalidated"]
      )
      yield* hold(pool, a)
    })
  )
})
