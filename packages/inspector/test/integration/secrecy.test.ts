import { Activity, Inspector } from "@agentweave/inspector"
import { IdentityProvider, PeerMatcher, SpiffeId } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { AuditLog, PeerDirectory, Transport } from "@agentweave/transport"
import { NodeConnector, NodeSecureServer } from "@agentweave/transport-node"
import { HttpClientRequest, HttpServer, HttpServerResponse } from "@effect/platform"
import { assert, it } from "@effect/vitest"
import { Context, Effect, Layer, Redacted } from "effect"
import { holdsKey, printed } from "../../../transport/test/leaks.js"
import { host, realTime } from "./world.js"

const apiId = SpiffeId.make("spiffe://example.org/inspected")
const webId = SpiffeId.make("spiffe://example.org/web")

it.scoped(
  "a snapshot shows the pool, the breaker and the budget of a peer, and no key, header value, query or body",
  () =>
    Effect.gen(function* () {
      yield* realTime
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const [api, web] = [yield* authority.context({ path: "/inspected" }), yield* authority.context({ path: "/web" })]
      const server = yield* Layer.build(
        HttpServer.serve(HttpServerResponse.text("s3cr3t-answer")).pipe(
          Layer.provideMerge(NodeSecureServer.layer({ port: 0, host, authorize: PeerMatcher.exactly(webId) })),
          Layer.provide([IdentityProvider.layerStatic(api), AuditLog.layerMemory([])])
        )
      )
      const { address } = Context.get(server, HttpServer.HttpServer)
      const baseUrl = `https://${host}:${address._tag === "TcpAddress" ? address.port : 0}`
      const client = yield* Layer.build(
        Inspector.layerService().pipe(
          Layer.provideMerge(Transport.layer()),
          Layer.provide([NodeConnector.layer, PeerDirectory.layerStatic({ [apiId]: baseUrl })]),
          Layer.provideMerge(Activity.layerAuditLog(AuditLog.layerMemory([]))),
          Layer.provide(IdentityProvider.layerStatic(web))
        )
      )
      const http = yield* Context.get(client, Transport.Transport).client(apiId)
      const request = HttpClientRequest.post("/invoices?token=s3cr3t-query").pipe(
        HttpClientRequest.setHeaders({ authorization: "Bearer s3cr3t-header", "x-api-key": "s3cr3t-key" }),
        HttpClientRequest.bodyText("s3cr3t-body")
      )
      assert.strictEqual(yield* Effect.flatMap(http.execute(request), ({ text }) => text), "s3cr3t-answer")

      const snapshot = yield* Context.get(client, Inspector.Inspector).snapshot
      const peer = snapshot.peers.find(({ id }) => id === apiId)
      assert.deepInclude(peer, { openConnections: 1, pool: { inUse: 0, idle: 1, opening: 0, waiting: 0 } })
      assert.deepInclude(peer?.breaker, { state: "Closed", totalSuccesses: 1 })
      assert.isAbove(peer?.retryBudget ?? 0, 0)
      assert.strictEqual(peer?.outgoing?.total, 1)
      assert.deepInclude(snapshot.pool, { totalConnections: 1, totalAcquisitions: 1, idle: 1 })
      assert.strictEqual(snapshot.requests[0]?.path, "/invoices")

      const text = printed(snapshot)
      assert.notInclude(text, "s3cr3t")
      assert.notInclude(text, "PRIVATE KEY")
      for (const { svid } of [api, web]) {
        const key = Redacted.value(svid.privateKey).export({ format: "jwk" }).d ?? ""
        assert.isFalse(holdsKey(text, Buffer.from(key, "base64url")))
      }
    })
)
