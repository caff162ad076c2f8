import { ConnectionPool, PoolConfig, TransportError } from "@agentweave/transport"
import { HttpServerResponse } from "@effect/platform"
import { expect } from "@effect/vitest"
import { Context, Duration, Effect, Exit, Fiber, Layer, Schema, Scope, TestClock } from "effect"
import { rows } from "./items.js"
import { fails, gives, me, other, peer, refuses, world } from "./world.js"

type Pool = ConnectionPool.ConnectionPool["Type"]

const pooled = <A, E, R>(
  use: (pool: Pool, parts: Effect.Effect.Success<typeof world>) => Effect.Effect<A, E, R>,
  options?: ConnectionPool.Options
) => Effect.flatMap(world, (parts) => Effect.flatMap(parts.pool(options), (pool) => use(pool, parts)))

/** Leases a connection and gives it back. */
const once = (pool: Pool, target = peer) => pool.withChannel(target, (channel) => channel.get("/"))

const exhausted = pooled((pool) => Effect.zipRight(pool.acquire(peer), Effect.flip(pool.acquire(peer))), {
  maxConnectionsPerTarget: 1
})

/** A pool in a scope of its own, in which one connection is idle. */
const ended = Effect.gen(function* () {
  const parts = yield* world
  const scope = yield* Scope.make()
  let checks = 0
  const healthCheck = () => Effect.sync(() => checks++)
  const pool = yield* Scope.extend(parts.pool({ healthCheck }), scope)
  yield* once(pool)
  yield* Scope.close(scope, Exit.void)
  return { ...parts, pool, checks: () => checks }
})

