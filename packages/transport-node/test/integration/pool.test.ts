import type { IdentityProvider, SpiffeId } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { ConnectionPool, Connector, PeerDirectory, type SecureChannel } from "@agentweave/transport"
import { HttpServerResponse } from "@effect/platform"
import { expect, it } from "@effect/vitest"
import { Cause, Context, Effect, Exit, Fiber, FiberId, Layer, Stream } from "effect"
import { host, identityLayer, type RunningServer, realTime, startClient, startServer } from "./fixture.js"

/** Servers of their own identities, and a pool that knows them. */
const setup = Effect.fnUntraced(function* (
  options: ConnectionPool.Options,
  servers: Readonly<Record<string, Parameters<typeof startServer>[0]["app"]>>
) {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const identity = yield* authority.context({ path: "/client" })
  const running = new Map<string, RunningServer & { readonly id: SpiffeId.SpiffeId }>()
  for (const [name, app] of Object.entries(servers)) {
    const own = yield* authority.context({ path: `/${name}` })
    const server = yield* startServer({ identity: own, authorize: identity.svid.spiffeId, app })
    running.set(name, { ...server, id: own.svid.spiffeId })
  }
  const client = yield* startClient(identity)
  const directory = PeerDirectory.layerStatic(
    Object.fromEntries(Array.from(running.values(), ({ id, port }) => [id, `https://${host}:${port}`]))
  )
  const services = Layer.mergeAll(
    Layer.succeed(Connector.Connector, client.connector),
    identityLayer(identity),
    directory
  ) satisfies Layer.Layer<
    Connector.Connector | IdentityProvider.IdentityProvider | PeerDirectory.PeerDirectory,
    unknown
  >
  const context = yield* Layer.build(Layer.provide(ConnectionPool.layer(options), services))
  const server = (name: string) => {
    const found = running.get(name)
    if (found === undefined) throw new Error(`expected a server, there is no ${name}`)
    return found
  }
  return { pool: Context.get(context, ConnectionPool.ConnectionPool), servers: server, client }
})

/** The server closes the connection after its response. */
const closing = { headers: { connection: "close" } }

/** Connections a server has at the same time, at most and in the end. */
const connections = ({ log }: RunningServer) => {
  let now = 0
  let peak = 0
  for (const { _tag } of log.events) {
    if (_tag === "ConnectionEstablished") now++
    if (_tag === "ConnectionClosed") now--
    peak = Math.max(peak, now)
  }
  return { now, peak }
}

/** Pseudo-random numbers below 1, the same ones every time (a linear congruential generator). */
const random = (seed: number) => () => {
  seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0
  return seed / 2 ** 32
}

it.scoped(
  "10,000 fibers on 10 connections, a third of them interrupted at random: nothing is lost and nothing leaks",
  () =>
    Effect.gen(function* () {
      const fibers = 10_000
      const { pool, servers } = yield* setup(
        { maxConnectionsPerTarget: 10, acquireTimeout: "10 minutes", maxWaiting: fibers },
        { api: HttpServerResponse.text("served") }
      )
      const api = servers("api")
      const client = pool.client(api.id)
      const serving = new Set<number>()
      const get = (index: number) => (channel: SecureChannel.SecureChannel) =>
        Effect.suspend(() => {
          serving.add(index)
          return Effect.flatMap(channel.get("/"), (response) => response.text)
        })
      const withoutRequest = [
        () => pool.withChannel(api.id, () => Effect.as(Effect.yieldNow(), "served")),
        () => Effect.scoped(Effect.as(Effect.zipLeft(pool.acquire(api.id), Effect.yieldNow()), "served"))
      ]
      const uses = [
        () => Effect.flatMap(client.get("/"), (response) => response.text),
        ...withoutRequest,
        (index: number) => pool.withChannel(api.id, get(index)),
        ...withoutRequest,
        ...withoutRequest
      ]

      const next = random(42)
      const running: Array<Fiber.RuntimeFiber<string, unknown>> = []
      let ended = 0
      /** When a fiber ends another one is interrupted, or not: one that waits, or one whose request is in flight. */
      const interruptSomebody = (index: number) =>
        Effect.sync(() => {
          serving.delete(index)
          ended++
          if (next() > 0.52) return
          const [inFlight] = next() < 0.05 ? serving : []
          running[inFlight ?? ended + Math.floor(next() * (fibers - ended))]?.unsafeInterruptAsFork(FiberId.none)
        })
      for (let index = 0; index < fibers; index++) {
        const use = uses[index % uses.length]?.(index) ?? Effect.succeed("")
        running.push(yield* Effect.fork(Effect.ensuring(use, interruptSomebody(index))))
      }
      const results = new Map<string, number>()
      for (const exit of yield* Effect.forEach(running, Fiber.await)) {
        const result = Exit.isSuccess(exit)
          ? exit.value
          : Cause.isInterruptedOnly(exit.cause)
            ? "interrupted"
            : `${exit}`
        results.set(result, (results.get(result) ?? 0) + 1)
      }

      expect(Array.from(results.keys()).sort()).toEqual(["interrupted", "served"])
      expect(results.get("interrupted")).toBeGreaterThan(fibers * 0.3)
      const stats = yield* pool.stats
      expect(stats).toMatchObject({ inUse: 0, opening: 0, waiting: 0 })
      expect(stats.totalConnections).toBe(stats.idle)
      // Requests in flight were among those interrupted: their connections were closed and replaced.
      expect(stats.totalCleanups).toBeGreaterThan(10)
      expect(connections(api).peak).toBe(10)
      yield* pool.closeAll
      yield* api.log.nth("ConnectionClosed", stats.totalCreations - 1)
      expect(connections(api).now).toBe(0)
      expect(yield* pool.stats).toMatchObject({
        totalConnections: 0,
        targetCount: 0,
        totalCleanups: stats.totalCreations
      })
    }),
  120_000
)

