import { IdentityProvider, PeerMatcher } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { type AuditEvent, AuditLog, PeerIdentity, SecureChannel } from "@agentweave/transport"
import { NodeConnector, NodeSecureServer } from "@agentweave/transport-node"
import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { expect, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"

const app = HttpRouter.empty.pipe(
  HttpRouter.get(
    "/who",
    Effect.map(PeerIdentity.caller, (peer) => HttpServerResponse.unsafeJson({ caller: peer.spiffeId }))
  ),
  HttpServer.serve()
)

it.scopedLive("two workloads talk, each knows who the other is, and all of it is on record once", () =>
  Effect.gen(function* () {
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const server = yield* authority.context({ path: "/server" })
    const client = yield* authority.context({ path: "/client" })
    const events: Array<AuditEvent.AuditEvent> = []
    const audit = AuditLog.layerMemory(events)

    yield* Effect.scoped(
      Effect.gen(function* () {
        const services = yield* app.pipe(
          Layer.provideMerge(
            NodeSecureServer.layer({ port: 0, host: "127.0.0.1", authorize: PeerMatcher.exactly(client.svid.spiffeId) })
          ),
          Layer.provide([IdentityProvider.layerStatic(server), audit]),
          Layer.build
        )
        const { address } = Context.get(services, HttpServer.HttpServer)
        const port = address._tag === "TcpAddress" ? address.port : 0
        yield* Effect.gen(function* () {
          const channel = yield* SecureChannel.make({
            peer: server.svid.spiffeId,
            baseUrl: `https://127.0.0.1:${port}`
          })
          for (let i = 0; i < 3; i++) {
            const response = yield* channel.get("/who?a=secret")
            expect(response.status).toBe(200)
            expect(yield* response.json).toEqual({ caller: "spiffe://example.org/client" })
            expect(response.headers["content-type"]).toBe("application/json")
          }
        }).pipe(
          Effect.scoped,
          Effect.provide(
            NodeConnector.layer.pipe(Layer.provideMerge(Layer.merge(IdentityProvider.layerStatic(client), audit)))
          )
        )
      })
    )

    const seen = events.map((event) => ("side" in event ? `${event.side} ${event._tag}` : event._tag))
    const once = ["ConnectionAttempted", "ConnectionClosed", "ConnectionEstablished"]
    const thrice = ["RequestEnded", "RequestStarted"].flatMap((tag) => [tag, tag, tag])
    expect(seen.sort()).toEqual(
      ["Client", "Server"].flatMap((side) => [...once, ...thrice].map((tag) => `${side} ${tag}`))
    )
    expect(events.filter((event) => event._tag === "RequestEnded" && event.status === 200)).toHaveLength(6)
    expect(JSON.stringify(events)).not.toContain("secret")
  })
)