rows("ConnectionPool", {
  import: Effect.sync(() => expect(ConnectionPool.layer).toBeTypeOf("function")),
  identity_provider: pooled((pool) => pool.withChannel(peer, ({ mySpiffeId }) => gives(mySpiffeId, me))),
  "config is optional": Effect.gen(function* () {
    const { services } = yield* world
    const context = yield* Layer.build(Layer.provide(ConnectionPool.layer(), Layer.succeedContext(services)))
    yield* once(Context.get(context, ConnectionPool.ConnectionPool))
  }),
  "transport_config is optional": pooled((pool) => once(pool), { transport: undefined }),
  "transport_config: for new channels": pooled(
    (pool, { network }) =>
      Effect.gen(function* () {
        yield* network.setHandler(() => Effect.never)
        const call = yield* Effect.fork(Effect.flip(once(pool)))
        yield* TestClock.adjust("2 seconds")
        expect(yield* Fiber.join(call)).toMatchObject({ _tag: "TimeoutError", limit: Duration.seconds(2) })
      }),
    { transport: { timeout: "2 seconds" } }
  ),
  "start: cleanup in the background": pooled((pool) =>
    Effect.gen(function* () {
      yield* once(pool)
      yield* TestClock.adjust("70 seconds")
      expect(yield* pool.stats).toMatchObject({ totalConnections: 0, totalCleanups: 1 })
    })
  ),
  "start: health checks in the background": Effect.suspend(() => {
    let checks = 0
    return pooled(
      (pool) =>
        Effect.gen(function* () {
          yield* once(pool)
          yield* TestClock.adjust("30 seconds")
          expect(checks).toBe(1)
        }),
      { healthCheck: () => Effect.sync(() => checks++) }
    )
  }),
  "stop: background tasks end": Effect.gen(function* () {
    const { checks } = yield* ended
    yield* TestClock.adjust("10 minutes")
    expect(checks()).toBe(0)
  }),
  "stop: all connections are closed": Effect.flatMap(ended, ({ network, pool }) =>
    Effect.zipRight(gives(network.open, 0), fails(once(pool), { _tag: "PoolClosedError" }))
  ),
  "acquire: yields a SecureChannel": pooled((pool) =>
    Effect.map(pool.acquire(peer), ({ peerSpiffeId }) => expect(peerSpiffeId).toBe(peer))
  ),
  "acquire: target_id": pooled((pool, { network }) =>
    Effect.zipRight(
      once(pool, other),
      Effect.map(network.connections, ([connection]) => expect(connection?.peer).toBe(other))
    )
  ),
  "acquire: ValueError for a target_id without spiffe://": pooled((pool) =>
    fails(pool.acquire("example.com/service"), { _tag: "InvalidSpiffeIdError" })
  ),
  "acquire: PoolExhaustedError": Effect.map(exhausted, (error) => expect(error._tag).toBe("PoolExhaustedError")),
  "acquire: a context manager": pooled((pool) =>
    Effect.gen(function* () {
      yield* Effect.scoped(Effect.flatMap(pool.acquire(peer), (channel) => channel.get("/")))
      expect(yield* pool.stats).toMatchObject({ inUse: 0, idle: 1 })
    })
  ),
  "acquire: an idle connection is used again": pooled((pool, { network }) =>
    Effect.zipRight(Effect.repeatN(once(pool), 4), gives(network.attempts, 1))
  ),
  release: pooled((pool) =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      yield* Scope.extend(pool.acquire(peer), scope)
      expect(yield* pool.stats).toMatchObject({ inUse: 1, idle: 0 })
      yield* Scope.close(scope, Exit.void)
      expect(yield* pool.stats).toMatchObject({ inUse: 0, idle: 1 })
    })
  ),
  close_all: pooled((pool, { network }) =>
    Effect.gen(function* () {
      yield* once(pool)
      yield* once(pool, other)
      yield* pool.closeAll
      expect(yield* network.open).toBe(0)
      yield* once(pool)
    })
  ),
  total_connections: pooled((pool) =>
    Effect.zipRight(
      once(pool),
      Effect.map(pool.stats, (stats) => expect(stats.totalConnections).toBe(1))
    )
  ),
  total_acquisitions: pooled((pool) =>
    Effect.zipRight(
      Effect.repeatN(once(pool), 2),
      Effect.map(pool.stats, (stats) => expect(stats.totalAcquisitions).toBe(3))
    )
  ),
  total_creations: pooled((pool) =>
    Effect.gen(function* () {
      yield* once(pool)
      yield* pool.closeAll
      yield* once(pool)
      expect((yield* pool.stats).totalCreations).toBe(2)
    })
  ),
  total_cleanups: pooled((pool) =>
    Effect.gen(function* () {
      yield* once(pool)
      yield* pool.closeAll
      expect((yield* pool.stats).totalCleanups).toBe(1)
    })
  ),
  pool_sizes: pooled((pool) =>
    Effect.gen(function* () {
      yield* Effect.all([pool.acquire(peer), pool.acquire(peer), pool.acquire(other)])
      expect((yield* pool.stats).poolSizes).toEqual({ [peer]: 2, [other]: 1 })
    })
  ),
  target_count: pooled((pool) =>
    Effect.gen(function* () {
      yield* once(pool)
      yield* once(pool, other)
      expect((yield* pool.stats).targetCount).toBe(2)
    })
  ),
  "thread-safe": pooled(
    (pool, { network }) =>
      Effect.gen(function* () {
        yield* Effect.all(
          Array.from({ length: 50 }, () => once(pool)),
          { concurrency: "unbounded" }
        )
        expect(yield* network.attempts).toBe(3)
        expect(yield* pool.stats).toMatchObject({ totalAcquisitions: 50, inUse: 0, idle: 3 })
      }),
    { maxConnectionsPerTarget: 3, acquireTimeout: "1 minute" }
  ),
  example: pooled(
    (pool, { network }) =>
      Effect.gen(function* () {
        yield* network.setHandler(() => Effect.orDie(HttpServerResponse.json({ items: 3 })))
        const data = pool.withChannel(peer, (channel) =>
          Effect.flatMap(channel.get("/api/data"), (response) => response.json)
        )
        yield* gives(data, { items: 3 })
        expect((yield* pool.stats).totalConnections).toBe(1)
      }),
    { maxConnectionsPerTarget: 10, idleTimeout: "60 seconds" }
  )
})

const { defaults } = PoolConfig

/** After so long an idle connection is still there, and after so much more it is not. */
const lives = (options: ConnectionPool.Options, alive: Duration.DurationInput, more: Duration.DurationInput) =>
  pooled(
    (pool) =>
      Effect.gen(function* () {
        yield* once(pool)
        yield* TestClock.adjust(alive)
        expect((yield* pool.stats).totalConnections).toBe(1)
        yield* TestClock.adjust(more)
        expect((yield* pool.stats).totalConnections).toBe(0)
      }),
    options
  )

