import { IdentityProvider, PeerMatcher } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { type AuditEvent, AuditLog, Connector, PeerIdentity, TransportConfig } from "@agentweave/transport"
import { NodeConnector, NodeSecureServer } from "@agentweave/transport-node"
import {
  HttpClientRequest,
  type HttpClientResponse,
  HttpRouter,
  HttpServer,
  HttpServerResponse
} from "@effect/platform"
import { expect, it } from "@effect/vitest"
import { Effect, Either, Layer } from "effect"

const execute = (connection: Connector.Connection, request: HttpClientRequest.HttpClientRequest, path: string) =>
  Effect.withFiberRuntime<HttpClientResponse.HttpClientResponse, Connector.RequestFailure>((fiber) =>
    Effect.async((resume) => {
      const cancel = connection.unsafeStart({ request, path, fiber: fiber as never, onSettled: () => {} }, resume)
      return Effect.sync(cancel)
    })
  )

it.live("two workloads talk", () =>
  Effect.gen(function* () {
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const server = yield* authority.context({ path: "/server" })
    const client = yield* authority.context({ path: "/client" })
    const events: Array<AuditEvent.AuditEvent> = []
    const app = HttpRouter.empty.pipe(
      HttpRouter.get(
        "/who",
        Effect.map(PeerIdentity.caller, (peer) => HttpServerResponse.unsafeJson({ caller: peer.spiffeId }))
      ),
      HttpServer.serve()
    )
    const serverLayer = Layer.provideMerge(
      app,
      NodeSecureServer.layer({ port: 0, host: "127.0.0.1", authorize: PeerMatcher.exactly(client.svid.spiffeId) })
    ).pipe(Layer.provide(IdentityProvider.layerStatic(server)), Layer.provide(AuditLog.layerMemory(events)))
    const services = yield* Layer.build(serverLayer)
    const address = yield* Effect.provide(HttpServer.HttpServer, services)
    if (address.address._tag !== "TcpAddress") return yield* Effect.die("tcp")
    const connector = yield* Layer.build(
      NodeConnector.layer.pipe(
        Layer.provide(IdentityProvider.layerStatic(client)),
        Layer.provide(AuditLog.layerMemory(events))
      )
    )
    const port = address.address.port
    const c = yield* Effect.provide(Connector.Connector, connector)
    const connection = yield* c.connect({
      matcher: PeerMatcher.exactly(server.svid.spiffeId),
      host: "127.0.0.1",
      port,
      config: Either.getOrThrow(TransportConfig.make({})),
      onClose: () => {}
    })
    for (let i = 0; i < 3; i++) {
      const response = yield* execute(connection, HttpClientRequest.get("/who"), "/who")
      expect(response.status).toBe(200)
      expect(yield* response.json).toEqual({ caller: "spiffe://example.org/client" })
      expect(response.headers["content-type"]).toBe("application/json")
    }
    expect(connection.isUsable()).toBe(true)
    // The server's last response ends when its socket says so, which may be after the client has read it.
    const settled = events.filter(
      (event) => !("side" in event && event.side === "Server" && event._tag === "RequestEnded")
    )
    expect(settled.map((event) => ("side" in event ? `${event.side} ${event._tag}` : event._tag)).sort()).toEqual([
      "Client ConnectionAttempted",
      "Client ConnectionEstablished",
      ...Array.from({ length: 3 }, () => "Client RequestEnded"),
      ...Array.from({ length: 3 }, () => "Client RequestStarted"),
      "Server ConnectionAttempted",
      "Server ConnectionEstablished",
      ...Array.from({ length: 3 }, () => "Server RequestStarted")
    ])
  }).pipe(Effect.scoped)
)
