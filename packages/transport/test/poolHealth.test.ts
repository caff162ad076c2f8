import { ConnectionPool, PeerDirectory } from "@agentweave/transport"
import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Context, Deferred, Effect, Fiber, Layer, TestClock } from "effect"
import { settled } from "../../spiffe/test/support/settled.js"
import { FakeWire, identity } from "./fakeConnector.js"
import { a, b, hold, peek, setup, tag } from "./fakePool.js"

describe("health", () => {
  it.effect("a connection that the peer has closed is never handed out", () =>
    Effect.gen(function* () {
      const { pool, wire } = yield* setup()
      yield* pool.client(a).get("/1")
      wire.connections[0]?.close()
      assert.deepInclude(yield* pool.stats, { totalConnections: 0, totalCleanups: 1, targetCount: 0 })
      // What its connector kept for it is let go too.
      assert.strictEqual(wire.released, 1)
      yield* pool.client(a).get("/2")
      assert.strictEqual(wire.connections.length, 2)
    })
  )

  it.effect("a connection that takes no requests any more is not handed out, and goes at the next check", () =>
    Effect.gen(function* () {
      const { pool, wire } = yield* setup({ idleTimeout: "1 hour" }, { lingers: true })
      yield* pool.client(a).get("/1")
      wire.connections[0]?.unsafeRetire("Withdrawn")
      assert.deepInclude(yield* pool.stats, { idle: 1 })
      yield* TestClock.adjust("30 seconds")
      assert.deepInclude(yield* pool.stats, { idle: 0, totalConnections: 0 })
      wire.drain()
      yield* pool.client(a).get("/2")
      wire.connections[1]?.unsafeRetire("Withdrawn")
      wire.drain()
      yield* pool.client(a).get("/3")
      assert.deepStrictEqual(wire.faults, [])
    })
  )

  it.effect("a connection whose probe fails is closed, one whose probe succeeds stays idle", () =>
    Effect.gen(function* () {
      const { pool, wire } = yield* setup({
        idleTimeout: "1 hour",
        healthCheck: (channel) =>
          Effect.flatMap(channel.get("/health"), (_) => (_.status < 400 ? Effect.void : Effect.fail("sick")))
      })
      const [first, second] = [yield* hold(pool, a), yield* hold(pool, a)]
      yield* first.end
      yield* second.end
      wire.behaviour.serve = (exchange) => exchange.respond("", exchange.connection.id === "c1" ? 500 : 200)
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(
        wire.connections.map((_) => _.closed),
        ["Unhealthy", undefined]
      )
      assert.deepInclude(yield* pool.stats, { idle: 1, inUse: 0, totalConnections: 1, totalAcquisitions: 2 })
    })
  )

  it.effect("a probe does not make a connection look used", () =>
    Effect.gen(function* () {
      const { pool, wire } = yield* setup({ healthCheck: (channel) => channel.get("/health") })
      yield* pool.client(a).get("/")
      yield* TestClock.adjust("60 seconds")
      assert.deepStrictEqual(
        wire.connections.map((_) => _.closed),
        ["Idle"]
      )
      assert.isAtLeast(wire.exchanges.length, 2)
    })
  )

  it.effect("a connection is in use while it is probed, one of a peer at a time", () =>
    Effect.gen(function* () {
      const go = yield* Deferred.make<void>()
      const { pool } = yield* setup({ healthCheck: () => Deferred.await(go), maxConnectionsPerTarget: 2 })
      const held = [yield* hold(pool, a), yield* hold(pool, a), yield* hold(pool, b)]
      yield* Effect.forEach(held, ({ end }) => end)
      yield* TestClock.adjust("30 seconds")
      assert.deepInclude(yield* pool.stats, { idle: 1, inUse: 2 })
      yield* hold(pool, a)
      assert.strictEqual(tag(yield* Effect.flip(hold(pool, a))), "PoolExhaustedError")
      yield* Deferred.succeed(go, undefined)
      yield* settled
      assert.deepInclude(yield* pool.stats, { idle: 2, inUse: 1 })
    })
  )

  it.effect("a probe that takes longer than the interval counts as failed", () =>
    Effect.gen(function* () {
      const { pool, wire } = yield* setup({ healthCheck: () => Effect.never, idleTimeout: "1 hour" })
      yield* pool.client(a).get("/")
      yield* TestClock.adjust("60 seconds")
      assert.deepStrictEqual(
        wire.connections.map((_) => _.closed),
        ["Unhealthy"]
      )
      assert.deepInclude(yield* pool.stats, { totalConnections: 0 })
    })
  )

  it.effect("a probe that throws counts as failed, and the checks go on", () =>
    Effect.gen(function* () {
      const { pool, wire } = yield* setup({
        healthCheck: () => {
          throw new Error("broken probe")
        },
        idleTimeout: "1 hour"
      })
      yield* pool.client(a).get("/")
      yield* TestClock.adjust("30 seconds")
      yield* pool.client(a).get("/")
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(
        wire.connections.map((_) => _.closed),
        ["Unhealthy", "Unhealthy"]
      )
    })
  )
})

