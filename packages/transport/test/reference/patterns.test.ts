import { CircuitBreaker, CircuitBreakerRegistry, RetryPolicy, TransportError } from "@agentweave/transport"
import { HttpServerResponse } from "@effect/platform"
import { expect, it } from "@effect/vitest"
import { Effect, Fiber, TestClock } from "effect"
import { items, rows } from "./items.js"
import { gives, peer, world } from "./world.js"

rows("Usage patterns", {
  "basic secure channel": Effect.flatMap(world, ({ channel }) =>
    gives(
      Effect.scoped(
        Effect.flatMap(channel({ config: { timeout: "30 seconds" } }), (made) =>
          Effect.flatMap(made.get("/api"), (response) => response.text)
        )
      ),
      "GET /api"
    )
  ),
  "connection pooling": Effect.flatMap(world, ({ pool }) =>
    Effect.flatMap(pool({ maxConnectionsPerTarget: 10 }), (made) =>
      gives(
        made.withChannel(peer, (channel) => Effect.flatMap(channel.get("/api"), (response) => response.text)),
        "GET /api"
      )
    )
  ),
  "circuit breaker protection": Effect.gen(function* () {
    const circuit = yield* CircuitBreaker.make({ target: "service", failureThreshold: 5 })
    yield* Effect.repeatN(Effect.exit(circuit.protect(Effect.fail("down"))), 4)
    const call = circuit.protect(Effect.succeed("served"))
    yield* gives(
      Effect.catchTag(call, "CircuitOpenError", () => Effect.succeed("fallback")),
      "fallback"
    )
  }),
  "retry with backoff": Effect.gen(function* () {
    const policy = yield* RetryPolicy.make({ maxRetries: 3, baseDelay: "1 second" })
    let calls = 0
    const lost = new TransportError.ConnectionError({
      reason: "Lost",
      outcome: "Unknown",
      address: "service:443",
      description: "gone"
    })
    const fiber = yield* Effect.fork(
      policy.retry(Effect.suspend(() => (++calls < 3 ? Effect.fail(lost) : Effect.succeed("served"))))
    )
    yield* TestClock.adjust("1 minute")
    expect(yield* Fiber.join(fiber)).toBe("served")
  }),
  "combined pattern": Effect.gen(function* () {
    const { network, pool } = yield* world
    yield* network.setHandler(() => Effect.succeed(HttpServerResponse.empty({ status: 503 })))
    const circuit = yield* Effect.flatMap(CircuitBreakerRegistry.make(), (registry) => registry.get(peer))
    const made = yield* pool()
    const call = made.withChannel(peer, (channel) => circuit.protect(channel.get("/api")))
    yield* Effect.repeatN(Effect.exit(call), 19)
    expect(yield* circuit.state).toBe("Open")
  })
})

it("the rows of the reference are 180", () => {
  expect(Object.values(items).flat()).toHaveLength(180)
  for (const section of Object.values(items)) expect(new Set(section).size).toBe(section.length)
})
