import { IdentityProvider, SpiffeId } from "@agentweave/spiffe"
import { ConnectionPool, Connector, PeerDirectory } from "@agentweave/transport"
import { Effect, KeyedPool, Layer, ManagedRuntime, Pool, Scope, Stream } from "effect"
import generic from "generic-pool"
import { Pool as TarnPool } from "tarn"
import { type Benchmark, nanoseconds, type Subject } from "../harness/Benchmark.js"
import { effects, promises } from "../harness/inProcess.js"
import { effectLoop } from "../harness/loops.js"

const peer = SpiffeId.make("spiffe://bench.test/peer")
const size = 10

/** A connection without a wire: what is left is the pool. */
const connection = (id: string): Connector.Connection => ({
  id,
  peer: { spiffeId: peer, serialNumber: "", fingerprint: "", bundleGeneration: "", notAfter: 0, chain: [] },
  ownId: peer,
  address: "peer:443",
  isUsable: () => true,
  unsafeStart: () => () => {},
  unsafeRetire: () => {}
})

const services = Layer.mergeAll(
  Layer.succeed(IdentityProvider.IdentityProvider, { x509Context: Effect.never, changes: Stream.never }),
  Layer.sync(Connector.Connector, () => {
    let made = 0
    return { connect: () => Effect.sync(() => connection(`c${made++}`)), connectStream: () => Effect.never }
  }),
  PeerDirectory.layerStatic({ [peer]: "https://peer.internal" })
)

type Use = (pool: ConnectionPool.ConnectionPool["Type"]) => () => Effect.Effect<unknown, unknown>

const ours = (use: Use, inFlight = 1): Subject => ({
  start: async () => {
    const layer = ConnectionPool.layer({ maxConnectionsPerTarget: size, acquireTimeout: "1 minute" })
    const runtime = ManagedRuntime.make(Layer.provide(layer, services))
    const operation = use(await runtime.runPromise(ConnectionPool.ConnectionPool))
    return {
      sample: effectLoop(await runtime.runtime(), inFlight, operation, 64),
      check: () => runtime.runPromise(operation()),
      stop: () => runtime.dispose()
    }
  }
})

/** Effect's own pools live in a scope that nobody closes: the process ends. */
const keyed = (use: Effect.Effect<number>, inFlight = 1): Subject =>
  effects(
    Effect.flatMap(Scope.make(), (scope) =>
      Effect.map(
        Scope.extend(KeyedPool.make({ acquire: () => Effect.succeed({}), size }), scope),
        (pool) => () => Effect.scoped(Effect.zipRight(KeyedPool.get(pool, "peer"), use))
      )
    ),
    inFlight
  )

const one = Effect.succeed(1)

/** Whoever holds a connection lets the others run, as a request would. */
const yielding = Effect.as(Effect.yieldNow(), 1)

export const pool: Benchmark = {
  name: "pool",
  title: "lease a connection and give it back",
  unit: nanoseconds,
  millis: 40,
  warmUp: 100_000,
  subjects: {
    "ConnectionPool.withChannel": ours((pool) => () => pool.withChannel(peer, () => one)),
    "ConnectionPool.acquire": ours((pool) => () => Effect.scoped(Effect.as(pool.acquire(peer), 1))),
    "acquireRelease of nothing": effects(
      Effect.succeed(() => Effect.scoped(Effect.acquireRelease(one, () => Effect.void)))
    ),
    KeyedPool: keyed(one),
    Pool: effects(
      Effect.flatMap(Scope.make(), (scope) =>
        Effect.map(
          Scope.extend(Pool.make({ acquire: Effect.succeed({}), size }), scope),
          (pool) => () => Effect.scoped(Effect.zipRight(Pool.get(pool), one))
        )
      )
    ),
    "generic-pool": promises(async () => {
      const pool = generic.createPool({ create: async () => ({}), destroy: async () => {} }, { min: size, max: size })
      return async () => {
        const resource = await pool.acquire()
        await pool.release(resource)
        return 1
      }
    }),
    tarn: promises(async () => {
      const pool = new TarnPool({ create: async () => ({}), destroy: async () => {}, min: size, max: size })
      return async () => {
        const resource = await pool.acquire().promise
        pool.release(resource)
        return 1
      }
    }),
    "ConnectionPool.withChannel, 100 fibers": ours((pool) => () => pool.withChannel(peer, () => yielding), 100),
    "KeyedPool, 100 fibers": keyed(yielding, 100)
  },
  rows: [
    { contender: "generic-pool", baseline: "generic-pool" },
    { contender: "ConnectionPool.withChannel", baseline: "KeyedPool", target: 0.07 },
    { contender: "ConnectionPool.withChannel", baseline: "Pool" },
    { contender: "ConnectionPool.withChannel", baseline: "generic-pool", target: 1.2 },
    { contender: "ConnectionPool.withChannel", baseline: "tarn" },
    { contender: "ConnectionPool.acquire", baseline: "acquireRelease of nothing", target: 1.15 },
    { contender: "ConnectionPool.withChannel, 100 fibers", baseline: "KeyedPool, 100 fibers", target: 0.25 }
  ]
}
