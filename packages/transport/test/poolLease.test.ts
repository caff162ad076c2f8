import { HttpClient, HttpClientRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Chunk, Effect, Exit, Fiber, FiberId, Stream, TestClock } from "effect"
import { settled } from "../../spiffe/test/support/settled.js"
import { type FakeExchange, refused } from "./fakeConnector.js"
import { a, hold, peek, setup, tag } from "./fakePool.js"

/** A peer that answers when told to. */
const patient = () => {
  const exchanges: Array<FakeExchange> = []
  return { exchanges, serve: (exchange: FakeExchange) => void exchanges.push(exchange) }
}

describe("a lease", () => {
  it.effect("withChannel gives the connection back whatever comes of it", () =>
    Effect.gen(function* () {
      const { pool, wire } = yield* setup({ maxConnectionsPerTarget: 1 })
      assert.strictEqual(yield* pool.withChannel(a, (channel) => Effect.succeed(channel.peerSpiffeId)), a)
      assert.strictEqual(yield* Effect.flip(pool.withChannel(a, () => Effect.fail("no"))), "no")
      const died = yield* Effect.exit(pool.withChannel(a, () => Effect.die("oh")))
      assert.deepStrictEqual(died, Exit.die("oh"))
      const thrown = yield* Effect.exit(
        pool.withChannel(a, (): Effect.Effect<void> => {
          throw new Error("thrown")
        })
      )
      assert.isTrue(Exit.isFailure(thrown) && Cause.isDie(thrown.cause))
      const fiber = yield* Effect.fork(pool.withChannel(a, () => Effect.never))
      yield* settled
      assert.deepInclude(yield* pool.stats, { inUse: 1, idle: 0 })
      yield* Fiber.interrupt(fiber)
      assert.deepInclude(yield* pool.stats, { inUse: 0, idle: 1, totalAcquisitions: 5 })
      assert.strictEqual(wire.attempts.length, 1)
    })
  )

  it.effect("acquire gives the connection back when the scope closes", () =>
    Effect.gen(function* () {
      const { pool } = yield* setup()
      yield* Effect.scoped(
        Effect.gen(function* () {
          const channel = yield* pool.acquire(a)
          assert.strictEqual(yield* channel.mySpiffeId, "spiffe://example.org/me")
          assert.strictEqual(channel.peerSpiffeId, a)
          assert.strictEqual(yield* Effect.flatMap(channel.request("PUT", "/x"), (_) => _.text), "/x")
          assert.deepInclude(yield* pool.stats, { inUse: 1, idle: 0 })
        })
      )
      assert.deepInclude(yield* pool.stats, { inUse: 0, idle: 1 })
    })
  )

  it.effect("its channel is an HttpClient with all its combinators", () =>
    Effect.gen(function* () {
      const { pool, wire } = yield* setup()
      const text = yield* pool.withChannel(a, (channel) => {
        const client = channel.pipe(
          HttpClient.mapRequest(HttpClientRequest.prependUrl("/api")),
          HttpClient.filterStatusOk
        )
        return Effect.flatMap(client.post("/x"), (response) => response.text)
      })
      assert.strictEqual(text, "/api/x")
      assert.strictEqual(wire.exchanges[0]?.exchange.request.method, "POST")
      const { channel } = yield* hold(pool, a)
      assert.strictEqual(yield* Effect.flatMap(HttpClientRequest.get("/y").pipe(channel.execute), (_) => _.text), "/y")
    })
  )

  it.effect("runs its requests one at a time, first come first", () =>
    Effect.gen(function* () {
      const { exchanges, serve } = patient()
      const { pool, wire } = yield* setup({}, { serve })
      const { channel } = yield* hold(pool, a)
      const fibers = yield* Effect.forEach(["/1", "/2", "/3", "/4"], (path) => Effect.fork(channel.get(path)))
      yield* settled
      assert.deepStrictEqual(
        exchanges.map((_) => _.path),
        ["/1"]
      )
      yield* Fiber.interrupt(fibers[2] as never)
      exchanges[0]?.respond()
      yield* settled
      assert.deepStrictEqual(
        exchanges.map((_) => _.path),
        ["/1", "/2"]
      )
      exchanges[1]?.respond()
      yield* settled
      assert.deepStrictEqual(
        exchanges.map((_) => _.path),
        ["/1", "/2", "/4"]
      )
      assert.deepStrictEqual(wire.faults, [])
    })
  )

  it.effect(
    "a turn given to a request that is being interrupted goes on to the next, and the request is not sent",
    () =>
      Effect.gen(function* () {
        const { exchanges, serve } = patient()
        const { pool } = yield* setup({}, { serve })
        const { channel } = yield* hold(pool, a)
        const fibers = yield* Effect.forEach(["/1", "/2", "/3"], (path) => Effect.fork(channel.get(path)))
        yield* settled
        fibers[1]?.unsafeInterruptAsFork(FiberId.none)
        exchanges[0]?.respond()
        yield* settled
        assert.deepStrictEqual(
          exchanges.map((_) => _.path),
          ["/1", "/3"]
        )
      })
  )

  it.effect("opens another connection in its place when its own has ended", () =>
    Effect.gen(function* () {
      const { pool, wire } = yield* setup({ maxConnectionsPerTarget: 1 })
      const { channel, end } = yield* hold(pool, a)
      wire.connections[0]?.close()
      assert.deepInclude(yield* pool.stats, { totalConnections: 1, inUse: 1 })
      yield* channel.get("/again")
      assert.deepStrictEqual(
        wire.connections.map((_) => _.exchanges.map((_) => _.path)),
        [[], ["/again"]]
      )
      yield* end
      assert.deepInclude(yield* pool.stats, { idle: 1, totalConnections: 1, totalCreations: 2, totalCleanups: 1 })
    })
  )

  it.effect("keeps its place when another connection cannot be opened, and tries again for the next request", () =>
    Effect.gen(function* () {
      const { pool, wire } = yield* setup({ maxConnectionsPerTarget: 1 })
      const { channel, end } = yield* hold(pool, a)
      wire.connections[0]?.close()
      wire.behaviour.connect = () => Effect.fail(refused())
      assert.strictEqual(tag(yield* Effect.flip(channel.get("/1"))), "ConnectionError")
      assert.strictEqual(tag(yield* Effect.flip(hold(pool, a))), "PoolExhaustedError")
      wire.behaviour.connect = () => Effect.void
      yield* channel.get("/2")
      yield* end
      assert.deepInclude(yield* pool.stats, { idle: 1, totalConnections: 1 })
    })
  )

  it.effect("frees its place when it ends without a connection", () =>
    Effect.gen(function* () {
      const { pool, wire } = yield* setup({ maxConnectionsPerTarget: 1 })
      const { end } = yield* hold(pool, a)
      wire.connections[0]?.close()
      yield* end
      assert.deepInclude(yield* pool.stats, { totalConnections: 0, targetCount: 0 })
    })
  )

  it.effect("its channel is of no use afterwards", () =>
    Effect.gen(function* () {
      const { exchanges, serve } = patient()
      const { pool } = yield* setup({ maxConnectionsPerTarget: 1 }, { serve })
      const { channel, end } = yield* hold(pool, a)
      const running = yield* Effect.fork(channel.get("/1"))
      const waiting = yield* Effect.fork(channel.get("/2"))
      yield* settled
      yield* end
      assert.deepInclude(yield* peek(waiting), { _tag: "ScopeClosedError", reason: "Lease" })
      assert.deepInclude(yield* Effect.flip(channel.get("/3")), { _tag: "ScopeClosedError", reason: "Lease" })
      assert.strictEqual(yield* peek(running), "running")
      exchanges[0]?.respond("late")
      assert.strictEqual(yield* Effect.flatMap(Fiber.join(running), (_) => _.text), "late")
      assert.deepStrictEqual(
        exchanges.map((_) => _.path),
        ["/1"]
      )
      assert.deepInclude(yield* Effect.flip(channel.get("/4")), { _tag: "ScopeClosedError", reason: "Lease" })
      assert.deepInclude(yield* pool.stats, { idle: 1, inUse: 0 })
    })
  )

  it.effect("ended during a response it goes back when the body has been received", () =>
    Effect.gen(function* () {
      const { exchanges, serve } = patient()
      const { pool } = yield* setup({ maxConnectionsPerTarget: 1 }, { serve })
      const fiber = yield* Effect.fork(pool.withChannel(a, (channel) => channel.get("/")))
      yield* settled
      exchanges[0]?.start()
      const response = yield* Fiber.join(fiber)
      assert.deepInclude(yield* pool.stats, { inUse: 1, idle: 0 })
      exchanges[0]?.end("all of it")
      assert.strictEqual(yield* response.text, "all of it")
      assert.deepInclude(yield* pool.stats, { inUse: 0, idle: 1 })
    })
  )
})

