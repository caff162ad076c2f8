/** The server's process: who calls is printed, and `/shaky` fails for as long as it is told to. */
import { PeerMatcher, SpiffeId } from "@agentweave/spiffe"
import { PeerIdentity } from "@agentweave/transport"
import { NodeSecureServer } from "@agentweave/transport-node"
import { WorkloadApi } from "@agentweave/workload-api"
import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { Effect, Layer, Ref } from "effect"
import { apiId, layerAudit, layerInspector, say, send, webId } from "./story.js"

const app = Effect.gen(function* () {
  const failures = yield* Ref.make(0)
  return HttpRouter.empty.pipe(
    HttpRouter.get(
      "/hello",
      Effect.gen(function* () {
        const caller = yield* PeerIdentity.caller
        yield* say("server", `GET /hello called by ${caller.spiffeId}`)
        return HttpServerResponse.text(`hello ${caller.spiffeId}`)
      })
    ),
    HttpRouter.post(
      "/fail/:times",
      Effect.gen(function* () {
        const { times } = yield* HttpRouter.params
        yield* Ref.set(failures, Number(times ?? "0"))
        return HttpServerResponse.empty()
      })
    ),
    HttpRouter.get(
      "/shaky",
      Effect.map(
        Ref.getAndUpdate(failures, (left) => Math.max(0, left - 1)),
        (left) =>
          left > 0 ? HttpServerResponse.text("out of order", { status: 503 }) : HttpServerResponse.text("fine")
      )
    )
  )
})

const announce = Effect.gen(function* () {
  const { address } = yield* HttpServer.HttpServer
  if (address._tag !== "TcpAddress") return
  yield* say("server", `${apiId} listens on 127.0.0.1:${address.port}`)
  yield* send({ _tag: "Ready", port: address.port, ownId: apiId })
})

const Server = Layer.unwrapEffect(Effect.map(app, (router) => HttpServer.serve(router))).pipe(
  Layer.merge(Layer.effectDiscard(announce)),
  Layer.merge(layerInspector("server")),
  Layer.provide(
    NodeSecureServer.layer({ port: 0, host: "127.0.0.1", authorize: PeerMatcher.exactly(SpiffeId.make(webId)) })
  ),
  Layer.provide(layerAudit("server")),
  Layer.provide(WorkloadApi.layer())
)

NodeRuntime.runMain(Layer.launch(Server))
