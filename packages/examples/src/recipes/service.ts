/**
 * A whole service: an API for verified peers, beside it health and readiness for an orchestrator that has no identity, and an
 * orderly end. On SIGTERM or SIGINT it accepts nothing more, answers what is on its way, and exits with 0.
 */
import { createServer } from "node:http"
import { PeerMatcher, SpiffeId } from "@agentweave/spiffe"
import { AuditLog, IdentityMonitor, PeerIdentity } from "@agentweave/transport"
import { NodeSecureServer } from "@agentweave/transport-node"
import { WorkloadApi } from "@agentweave/workload-api"
import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Config, Console, Effect, Layer } from "effect"

const announced = (name: string) =>
  Layer.effectDiscard(
    Effect.flatMap(HttpServer.HttpServer, ({ address }) =>
      address._tag === "TcpAddress" ? Console.log(`${name} listens on ${address.port}`) : Effect.void
    )
  )

const Api = (port: number) =>
  HttpRouter.empty.pipe(
    HttpRouter.get(
      "/hello",
      Effect.map(PeerIdentity.caller, ({ spiffeId }) => HttpServerResponse.text(`hello ${spiffeId}`))
    ),
    HttpRouter.get(
      "/report",
      Effect.log("a report is made").pipe(Effect.zipRight(Effect.delay(HttpServerResponse.text("done"), "1 second")))
    ),
    HttpServer.serve(),
    Layer.merge(announced("api")),
    Layer.provide(
      NodeSecureServer.layer({
        port,
        authorize: PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/web")),
        gracefulShutdownTimeout: "30 seconds"
      })
    )
  )

/** Alive is a process that answers; ready is one that can prove who it is. It listens where only the orchestrator can reach. */
const Health = (port: number) =>
  HttpRouter.empty.pipe(
    HttpRouter.get("/healthz", HttpServerResponse.empty({ status: 200 })),
    IdentityMonitor.withReadinessRoute("/readyz"),
    HttpServer.serve(),
    Layer.merge(announced("health")),
    Layer.provide(NodeHttpServer.layer(createServer, { port, host: "127.0.0.1" })),
    Layer.provide(IdentityMonitor.layer())
  )

const port = (name: string, otherwise: number) => Config.withDefault(Config.integer(name), otherwise)

const Service = Layer.unwrapEffect(
  Effect.map(Effect.all([port("PORT", 8443), port("HEALTH_PORT", 8080)]), ([api, health]) =>
    Layer.merge(Api(api), Health(health))
  )
).pipe(Layer.provide(Layer.merge(WorkloadApi.layer(), AuditLog.layerLogger)))

NodeRuntime.runMain(Layer.launch(Service))
