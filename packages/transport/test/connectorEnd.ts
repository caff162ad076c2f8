import type { IdentityProvider, SpiffeId } from "@agentweave/spiffe"
import {
  type AuditEvent,
  ConnectionPool,
  type Connector,
  PeerDirectory,
  SecureChannel,
  Transport
} from "@agentweave/transport"
import { assert, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Scope, Stream } from "effect"

/** What the suite runs in: a peer, and a connector that is built anew for each test. */
export interface World {
  readonly services: Layer.Layer<Connector.Connector | IdentityProvider.IdentityProvider>
  readonly peer: SpiffeId.SpiffeId
  /** The peer answers `/` at once, `/half` with the first half of a body, and any other path never. */
  readonly baseUrl: string
  /** Somebody accepts connections there and says nothing. */
  readonly silentUrl: string
  readonly events: ReadonlyArray<AuditEvent.AuditEvent>
  /** Waits until the peer has so many requests. */
  readonly awaitRequests: (count: number) => Effect.Effect<void>
}

const all = <Tag extends AuditEvent.AuditEvent["_tag"]>({ events }: World, tag: Tag) =>
  events.filter((event): event is Extract<AuditEvent.AuditEvent, { readonly _tag: Tag }> => event._tag === tag)

/** A connector in a scope of its own, and a channel in the scope of the test. */
const composed = (world: World, options: Partial<SecureChannel.Options> = {}) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const services = yield* Layer.buildWithScope(world.services, scope)
    const channel = yield* SecureChannel.make({ peer: world.peer, baseUrl: world.baseUrl, ...options }).pipe(
      Effect.provide(services)
    )
    return { channel, services, end: Scope.close(scope, Exit.void) }
  })

const drain = (channel: SecureChannel.SecureChannel, path: string) =>
  Effect.flatMap(channel.get(path), (response) => response.text)

const isEnded = { _tag: "ScopeClosedError", reason: "Connector" } as const

/** The same for every connector: what becomes of what it opened when the scope of its layer ends. */
export const connectorEnd = (make: Effect.Effect<World, unknown, Scope.Scope>): void => {
  const test = (name: string, body: (world: World) => Effect.Effect<unknown, unknown, Scope.Scope>) =>
    it.scopedLive(name, () => Effect.flatMap(make, body))

  test("a channel that was made under the layer, and not used under it, says how to provide the layer", (world) =>
    Effect.gen(function* () {
      const channel = yield* SecureChannel.make({ peer: world.peer, baseUrl: world.baseUrl }).pipe(
        Effect.provide(world.services)
      )
      const error = yield* Effect.flip(channel.get("/"))
      assert.deepInclude(error, isEnded)
      assert.include(error.message, "provide the connector's layer around the whole use of a channel")
      assert.include(error.message, world.peer)
      assert.deepStrictEqual(world.events, [])
    }))

  test("its connections are closed and on record when its scope has closed, and none is opened any more", (world) =>
    Effect.gen(function* () {
      const { channel, end } = yield* composed(world)
      yield* drain(channel, "/")
      yield* end
      assert.deepStrictEqual(
        all(world, "ConnectionClosed").map(({ reason, requests }) => [reason, requests]),
        [["Shutdown", 1]]
      )
      assert.deepInclude(yield* Effect.flip(channel.get("/")), isEnded)
      assert.lengthOf(all(world, "ConnectionAttempted"), 1)
    }))

  test("a request that waits for its response and one that waits for its turn fail at once", (world) =>
    Effect.gen(function* () {
      const { channel, end } = yield* composed(world, { config: { connections: 1, timeout: "1 hour" } })
      const running = yield* Effect.fork(Effect.flip(channel.get("/never")))
      yield* world.awaitRequests(1)
      const waiting = yield* Effect.fork(Effect.flip(channel.get("/")))
      yield* Effect.yieldNow()
      yield* end
      assert.deepInclude(yield* Fiber.join(running), { _tag: "ConnectionError", reason: "Closed", outcome: "Unknown" })
      assert.deepInclude(yield* Fiber.join(waiting), isEnded)
    }))

  test("a response that is being read fails at once", (world) =>
    Effect.gen(function* () {
      const { channel, end } = yield* composed(world, { config: { timeout: "1 hour" } })
      const response = yield* channel.get("/half")
      const reading = yield* Effect.fork(Effect.flip(Stream.runDrain(response.stream)))
      yield* Effect.yieldNow()
      yield* end
      assert.deepInclude((yield* Fiber.join(reading)).cause, { _tag: "ConnectionError", reason: "Lost" })
    }))

  test("an attempt to connect is abandoned, and on record as such", (world) =>
    Effect.gen(function* () {
      const { channel, end } = yield* composed(world, {
        baseUrl: world.silentUrl,
        config: { timeout: "1 hour", connectTimeout: "1 hour" }
      })
      const opening = yield* Effect.fork(Effect.flip(channel.get("/")))
      yield* Effect.repeat(Effect.yieldNow(), { until: () => all(world, "ConnectionAttempted").length > 0 })
      yield* end
      assert.deepStrictEqual(
        all(world, "ConnectionRefused").map(({ error, reason }) => [error, reason]),
        [["ScopeClosedError", "Connector"]]
      )
      assert.deepInclude(yield* Fiber.join(opening), isEnded)
    }))

  test("a channel that ends at the same time ends", (world) =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const { end, services } = yield* composed(world)
      const options = { peer: world.peer, baseUrl: world.baseUrl }
      const channel = yield* SecureChannel.make(options).pipe(Scope.extend(scope), Effect.provide(services))
      yield* drain(channel, "/")
      yield* Effect.all([end, Scope.close(scope, Exit.void)], { concurrency: "unbounded" })
      assert.lengthOf(all(world, "ConnectionClosed"), 1)
    }))

  test("a pool, its leases and a whole transport fail with the same error; nothing is retried or counted", (world) =>
    Effect.gen(function* () {
      const { end, services } = yield* composed(world)
      const over = yield* Transport.layer({
        retry: { isRetryable: () => true },
        breaker: { failureThreshold: 1 }
      }).pipe(
        Layer.provide(PeerDirectory.layerStatic({ [world.peer]: world.baseUrl })),
        Layer.provide(Layer.succeedContext(services)),
        Layer.build
      )
      const pool = Context.get(over, ConnectionPool.ConnectionPool)
      const client = yield* Context.get(over, Transport.Transport).client(world.peer)
      const lease = yield* pool.acquire(world.peer)
      yield* drain(lease, "/")
      yield* end
      assert.deepInclude(yield* Effect.flip(lease.get("/")), isEnded)
      assert.deepInclude(yield* Effect.flip(Effect.scoped(pool.acquire(world.peer))), isEnded)
      for (let call = 0; call < 2; call++) assert.deepInclude(yield* Effect.flip(client.get("/")), isEnded)
      assert.lengthOf(all(world, "ConnectionAttempted"), 1)
      assert.deepInclude(yield* pool.stats, { inUse: 1, idle: 0, opening: 0, waiting: 0 })
    }))
}
