import { DevAuthority, TestConnector, TestIdentity } from "@agentweave/testkit"
import { AuditLog, SecureChannel } from "@agentweave/transport"
import { HttpServerResponse } from "@effect/platform"
import { expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"

it.scoped("survives a rotation and a peer that hangs up", () =>
  Effect.gen(function* () {
    const authority = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 1 })
    const identity = yield* TestIdentity.make(yield* authority.context({ path: "/api" }))
    const network = yield* TestConnector.make({
      handler: ({ caller }) => Effect.succeed(HttpServerResponse.text(`hello ${caller.spiffeId}`))
    })
    const services = network.layer.pipe(Layer.provideMerge(identity.layer), Layer.provide(AuditLog.layerMemory([])))

    // Around the whole test: the connections end with the layer that opened them.
    yield* Effect.gen(function* () {
      const billing = yield* SecureChannel.make({
        peer: "spiffe://example.org/billing",
        baseUrl: "https://billing.internal"
      })
      expect(yield* Effect.flatMap(billing.get("/"), (_) => _.text)).toBe("hello spiffe://example.org/api")
      yield* identity.rotate(authority.context({ path: "/api" }))
      yield* network.closeAll()
      expect((yield* billing.get("/")).status).toBe(200)
      expect((yield* network.connections).length).toBe(2)
    }).pipe(Effect.provide(services))
  })
)