it.scoped("the pool's caps hold on the wire, over two peers that take turns", () =>
  Effect.gen(function* () {
    const { client, pool, servers } = yield* setup(
      { maxConnectionsPerTarget: 2, maxTotalConnections: 3, acquireTimeout: "10 minutes" },
      { one: HttpServerResponse.text("one"), two: HttpServerResponse.text("two") }
    )
    const [one, two] = [servers("one"), servers("two")]
    const requests = Array.from({ length: 40 }, (_, index) => pool.client(index % 4 < 2 ? one.id : two.id))
    const texts = yield* Effect.forEach(
      requests,
      (peer) => Effect.flatMap(peer.get("/"), (response) => response.text),
      { concurrency: "unbounded" }
    )
    expect(texts.filter((text) => text === "one")).toHaveLength(20)
    expect(connections(one).peak).toBeLessThanOrEqual(2)
    expect(connections(two).peak).toBeLessThanOrEqual(2)
    // As the client sees it, from the attempt to the end of each connection.
    let [now, peak] = [0, 0]
    for (const { _tag } of client.log.events) {
      if (_tag === "ConnectionAttempted") now++
      if (_tag === "ConnectionClosed" || _tag === "ConnectionRefused") now--
      peak = Math.max(peak, now)
    }
    expect(peak).toBe(3)
    expect(client.log.all("ConnectionClosed").some(({ reason }) => reason === "Evicted")).toBe(true)
  })
)

it.scoped("the lease of a streamed response lasts until its body was read or dropped", () =>
  Effect.gen(function* () {
    const chunk = new Uint8Array(64 * 1024)
    const body = HttpServerResponse.stream(Stream.repeatEffect(Effect.succeed(chunk)).pipe(Stream.take(64)))
    const { pool, servers } = yield* setup({ maxConnectionsPerTarget: 1 }, { api: body })
    const api = servers("api")
    const client = pool.client(api.id)
    const response = yield* client.get("/")
    expect(yield* pool.stats).toMatchObject({ inUse: 1, idle: 0 })
    expect(yield* Effect.flip(client.get("/"))).toMatchObject({ _tag: "PoolExhaustedError", limit: "Target" })
    const size = yield* Stream.runFold(response.stream, 0, (sum, bytes) => sum + bytes.length)
    expect(size).toBe(64 * chunk.length)
    expect(yield* pool.stats).toMatchObject({ inUse: 0, idle: 1 })

    const dropped = yield* client.get("/")
    yield* Stream.runDrain(Stream.take(dropped.stream, 1))
    expect(yield* pool.stats).toMatchObject({ inUse: 0, idle: 0, totalConnections: 0 })
    expect((yield* client.get("/")).status).toBe(200)
  })
)

it.scoped("a connection that the peer closes while it is idle is replaced for the next request", () =>
  Effect.gen(function* () {
    const { client, pool, servers } = yield* setup({}, { api: HttpServerResponse.text("served", closing) })
    const api = servers("api")
    for (let turn = 0; turn < 2; turn++) {
      const response = yield* pool.client(api.id).get("/")
      expect(yield* response.text).toBe("served")
      expect(yield* client.log.nth("ConnectionClosed", turn)).toMatchObject({ peerId: api.id })
      expect(yield* pool.stats).toMatchObject({
        totalConnections: 0,
        totalCreations: turn + 1,
        totalCleanups: turn + 1
      })
    }
  })
)

it.scoped("responses dropped unread do not hold the pool: their scopes give the connections back at once", () =>
  Effect.gen(function* () {
    const large = HttpServerResponse.uint8Array(new Uint8Array(200_000))
    const { pool, servers } = yield* setup({ maxConnectionsPerTarget: 10 }, { api: large })
    const { id } = servers("api")
    const dropped = [
      () => pool.client(id).get("/"),
      () => Effect.flatMap(pool.acquire(id), (channel) => channel.get("/")),
      () => pool.withChannel(id, (channel) => channel.get("/"))
    ]
    for (const drop of dropped) {
      for (let round = 0; round < 10; round++) yield* Effect.scoped(drop())
    }
    const whole = yield* Effect.flatMap(pool.client(id).get("/"), (response) => response.arrayBuffer)
    expect(whole.byteLength).toBe(200_000)
  })
)
