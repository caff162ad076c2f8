import { SpiffeId } from "@agentweave/spiffe"
import { DevAuthority, TestConnector } from "@agentweave/testkit"
import { type AuditEvent, AuditLog, SecureChannel } from "@agentweave/transport"
import { HttpServerResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Scope, Stream, SubscriptionRef } from "effect"
import { connectorEnd, type World } from "../../transport/test/connectorEnd.js"

const peer = SpiffeId.make("spiffe://example.org/billing")

const world = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const events: Array<AuditEvent.AuditEvent> = []
  const requests = yield* SubscriptionRef.make(0)
  const network = yield* TestConnector.make({
    handler: ({ path }) =>
      Effect.gen(function* () {
        yield* SubscriptionRef.update(requests, (count) => count + 1)
        if (path === "/") return HttpServerResponse.text("whole")
        if (path !== "/half") return yield* Effect.never
        return HttpServerResponse.stream(Stream.concat(Stream.make(new Uint8Array(3)), Stream.never))
      }),
    onConnect: (options) => (options.host === "silent" ? Effect.never : TestConnector.reachable(options))
  })
  const world: World = {
    services: network.layer.pipe(
      Layer.provideMerge(DevAuthority.layerIdentity(authority, { path: "/api" })),
      Layer.provide(AuditLog.layerMemory(events)),
      Layer.orDie
    ),
    peer,
    baseUrl: "https://billing",
    silentUrl: "https://silent",
    events,
    awaitRequests: (count) => Stream.runDrain(Stream.takeUntil(requests.changes, (seen) => seen >= count))
  }
  return world
})

describe("when the scope of a TestConnector's layer ends", () => {
  connectorEnd(world)
})

describe("when the scope of a TestConnector ends", () => {
  it.scopedLive("its connections and attempts end with it, and layers built of it open no more", () =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const events: Array<AuditEvent.AuditEvent> = []
      const scope = yield* Scope.make()
      const network = yield* TestConnector.make({ handler: () => Effect.never }).pipe(Scope.extend(scope))
      const services = network.layer.pipe(
        Layer.provideMerge(DevAuthority.layerIdentity(authority, { path: "/api" })),
        Layer.provide(AuditLog.layerMemory(events))
      )
      const channel = yield* SecureChannel.make({ peer, baseUrl: "https://billing" }).pipe(
        Effect.provide(yield* Layer.build(services))
      )
      const running = yield* Effect.fork(Effect.flip(channel.get("/")))
      yield* Effect.repeat(Effect.yieldNow(), { until: () => events.some(({ _tag }) => _tag === "RequestStarted") })
      yield* Scope.close(scope, Exit.void)
      assert.deepInclude(yield* Fiber.join(running), { _tag: "ConnectionError", reason: "Closed" })
      assert.strictEqual(yield* network.open, 0)
      const ended = { _tag: "ScopeClosedError", reason: "Connector" } as const
      assert.deepInclude(yield* Effect.flip(channel.get("/")), ended)
      const late = yield* SecureChannel.make({ peer, baseUrl: "https://billing" }).pipe(
        Effect.provide(yield* Layer.build(services))
      )
      assert.deepInclude(yield* Effect.flip(late.get("/")), ended)
    })
  )
})
