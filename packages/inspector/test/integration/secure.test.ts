import { Inspector } from "@agentweave/inspector"
import { IdentityProvider, PeerMatcher, SpiffeId } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { AuditLog, PeerIdentity, SecureChannel } from "@agentweave/transport"
import { NodeConnector, NodeSecureServer } from "@agentweave/transport-node"
import { HttpClientRequest, HttpRouter, HttpServer } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Option, Scope, Sink, Stream } from "effect"
import { call, httpsStatus } from "./http.js"
import { decode, host, processOf, realTime } from "./world.js"

const webId = SpiffeId.make("spiffe://example.org/web")
const operator = SpiffeId.make("spiffe://example.org/operator")

const portOf = (services: Context.Context<HttpServer.HttpServer>): number => {
  const { address } = Context.get(services, HttpServer.HttpServer)
  return address._tag === "TcpAddress" ? address.port : 0
}

/** A process that shows its inspector to the operator alone, and the operator's channel to it. */
const setup = (
  serve: Layer.Layer<never, never, HttpServer.HttpServer | Inspector.Inspector | PeerIdentity.PeerIdentity>
) =>
  Effect.gen(function* () {
    yield* realTime
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const identityOf = (path: string) => Effect.map(authority.context({ path }), IdentityProvider.layerStatic)
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const server = NodeSecureServer.layer({ port: 0, host, authorize: PeerMatcher.exactly(operator) })
    const process = Layer.provideMerge(server, processOf(yield* identityOf("/web")))
    const services = yield* Layer.buildWithScope(
      serve.pipe(Layer.provideMerge(Inspector.layerService()), Layer.provideMerge(process)),
      scope
    )
    const port = portOf(services)
    const client = NodeConnector.layer.pipe(
      Layer.provideMerge(AuditLog.layerMemory([])),
      Layer.provideMerge(yield* identityOf("/operator"))
    )
    const channel = yield* Effect.provide(
      SecureChannel.make({ peer: webId, baseUrl: `https://${host}:${port}` }),
      yield* Layer.build(client)
    )
    return { authority, channel, port, close: Scope.close(scope, Exit.void) }
  })

describe("the inspector behind a secure server", () => {
  it.scoped("answers a verified peer, and shows the connection it came on", () =>
    Effect.gen(function* () {
      const { channel } = yield* setup(Inspector.layerSecure)
      const response = yield* channel.get("/api/snapshot")
      assert.strictEqual(response.status, 200)
      const { peers } = yield* Effect.flatMap(response.text, decode)
      assert.strictEqual(peers.length, 1)
      assert.deepInclude(peers[0], { id: operator, openConnections: 1 })
      assert.deepInclude(peers[0]?.connections[0], { side: "Server", inFlight: 1, tlsVersion: "TLSv1.3" })
    })
  )

  it.scoped("its streams end with the scope, and the server does not wait for their readers", () =>
    Effect.gen(function* () {
      const { channel, close } = yield* setup(Inspector.layerSecure)
      const response = yield* channel.get("/api/events")
      const events = Stream.decodeText(response.stream)
      const [head, rest] = yield* Stream.peel(events, Sink.head<string>())
      assert.match(
        Option.getOrElse(head, () => ""),
        /retry: 2000/
      )
      // Under the test's clock the limit of the server for requests in flight never comes.
      yield* close
      yield* Stream.runDrain(rest)
    })
  )

  it.scoped("can be a part of a router", () =>
    Effect.gen(function* () {
      const router = HttpRouter.empty.pipe(HttpRouter.mountApp("/inspector", Inspector.app))
      const { channel } = yield* setup(HttpServer.serve(router))
      assert.strictEqual((yield* channel.get("/inspector/api/snapshot")).status, 200)
      assert.strictEqual((yield* channel.get("/api/snapshot")).status, 404)
    })
  )

  it.scoped("refuses what a browser with the peer's certificate sends for another site", () =>
    Effect.gen(function* () {
      const { channel, port } = yield* setup(Inspector.layerSecure)
      const statusWith = (headers: Record<string, string>) =>
        Effect.map(
          channel.execute(HttpClientRequest.get("/api/snapshot").pipe(HttpClientRequest.setHeaders(headers))),
          ({ status }) => status
        )
      assert.strictEqual(yield* statusWith({ origin: "https://evil.example" }), 403)
      assert.strictEqual(yield* statusWith({ "sec-fetch-site": "cross-site" }), 403)
      assert.strictEqual(yield* statusWith({ origin: `https://${host}:${port}` }), 200)
    })
  )

  it.scoped("refuses a Host that its TLS connection was not made for: a site's name that resolves to a tunnel", () =>
    Effect.gen(function* () {
      const { authority, port } = yield* setup(Inspector.layerSecure)
      const tunnel = yield* authority.issue({ path: "/operator" })
      const statusOf = (host: string, servername: string) => httpsStatus({ svid: tunnel, port, host, servername })
      for (const [called, host] of [
        ["web.internal", "evil.example"],
        ["web.internal", "evil.example:9471"],
        ["web.internal", "web.internal.evil.example"],
        ["", "evil.example"],
        ["", "web.internal"]
      ] as const) {
        assert.strictEqual(yield* statusOf(host, called), 421, `${called} ${host}`)
      }
      for (const [called, host] of [
        ["web.internal", "web.internal"],
        ["web.internal", "WEB.internal.:9471"],
        ["", `127.0.0.1:${port}`],
        ["", "[2001:db8::1]:9471"],
        ["web.internal", "localhost:8080"]
      ] as const) {
        assert.strictEqual(yield* statusOf(host, called), 200, `${called} ${host}`)
      }
    })
  )

  it.scoped("refuses every request of a server that verifies nobody", () =>
    Effect.gen(function* () {
      yield* realTime
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const process = processOf(IdentityProvider.layerStatic(yield* authority.context({ path: "/web" })))
      const nobody = Layer.succeed(PeerIdentity.PeerIdentity, {
        of: () => Option.none(),
        ofSocket: () => Option.none()
      })
      const services = yield* Layer.build(
        Inspector.layerSecure.pipe(
          Layer.provide(Inspector.layerService()),
          Layer.provide(nobody),
          Layer.provide(process),
          Layer.provideMerge(NodeHttpServer.layerTest)
        )
      )
      const answer = yield* call({ port: portOf(services), path: "/api/snapshot" })
      assert.strictEqual(answer.status, 403)
      assert.match(answer.body, /verified connection/)
    })
  )
})