rows("PoolConfig", {
  import: Effect.sync(() => expect(PoolConfig.make).toBeTypeOf("function")),
  "max_connections_per_target: default 10": gives(Effect.succeed(defaults.maxConnectionsPerTarget), 10),
  "max_connections_per_target: bounds a target": Effect.map(exhausted, (error) =>
    expect(error).toMatchObject({ limit: "Target", maxConnections: 1 })
  ),
  "max_total_connections: default 100": gives(Effect.succeed(defaults.maxTotalConnections), 100),
  "max_total_connections: bounds all targets": pooled(
    (pool) =>
      Effect.zipRight(
        pool.acquire(peer),
        fails(pool.acquire(other), { _tag: "PoolExhaustedError", limit: "Total", maxConnections: 1 })
      ),
    { maxTotalConnections: 1, maxConnectionsPerTarget: 1 }
  ),
  "idle_timeout: default 60 seconds": gives(Effect.succeed(Duration.toSeconds(defaults.idleTimeout)), 60),
  "idle_timeout: closes an idle connection": lives({ idleTimeout: "20 seconds" }, "10 seconds", "10 seconds"),
  "health_check_interval: default 30 seconds": gives(
    Effect.succeed(Duration.toSeconds(defaults.healthCheckInterval)),
    30
  ),
  "health_check_interval: time between health checks": Effect.suspend(() => {
    const checks: Array<number> = []
    return pooled(
      (pool) =>
        Effect.gen(function* () {
          yield* once(pool)
          yield* TestClock.adjust("20 seconds")
          expect(checks).toHaveLength(4)
        }),
      { healthCheckInterval: "5 seconds", healthCheck: () => Effect.sync(() => checks.push(1)) }
    )
  }),
  "cleanup_interval: default 10 seconds": gives(Effect.succeed(Duration.toSeconds(defaults.cleanupInterval)), 10),
  "cleanup_interval: time between cleanups": lives(
    { idleTimeout: "1 second", cleanupInterval: "40 seconds" },
    "39 seconds",
    "1 second"
  ),
  "ValueError: max_connections_per_target": refuses(
    PoolConfig.make({ maxConnectionsPerTarget: 0 }),
    "PoolConfig",
    "maxConnectionsPerTarget"
  ),
  "ValueError: max_total_connections": refuses(
    PoolConfig.make({ maxTotalConnections: 0 }),
    "PoolConfig",
    "maxTotalConnections"
  ),
  "ValueError: idle_timeout": refuses(PoolConfig.make({ idleTimeout: 0 }), "PoolConfig", "idleTimeout"),
  "ValueError: health_check_interval": refuses(
    PoolConfig.make({ healthCheckInterval: "-1 seconds" }),
    "PoolConfig",
    "healthCheckInterval"
  ),
  "ValueError: cleanup_interval": refuses(PoolConfig.make({ cleanupInterval: 0 }), "PoolConfig", "cleanupInterval")
})

rows("ConnectionPoolError", {
  import: Effect.sync(() => expect(TransportError.isConnectionPoolError).toBeTypeOf("function")),
  "base of the pool's errors": Effect.gen(function* () {
    const closed = new TransportError.PoolClosedError({ targetId: peer })
    for (const error of [yield* exhausted, closed]) {
      expect(TransportError.isConnectionPoolError(error)).toBe(true)
      expect(Schema.is(TransportError.ConnectionPoolError)(error)).toBe(true)
    }
    expect(TransportError.isConnectionPoolError(new Error("PoolExhaustedError"))).toBe(false)
  })
})

rows("PoolExhaustedError", {
  import: Effect.sync(() => expect(TransportError.PoolExhaustedError).toBeTypeOf("function")),
  "raised when exhausted": Effect.map(exhausted, (error) =>
    expect(error).toBeInstanceOf(TransportError.PoolExhaustedError)
  ),
  "is a ConnectionPoolError": gives(Effect.map(exhausted, TransportError.isConnectionPoolError), true),
  target_id: Effect.map(exhausted, (error) => expect(error).toMatchObject({ targetId: peer })),
  max_connections: Effect.map(exhausted, (error) => expect(error).toMatchObject({ maxConnections: 1 }))
})
