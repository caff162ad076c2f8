import { DevAuthority, Fault, FaultProxy } from "@agentweave/testkit"
import { NodeConnector } from "@agentweave/transport-node"
import { HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { describe } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import { connectorEnd, type World } from "../../../transport/test/connectorEnd.js"
import { host, identityLayer, makeLog, startServer } from "./fixture.js"

const world = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const log = makeLog()
  const server = yield* startServer({
    identity: yield* authority.context({ path: "/server" }),
    authorize: authority.id("/client"),
    gracefulShutdownTimeout: 0,
    app: Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ url }) => {
      if (url === "/") return Effect.succeed(HttpServerResponse.text("whole"))
      if (url !== "/half") return Effect.never
      return Effect.succeed(HttpServerResponse.stream(Stream.concat(Stream.make(new Uint8Array(3)), Stream.never)))
    })
  })
  const silent = yield* FaultProxy.make({ port: 1 })
  yield* silent.setFault(Fault.silence)
  const world: World = {
    services: NodeConnector.layer.pipe(
      Layer.provideMerge(identityLayer(yield* authority.context({ path: "/client" }))),
      Layer.provide(log.layer)
    ),
    peer: authority.id("/server"),
    baseUrl: `https://${host}:${server.port}`,
    silentUrl: `https://${silent.host}:${silent.port}`,
    events: log.events,
    awaitRequests: (count) => server.log.nth("RequestStarted", count - 1)
  }
  return world
})

describe("when the scope of NodeConnector's layer ends", () => {
  connectorEnd(world)
})
