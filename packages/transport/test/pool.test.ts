import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, FiberId, TestClock } from "effect"
import { settled } from "../../spiffe/test/support/settled.js"
import { refused } from "./fakeConnector.js"
import { a, b, c, hold, peek, setup, tag } from "./fakePool.js"

describe("ConnectionPool", () => {
  describe("limits", () => {
    it.effect("one lease is one connection, which the next lease uses again", () =>
      Effect.gen(function* () {
        const { pool, wire } = yield* setup()
        const first = yield* hold(pool, a)
        yield* first.channel.get("/1")
        yield* first.end
        const second = yield* hold(pool, a)
        const third = yield* hold(pool, a)
        yield* second.channel.get("/2")
        yield* third.channel.get("/3")
        assert.deepStrictEqual(
          wire.connections.map((_) => _.exchanges.map((_) => _.path)),
          [["/1", "/2"], ["/3"]]
        )
      })
    )

    it.effect("uses the connection again that was used last, so that the others can expire", () =>
      Effect.gen(function* () {
        const { pool, wire } = yield* setup()
        const [first, second] = [yield* hold(pool, a), yield* hold(pool, a)]
        yield* first.end
        yield* TestClock.adjust(1)
        yield* second.end
        yield* pool.withChannel(a, (channel) => channel.get("/"))
        assert.deepStrictEqual(
          wire.connections.map((_) => _.exchanges.length),
          [0, 1]
        )
      })
    )

    it.effect("fails at once with the peer's limit when all its connections are leased", () =>
      Effect.gen(function* () {
        const { pool } = yield* setup({ maxConnectionsPerTarget: 2 })
        yield* hold(pool, a)
        const second = yield* hold(pool, a)
        const error = yield* Effect.flip(hold(pool, a))
        assert.deepInclude(error, { _tag: "PoolExhaustedError", targetId: a, maxConnections: 2, limit: "Target" })
        yield* hold(pool, b)
        yield* second.end
        yield* hold(pool, a)
      })
    )

    it.effect("fails at once with the pool's limit when all connections are leased", () =>
      Effect.gen(function* () {
        const { pool } = yield* setup({ maxConnectionsPerTarget: 2, maxTotalConnections: 3 })
        yield* hold(pool, a)
        yield* hold(pool, a)
        yield* hold(pool, b)
        const error = yield* Effect.flip(hold(pool, b))
        assert.deepInclude(error, { _tag: "PoolExhaustedError", targetId: b, maxConnections: 3, limit: "Total" })
      })
    )

    it.effect("counts connections that are being opened", () =>
      Effect.gen(function* () {
        const { pool, wire } = yield* setup({ maxConnectionsPerTarget: 2 }, { connect: () => Effect.sleep("1 second") })
        const fibers = [yield* Effect.fork(hold(pool, a)), yield* Effect.fork(hold(pool, a))]
        yield* settled
        assert.strictEqual(tag(yield* Effect.flip(hold(pool, a))), "PoolExhaustedError")
        assert.deepInclude(yield* pool.stats, { totalConnections: 2, opening: 2, inUse: 0 })
        yield* TestClock.adjust("1 second")
        yield* Fiber.joinAll(fibers)
        assert.deepInclude(yield* pool.stats, { totalConnections: 2, opening: 0, inUse: 2 })
        assert.strictEqual(wire.attempts.length, 2)
      })
    )

    it.effect("makes room at the total limit: the longest idle connection of another peer goes", () =>
      Effect.gen(function* () {
        const { pool, wire } = yield* setup({ maxConnectionsPerTarget: 2, maxTotalConnections: 2 })
        const [first, second] = [yield* hold(pool, a), yield* hold(pool, b)]
        yield* second.end
        yield* TestClock.adjust("1 second")
        yield* first.end
        yield* hold(pool, c)
        assert.deepStrictEqual(
          wire.connections.map((_) => [_.host, _.closed]),
          [
            ["a.test", undefined],
            ["b.test", "Evicted"],
            ["c.test", undefined]
          ]
        )
        assert.strictEqual(wire.peak, 2)
      })
    )

    it.effect("opens no connection before the one it replaces is off the wire", () =>
      Effect.gen(function* () {
        const { pool, wire } = yield* setup({ maxConnectionsPerTarget: 1, maxTotalConnections: 1 }, { lingers: true })
        yield* Effect.flatMap(hold(pool, a), ({ end }) => end)
        const second = yield* Effect.fork(hold(pool, b))
        assert.strictEqual(yield* peek(second), "running")
        assert.deepStrictEqual(wire.attempts, ["a.test"])
        wire.drain()
        yield* Fiber.join(second)
        assert.strictEqual(wire.peak, 1)
      })
    )

    it.effect("counts a connection that is closing for its peer too", () =>
      Effect.gen(function* () {
        const { pool, wire } = yield* setup({ maxConnectionsPerTarget: 1 }, { lingers: true })
        yield* pool.client(a).get("/")
        yield* pool.invalidate(a)
        const second = yield* Effect.fork(pool.client(a).get("/"))
        assert.strictEqual(yield* peek(second), "running")
        wire.drain()
        yield* Fiber.join(second)
        assert.strictEqual(wire.peakPerHost, 1)
      })
    )

    it.effect("gives up on a connection that does not leave the wire", () =>
      Effect.gen(function* () {
        const { pool, wire } = yield* setup(
          { maxConnectionsPerTarget: 1, maxTotalConnections: 1, transport: { connectTimeout: "3 seconds" } },
          { lingers: true }
        )
        yield* Effect.flatMap(hold(pool, a), ({ end }) => end)
        const second = yield* Effect.fork(hold(pool, b))
        yield* TestClock.adjust("3 seconds")
        assert.deepInclude(yield* peek(second), { _tag: "TimeoutError", phase: "Acquire", outcome: "NotSent" })
        wire.drain()
        yield* hold(pool, b)
        assert.strictEqual(wire.peak, 1)
      })
    )

    it.effect("a fiber interrupted while it waits for the wire takes no place on it", () =>
      Effect.gen(function* () {
        const { pool, wire } = yield* setup({ maxConnectionsPerTarget: 1, maxTotalConnections: 1 }, { lingers: true })
        yield* Effect.flatMap(hold(pool, a), ({ end }) => end)
        const second = yield* Effect.fork(hold(pool, b))
        yield* settled
        yield* Fiber.interrupt(second)
        wire.drain()
        assert.strictEqual(wire.now, 0)
        yield* hold(pool, c)
      })
    )
  })

  describe("an attempt to open", () => {
    it.effect("that fails gives its error to the one who made it, and its place to the next", () =>
      Effect.gen(function* () {
        const { pool, wire } = yield* setup(
          { maxConnectionsPerTarget: 1, acquireTimeout: "1 minute" },
          { connect: () => Effect.zipRight(Effect.sleep("1 second"), Effect.fail(refused())) }
        )
        const fibers = yield* Effect.forEach([1, 2, 3], () => Effect.fork(hold(pool, a)))
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual((yield* Effect.forEach(fibers, peek)).map(tag), [
          "ConnectionError",
          "running",
          "running"
        ])
        wire.behaviour.connect = () => Effect.void
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual((yield* Effect.forEach(fibers, peek)).map(tag).slice(0, 2), [
          "ConnectionError",
          "ConnectionError"
        ])
        assert.property(yield* peek(fibers[2] as never), "channel")
        assert.strictEqual(wire.peak, 1)
      })
    )

    it.effect("that is interrupted is abandoned, and its place goes to the next", () =>
      Effect.gen(function* () {
        const { pool, wire } = yield* setup(
          { maxConnectionsPerTarget: 1, acquireTimeout: "1 minute" },
          { connect: () => Effect.sleep("1 second") }
        )
        const first = yield* Effect.fork(hold(pool, a))
        yield* settled
        const second = yield* Effect.fork(hold(pool, a))
        yield* settled
        yield* Fiber.interrupt(first)
        assert.deepStrictEqual(wire.abandoned, ["a.test"])
        yield* TestClock.adjust("1 second")
        assert.property(yield* peek(second), "channel")
      })
    )

    it.effect("that is interrupted is abandoned at once, whatever its fiber still has to do", () =>
      Effect.gen(function* () {
        const { pool, wire } = yield* setup({}, { connect: () => Effect.never })
        const fiber = yield* Effect.fork(Effect.ensuring(pool.client(a).get("/"), Effect.sleep("1 second")))
        yield* settled
        yield* Fiber.interruptFork(fiber)
        yield* settled
        assert.strictEqual(fiber.unsafePoll(), null)
        assert.deepStrictEqual(wire.abandoned, ["a.test"])
        assert.deepInclude(yield* pool.stats, { totalConnections: 0 })
        yield* TestClock.adjust("1 second")
      })
    )

    it.effect("that succeeds with a connection that is dead already fails typed", () =>
      Effect.gen(function* () {
        const { pool, wire } = yield* setup(
          { maxConnectionsPerTarget: 1, maxTotalConnections: 1 },
          { lingers: true, onCreated: (connection) => connection.close() }
        )
        const error = yield* Effect.flip(hold(pool, a))
        assert.deepInclude(error, { _tag: "ConnectionError", reason: "Closed", outcome: "NotSent" })
        assert.deepInclude(yield* pool.stats, { totalConnections: 0 })
        // It left the wire once: the limits hold as before.
        wire.behaviour.onCreated = () => {}
        yield* Effect.flatMap(hold(pool, a), ({ end }) => end)
        const other = yield* Effect.fork(hold(pool, b))
        assert.strictEqual(yield* peek(other), "running")
        assert.strictEqual(wire.peak, 1)
      })
    )

    it.effect("that has no address or no valid ID makes no connection", () =>
      Effect.gen(function* () {
        const { pool, wire } = yield* setup()
        assert.deepInclude(yield* Effect.flip(hold(pool, "spiffe://example.org/A")), {
          _tag: "ConnectionError",
          reason: "NoAddress"
        })
        assert.strictEqual(tag(yield* Effect.flip(hold(pool, "https://a.test"))), "InvalidSpiffeIdError")
        assert.strictEqual(tag(yield* Effect.flip(pool.client("nobody").get("/"))), "InvalidSpiffeIdError")
        assert.strictEqual(tag(yield* Effect.flip(pool.withChannel("", () => Effect.void))), "InvalidSpiffeIdError")
        assert.deepStrictEqual(wire.attempts, [])
        assert.deepInclude(yield* pool.stats, { totalConnections: 0, targetCount: 0 })
      })
    )
  })

  describe("waiting", () => {
    it.effect("is first come, first served", () =>
      Effect.gen(function* () {
        const { pool } = yield* setup({ maxConnectionsPerTarget: 1, acquireTimeout: "1 minute" })
        const order: Array<number> = []
        const first = yield* hold(pool, a)
        const fibers = yield* Effect.forEach([1, 2, 3], (n) =>
          Effect.fork(pool.withChannel(a, () => Effect.sync(() => order.push(n))))
        )
        yield* settled
        const { peers, waiting } = yield* pool.stats
        assert.strictEqual(waiting, 3)
        assert.deepStrictEqual(peers, { [a]: { inUse: 1, idle: 0, opening: 0, waiting: 3 } })
        yield* first.end
        yield* Fiber.joinAll(fibers)
        assert.deepStrictEqual(order, [1, 2, 3])
      })
    )

    it.effect("is fair between peers: who waits longest for room gets it, even if a connection must be closed", () =>
      Effect.gen(function* () {
        const { pool, wire } = yield* setup({
          maxConnectionsPerTarget: 1,
          maxTotalConnections: 1,
          acquireTimeout: "1 minute"
        })
        const held = yield* hold(pool, a)
        const fiberB = yield* Effect.fork(hold(pool, b))
        yield* settled
        const fiberA = yield* Effect.fork(hold(pool, a))
        yield* settled
        yield* held.end
        assert.property(yield* peek(fiberB), "channel")
        assert.strictEqual(yield* peek(fiberA), "running")
        assert.strictEqual(wire.connections[0]?.closed, "Evicted")
      })
    )

    it.effect("ends at the timeout with the limit that was in the way", () =>
      Effect.gen(function* () {
        const { pool } = yield* setup({
          maxConnectionsPerTarget: 1,
          maxTotalConnections: 2,
          acquireTimeout: "5 seconds"
        })
        yield* hold(pool, a)
        yield* hold(pool, b)
        const first = yield* Effect.fork(hold(pool, a))
        yield* TestClock.adjust("3 seconds")
        const second = yield* Effect.fork(hold(pool, c))
        yield* TestClock.adjust("1999 millis")
        assert.strictEqual(yield* peek(first), "running")
        yield* TestClock.adjust("1 millis")
        assert.deepInclude(yield* peek(first), { _tag: "PoolExhaustedError", limit: "Target", maxConnections: 1 })
        assert.strictEqual(yield* peek(second), "running")
        yield* TestClock.adjust("3 seconds")
        assert.deepInclude(yield* peek(second), { _tag: "PoolExhaustedError", limit: "Total", maxConnections: 2 })
        assert.deepInclude(yield* pool.stats, { waiting: 0, targetCount: 2 })
      })
    )

    it.effect("is bounded by maxWaiting", () =>
      Effect.gen(function* () {
        const { pool } = yield* setup({ maxConnectionsPerTarget: 1, acquireTimeout: "5 seconds", maxWaiting: 1 })
        yield* hold(pool, a)
        const first = yield* Effect.fork(hold(pool, a))
        yield* settled
        const error = yield* Effect.flip(hold(pool, a))
        assert.deepInclude(error, { _tag: "PoolExhaustedError", limit: "Waiting", maxConnections: 1 })
        assert.strictEqual(yield* peek(first), "running")
      })
    )

    it.effect("can be interrupted: the fiber leaves the queue", () =>
      Effect.gen(function* () {
        const { pool } = yield* setup({ maxConnectionsPerTarget: 1, acquireTimeout: "1 minute" })
        const held = yield* hold(pool, a)
        const first = yield* Effect.fork(hold(pool, a))
        const second = yield* Effect.fork(hold(pool, a))
        yield* settled
        yield* Fiber.interrupt(first)
        assert.strictEqual((yield* pool.stats).waiting, 1)
        yield* held.end
        assert.property(yield* peek(second), "channel")
      })
    )

    it.effect("a hand-over to a fiber that is interrupted in the same moment goes on to the next", () =>
      Effect.gen(function* () {
        const { pool } = yield* setup({ maxConnectionsPerTarget: 1, acquireTimeout: "1 minute" })
        const held = yield* hold(pool, a)
        const first = yield* Effect.fork(hold(pool, a))
        yield* settled
        const second = yield* Effect.fork(hold(pool, a))
        yield* settled
        yield* Effect.zipRight(
          held.end,
          Effect.sync(() => first.unsafeInterruptAsFork(FiberId.none))
        )
        assert.strictEqual(yield* peek(first), "interrupted")
        assert.property(yield* peek(second), "channel")
      })
    )
  })
})
