import { readFileSync } from "node:fs"
import { DevAuthority, TestConnector } from "@agentweave/testkit"
import { AuditLog, ConnectionPool, IdentityProvider, PeerDirectory, TransportError } from "@agentweave/transport"
import { HttpServerResponse } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Layer, TestClock } from "effect"
import { circuitBreaker, ServiceLive } from "../src/patterns/circuitBreaker.js"
import { combined } from "../src/patterns/combined.js"
import { connectionPool } from "../src/patterns/connectionPool.js"
import { retryPolicy } from "../src/patterns/retryPolicy.js"
import { secureChannel } from "../src/patterns/secureChannel.js"

const peer = "spiffe://example.org/service"

/** A peer that answers with 503 the first `failures` times. */
const services = (failures = 0) =>
  Effect.gen(function* () {
    let left = failures
    const network = yield* TestConnector.make({
      handler: ({ path }) =>
        Effect.suspend(() =>
          left-- > 0
            ? Effect.succeed(HttpServerResponse.empty({ status: 503 }))
            : Effect.orDie(HttpServerResponse.json({ path }))
        )
    })
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const layer = Layer.mergeAll(network.layer, PeerDirectory.layerStatic({ [peer]: "https://service" })).pipe(
      Layer.provideMerge(
        Layer.merge(IdentityProvider.layerStatic(yield* authority.context({ path: "/me" })), AuditLog.layerMemory([]))
      )
    )
    return { layer, network }
  })

const lost = new TransportError.ConnectionError({
  reason: "Lost",
  outcome: "Unknown",
  address: "service:443",
  description: "gone"
})

describe("the usage patterns of the reference, as programs", () => {
  it.scoped("basic secure channel", () =>
    Effect.gen(function* () {
      const { layer, network } = yield* services()
      const answer = Effect.flatMap(secureChannel(peer, "https://service"), (response) => response.json)
      expect(yield* Effect.provide(Effect.scoped(answer), layer)).toEqual({ path: "/api" })
      expect((yield* network.connections)[0]).toMatchObject({ peer, closed: { reason: "Shutdown" } })
    })
  )

  it.scoped("connection pooling", () =>
    Effect.gen(function* () {
      const { layer, network } = yield* services()
      expect(yield* Effect.provide(connectionPool(peer), layer)).toEqual({ path: "/api" })
      expect(yield* network.open).toBe(0)
    })
  )

  it.effect("circuit breaker protection", () =>
    Effect.gen(function* () {
      for (let call = 0; call < 5; call++) yield* Effect.flip(circuitBreaker(Effect.fail("down"), "fallback"))
      expect(yield* circuitBreaker(Effect.succeed("served"), "fallback")).toBe("fallback")
      yield* TestClock.adjust("30 seconds")
      expect(yield* circuitBreaker(Effect.succeed("served"), "fallback")).toBe("served")
    }).pipe(Effect.provide(ServiceLive))
  )

  it.effect("retry with backoff", () =>
    Effect.gen(function* () {
      let calls = 0
      const unreliable = Effect.suspend(() => (++calls < 4 ? Effect.fail(lost) : Effect.succeed("served")))
      const fiber = yield* Effect.fork(retryPolicy(unreliable))
      yield* TestClock.adjust("7 seconds")
      expect(yield* Fiber.join(fiber)).toBe("served")
      expect(calls).toBe(4)
    })
  )

  it.scoped("combined: pool, circuit breaker, retry", () =>
    Effect.gen(function* () {
      const { layer, network } = yield* services(2)
      const fiber = yield* Effect.fork(Effect.provide(combined(peer), layer))
      yield* TestClock.adjust("3 seconds")
      expect(yield* Fiber.join(fiber)).toEqual({ path: "/api" })
      expect((yield* network.connections).map(({ requests }) => requests)).toEqual([3])
    })
  )
})

describe("each is no longer than in Python, with one line of imports a package", () => {
  /** Lines of the reference's own snippets, those without a character included. */
  const python = { secureChannel: 7, connectionPool: 12, circuitBreaker: 12, retryPolicy: 7, combined: 10 }
  for (const [name, lines] of Object.entries(python)) {
    it(`${name}: at most ${lines} lines`, () => {
      const source = readFileSync(new URL(`../src/patterns/${name}.ts`, import.meta.url), "utf8")
        .trimEnd()
        .split("\n")
      const code = source.filter((line) => !line.startsWith("/**"))
      expect(code.length).toBeLessThanOrEqual(lines)
      const packages = code.flatMap((line) => /^import .* from "([^"]*)"$/.exec(line)?.[1] ?? [])
      expect(packages).toEqual(["@agentweave/transport", "effect"])
    })
  }
})

it.scoped("a pool that a program shares is asked for in the same way", () =>
  Effect.gen(function* () {
    const { layer } = yield* services()
    const stats = Effect.gen(function* () {
      const pool = yield* ConnectionPool.ConnectionPool
      yield* pool.withChannel(peer, (channel) => Effect.flatMap(channel.get("/api"), (response) => response.text))
      return yield* pool.stats
    })
    expect(yield* Effect.provide(stats, Layer.provide(ConnectionPool.layer(), layer))).toMatchObject({ idle: 1 })
  })
)
