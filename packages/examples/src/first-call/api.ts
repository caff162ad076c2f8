/** The server: only `web` gets in, and the handler knows its caller. */
import { PeerMatcher, SpiffeId } from "@agentweave/spiffe"
import { AuditLog, PeerIdentity } from "@agentweave/transport"
import { NodeSecureServer } from "@agentweave/transport-node"
import { WorkloadApi } from "@agentweave/workload-api"
import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer } from "effect"

const web = SpiffeId.make("spiffe://example.org/web")
const port = Number(process.env["PORT"] ?? "8443")

const announce = Effect.flatMap(HttpServer.HttpServer, ({ address }) =>
  address._tag === "TcpAddress" ? Console.log(`listens at https://127.0.0.1:${address.port}`) : Effect.void
)

const Api = HttpRouter.empty.pipe(
  HttpRouter.get(
    "/hello",
    Effect.map(PeerIdentity.caller, (peer) => HttpServerResponse.text(`hello ${peer.spiffeId}`))
  ),
  HttpServer.serve(),
  Layer.merge(Layer.effectDiscard(announce)),
  Layer.provide(NodeSecureServer.layer({ port, host: "127.0.0.1", authorize: PeerMatcher.exactly(web) })),
  Layer.provide([WorkloadApi.layer(), AuditLog.layerLogger])
)

NodeRuntime.runMain(Layer.launch(Api))