describe("the end of the pool", () => {
  it.effect("closes every connection, fails who waits or opens, and serves nobody any more", () =>
    Effect.gen(function* () {
      const { close, pool, wire } = yield* setup({ maxConnectionsPerTarget: 1, acquireTimeout: "1 minute" })
      const idle = yield* hold(pool, a)
      yield* idle.end
      const { channel, end } = yield* hold(pool, a)
      wire.behaviour.serve = () => {}
      const request = yield* Effect.fork(channel.get("/"))
      const waiting = yield* Effect.fork(hold(pool, a))
      wire.behaviour.connect = () => Effect.never
      const opening = yield* Effect.fork(pool.client(b).get("/"))
      yield* settled
      yield* close
      assert.deepInclude(yield* peek(waiting), { _tag: "PoolClosedError", targetId: a })
      assert.deepInclude(yield* peek(opening), { _tag: "PoolClosedError", targetId: b })
      assert.deepInclude(yield* peek(request), { _tag: "ConnectionError", outcome: "Unknown" })
      assert.deepInclude(yield* Effect.flip(hold(pool, a)), { _tag: "PoolClosedError", targetId: a })
      assert.deepInclude(yield* Effect.flip(pool.client(a).get("/")), { _tag: "PoolClosedError", targetId: a })
      assert.deepInclude(yield* Effect.flip(channel.get("/")), { _tag: "ScopeClosedError", reason: "Pool", target: a })
      assert.deepStrictEqual(
        wire.connections.map((_) => _.closed),
        ["Shutdown"]
      )
      assert.deepStrictEqual(wire.abandoned, ["b.test"])
      assert.strictEqual(wire.now, 0)
      yield* end
      assert.deepInclude(yield* pool.stats, { totalConnections: 0, waiting: 0, targetCount: 0 })
    })
  )

  it.effect("leases nothing any more while it waits for an attempt that takes its time to be given up", () =>
    Effect.gen(function* () {
      const { close, pool, wire } = yield* setup()
      yield* pool.client(a).get("/")
      wire.behaviour.connect = () => Effect.uninterruptible(Effect.sleep("1 second"))
      yield* Effect.fork(pool.client(b).get("/"))
      yield* settled
      const closing = yield* Effect.fork(close)
      yield* settled
      assert.strictEqual(tag(yield* Effect.flip(pool.client(a).get("/"))), "PoolClosedError")
      assert.strictEqual(tag(yield* Effect.flip(hold(pool, a))), "PoolClosedError")
      assert.strictEqual(wire.exchanges.length, 1)
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(closing)
      assert.strictEqual(wire.now, 0)
    })
  )

  it.effect("in the middle of a probe closes its connection too", () =>
    Effect.gen(function* () {
      const { close, pool, wire } = yield* setup({ healthCheck: () => Effect.never })
      yield* pool.client(a).get("/")
      yield* TestClock.adjust("30 seconds")
      yield* close
      assert.strictEqual(wire.now, 0)
    })
  )
})

describe("layers", () => {
  it.effect("layerConfig reads its options from Config", () =>
    Effect.gen(function* () {
      const wire = new FakeWire()
      const layer = ConnectionPool.layerConfig({
        maxConnectionsPerTarget: Config.integer("SIZE"),
        acquireTimeout: Config.duration("WAIT")
      }).pipe(
        Layer.provide(Layer.mergeAll(wire.layer, identity, PeerDirectory.layerTemplate("https://{1}.test"))),
        Layer.provide(
          Layer.setConfigProvider(
            ConfigProvider.fromMap(
              new Map([
                ["SIZE", "1"],
                ["WAIT", "2 seconds"]
              ])
            )
          )
        )
      )
      const pool = Context.get(yield* Layer.build(layer), ConnectionPool.ConnectionPool)
      yield* pool.acquire(a)
      const second = yield* Effect.fork(pool.acquire(a))
      yield* TestClock.adjust("2 seconds")
      assert.deepInclude(yield* Effect.flip(Fiber.join(second)), { _tag: "PoolExhaustedError", maxConnections: 1 })
    }).pipe(Effect.scoped)
  )

  it.effect("refuse a bad configuration with the field and the rule", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(setup({ maxConnectionsPerTarget: 0 }))
      assert.strictEqual(
        error.message,
        "PoolConfig.maxConnectionsPerTarget: expected an integer of at least 1 and at most 65535, got 0"
      )
      const other = yield* Effect.flip(setup({ transport: { timeout: 0 } }))
      assert.strictEqual(other.message, "TransportConfig.timeout: expected a positive, finite duration, got 0")
    })
  )
})
