/** The recipes at work: each server and its client in one process, with identities of a development authority. */
import { IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { AuditLog, SecureChannel } from "@agentweave/transport"
import { NodeConnector } from "@agentweave/transport-node"
import { HttpServer, SocketServer } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { Chunk, Console, Context, Effect, Layer, Stream } from "effect"
import * as express from "./express.js"
import * as grpc from "./grpc.js"
import * as httpApi from "./httpApi.js"
import * as rpcStreaming from "./rpcStreaming.js"
import * as webSocket from "./webSocket.js"

const host = "127.0.0.1"

const addressOf = (address: HttpServer.Address | SocketServer.Address) => ({
  host,
  port: address._tag === "TcpAddress" ? address.port : 0
})

const program = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  /** What the workload of a path runs on. */
  const platform = (path: string) =>
    NodeConnector.layer.pipe(
      Layer.provideMerge(AuditLog.layerMemory([])),
      Layer.provideMerge(Layer.unwrapEffect(Effect.map(authority.context({ path }), IdentityProvider.layerStatic)))
    )
  const http = <E, R>(path: string, server: Layer.Layer<HttpServer.HttpServer, E, R>) =>
    Effect.map(Layer.build(Layer.provide(server, platform(path))), (services) =>
      addressOf(Context.get(services, HttpServer.HttpServer).address)
    )
  const sockets = <E, R>(path: string, server: Layer.Layer<SocketServer.SocketServer, E, R>) =>
    Effect.map(Layer.build(Layer.provide(server, platform(path))), (services) =>
      addressOf(Context.get(services, SocketServer.SocketServer).address)
    )

  const billing = yield* http("/billing", httpApi.ServerLive(0))
  const prices = yield* sockets("/prices", rpcStreaming.ServerLive(0))
  const chat = yield* http("/chat", webSocket.ServerLive(0))
  const greeters = yield* sockets("/greeter", grpc.ServerLive(0))
  const app = addressOf(yield* Effect.provide(express.server(0), platform("/app")))

  yield* Effect.gen(function* () {
    const invoice = yield* httpApi.invoice(`https://${host}:${billing.port}`, 42)
    yield* Console.log(`HttpApi: invoice ${invoice.id}, read by ${invoice.readBy}`)
    const three = yield* Stream.runCollect(Stream.take(rpcStreaming.watch(prices, "ACME"), 3))
    yield* Console.log(`RPC: ${Chunk.toReadonlyArray(three).map(({ cents }) => cents)}`)
    const said = webSocket.talk(`wss://${host}:${chat.port}/chat`, Stream.concat(Stream.make("one"), Stream.never))
    yield* Console.log(`WebSocket: ${Chunk.toReadonlyArray(yield* Stream.runCollect(Stream.take(said, 2)))}`)
    const greeter = yield* grpc.greeter(greeters)
    const { greeting } = yield* Effect.promise(() => greeter.greet({ name: "Ada" }))
    yield* Console.log(`gRPC: ${greeting}`)
    const channel = yield* SecureChannel.make({ peer: authority.id("/app"), baseUrl: `https://${host}:${app.port}` })
    const whoami = yield* Effect.flatMap(channel.get("/whoami"), ({ text }) => text)
    yield* Console.log(`Express: ${whoami}`)
  }).pipe(Effect.scoped, Effect.provide(platform("/web")))
})

NodeRuntime.runMain(Effect.scoped(program))