describe("client", () => {
  it.effect("leases a connection for each request, and several for several at a time", () =>
    Effect.gen(function* () {
      const { pool, wire } = yield* setup()
      const client = pool.client(a)
      assert.deepInclude(yield* pool.stats, { targetCount: 0, totalConnections: 0 })
      yield* client.get("/1")
      yield* client.get("/2")
      assert.strictEqual(wire.connections.length, 1)
      wire.behaviour.serve = () => {}
      yield* Effect.fork(client.get("/3"))
      yield* Effect.fork(client.get("/4"))
      yield* settled
      assert.strictEqual(wire.connections.length, 2)
      assert.deepInclude(yield* pool.stats, { inUse: 2, totalAcquisitions: 4 })
    })
  )

  it.effect("the lease lasts until the body has been read", () =>
    Effect.gen(function* () {
      const { exchanges, serve } = patient()
      const { pool } = yield* setup({ maxConnectionsPerTarget: 1 }, { serve })
      const fiber = yield* Effect.fork(pool.client(a).get("/"))
      yield* settled
      exchanges[0]?.start()
      const response = yield* Fiber.join(fiber)
      assert.deepInclude(yield* pool.stats, { inUse: 1, idle: 0 })
      const body = yield* Effect.fork(Stream.runCollect(Stream.decodeText(response.stream)))
      exchanges[0]?.push("part")
      yield* settled
      assert.deepInclude(yield* pool.stats, { inUse: 1, idle: 0 })
      exchanges[0]?.end(" and rest")
      assert.strictEqual(Chunk.join(yield* Fiber.join(body), ""), "part and rest")
      assert.deepInclude(yield* pool.stats, { inUse: 0, idle: 1 })
    })
  )

  it.effect("the lease lasts until the body has failed", () =>
    Effect.gen(function* () {
      const { exchanges, serve } = patient()
      const { pool } = yield* setup({}, { serve })
      const fiber = yield* Effect.fork(pool.client(a).get("/"))
      yield* settled
      exchanges[0]?.start()
      const response = yield* Fiber.join(fiber)
      exchanges[0]?.breakOff()
      assert.strictEqual(tag(yield* Effect.flip(response.text)), "ResponseError")
      assert.deepInclude(yield* pool.stats, { totalConnections: 0 })
    })
  )

  it.effect("the lease lasts until the body was dropped by its reader", () =>
    Effect.gen(function* () {
      const { exchanges, serve } = patient()
      const { pool, wire } = yield* setup({}, { serve })
      const fiber = yield* Effect.fork(pool.client(a).get("/"))
      yield* settled
      exchanges[0]?.start()
      const response = yield* Fiber.join(fiber)
      exchanges[0]?.push("one")
      yield* Stream.runDrain(Stream.take(response.stream, 1))
      assert.isTrue(exchanges[0]?.aborted)
      assert.strictEqual(wire.connections[0]?.closed, "Aborted")
      assert.deepInclude(yield* pool.stats, { totalConnections: 0, totalCleanups: 1 })
    })
  )

  it.effect("an interrupted request is aborted on its connection, which is not used again", () =>
    Effect.gen(function* () {
      const { exchanges, serve } = patient()
      const { pool, wire } = yield* setup({ maxConnectionsPerTarget: 1, acquireTimeout: "1 minute" }, { serve })
      const first = yield* Effect.fork(pool.client(a).get("/1"))
      yield* settled
      const second = yield* Effect.fork(pool.client(a).get("/2"))
      yield* settled
      yield* Fiber.interrupt(first)
      assert.isTrue(exchanges[0]?.aborted)
      yield* settled
      exchanges[1]?.respond("served")
      assert.strictEqual(yield* Effect.flatMap(Fiber.join(second), (_) => _.text), "served")
      assert.strictEqual(wire.connections.length, 2)
      assert.strictEqual(wire.peak, 1)
    })
  )

  it.effect("a response whole before its fiber was interrupted leaves the connection usable", () =>
    Effect.gen(function* () {
      const { exchanges, serve } = patient()
      const { pool, wire } = yield* setup({}, { serve, settlesLater: true })
      const fiber = yield* Effect.fork(pool.client(a).get("/1"))
      yield* settled
      exchanges[0]?.respond()
      yield* Fiber.interrupt(fiber)
      yield* Effect.promise(() => Promise.resolve())
      assert.deepInclude(yield* pool.stats, { inUse: 0, idle: 1, totalConnections: 1 })
      assert.strictEqual(wire.open.length, 1)
    })
  )

  it.effect("a failed request gives its place to the next", () =>
    Effect.gen(function* () {
      const { exchanges, serve } = patient()
      const { pool } = yield* setup({ maxConnectionsPerTarget: 1, acquireTimeout: "1 minute" }, { serve })
      const first = yield* Effect.fork(pool.client(a).get("/1"))
      yield* settled
      const second = yield* Effect.fork(pool.client(a).get("/2"))
      yield* settled
      exchanges[0]?.breakOff()
      assert.deepInclude(yield* peek(first), { _tag: "ConnectionError", reason: "Closed", outcome: "Unknown" })
      exchanges[1]?.respond()
      assert.deepInclude(yield* peek(second), { status: 200 })
    })
  )

  it.effect("a URL that must not be requested makes no connection and uses none up", () =>
    Effect.gen(function* () {
      const { pool, wire } = yield* setup()
      const client = pool.client(a)
      for (const url of ["http://a.test/", "https://elsewhere.test/", "//elsewhere.test/", "https://u:p@a.test/"]) {
        assert.deepInclude(yield* Effect.flip(client.get(url)), { _tag: "RequestError", reason: "InvalidUrl" }, url)
      }
      assert.deepStrictEqual(wire.attempts, [])
      assert.deepInclude(yield* pool.stats, { totalConnections: 0 })
      yield* client.get("https://a.test/fine")
      assert.deepInclude(yield* Effect.flip(client.get("http://a.test/")), {
        _tag: "RequestError",
        reason: "InvalidUrl"
      })
      assert.deepInclude(yield* pool.stats, { idle: 1, inUse: 0 })
      assert.strictEqual(wire.exchanges.length, 1)
    })
  )

  it.effect("a connection that throws in place of starting is given up", () =>
    Effect.gen(function* () {
      const serve = () => {
        throw new Error("broken contract")
      }
      const { pool, wire } = yield* setup({}, { serve })
      const exit = yield* Effect.exit(pool.client(a).get("/"))
      assert.isTrue(Exit.isFailure(exit) && Cause.isDie(exit.cause))
      wire.connections[0]?.current?.breakOff()
      assert.deepInclude(yield* pool.stats, { totalConnections: 0 })
    })
  )

  it.effect("in an uninterruptible region the request runs to its end", () =>
    Effect.gen(function* () {
      const { exchanges, serve } = patient()
      const { pool } = yield* setup({}, { serve })
      const fiber = yield* Effect.fork(Effect.uninterruptible(pool.client(a).get("/")))
      yield* settled
      yield* Fiber.interruptFork(fiber)
      yield* TestClock.adjust("1 second")
      exchanges[0]?.respond()
      yield* settled
      assert.isFalse(exchanges[0]?.aborted)
      assert.deepInclude(yield* pool.stats, { idle: 1, totalConnections: 1 })
    })
  )
})
