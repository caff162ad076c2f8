/** The same procedures by RPC: over secure sockets, and over what a careful user of Effect's own sockets would write. */
import { createServer, type TLSSocket } from "node:tls"
import { IdentityProvider, PeerMatcher } from "@agentweave/spiffe"
import { NodeSecureSocketServer } from "@agentweave/transport-node"
import { SocketServer } from "@effect/platform"
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import { Rpc, RpcGroup, RpcSerialization, RpcServer } from "@effect/rpc"
import { Effect, FiberSet, Layer, ManagedRuntime, Schema, Stream } from "effect"
import { layerCounting, recorded } from "../harness/audit.js"
import type { ServerSubject } from "../harness/Benchmark.js"
import { clientId, contextOf } from "../harness/credentials.js"
import { tlsOptions } from "../harness/tls.js"
import { listen } from "./listen.js"
import { small } from "./plain.js"

const Small = Schema.Struct({
  id: Schema.Number,
  name: Schema.String,
  tags: Schema.Array(Schema.String),
  price: Schema.Struct({ amount: Schema.Number, unit: Schema.String })
})

export class Procedures extends RpcGroup.make(
  Rpc.make("Get", { success: Small }),
  Rpc.make("List", { payload: { count: Schema.Number }, success: Small, stream: true })
) {}

const ProceduresLive = Procedures.toLayer({
  Get: () => Effect.succeed(small),
  List: ({ count }) => Stream.repeatEffect(Effect.succeed(small)).pipe(Stream.take(count), Stream.rechunk(10))
})

const serve = async <E>(server: Layer.Layer<SocketServer.SocketServer, E>): Promise<{ readonly port: number }> => {
  const runtime = ManagedRuntime.make(
    RpcServer.layer(Procedures, { disableTracing: true }).pipe(
      Layer.provide([ProceduresLive, RpcServer.layerProtocolSocketServer]),
      Layer.provide(RpcSerialization.layerNdjson),
      Layer.provideMerge(server)
    )
  )
  const { address } = await runtime.runPromise(SocketServer.SocketServer)
  if (address._tag !== "TcpAddress") throw new Error("expected a TCP address")
  return { port: address.port }
}

export const secureRpcServer: ServerSubject = {
  start: ({ credentials }) =>
    serve(
      NodeSecureSocketServer.layer({ port: 0, host: "127.0.0.1", authorize: PeerMatcher.exactly(clientId) }).pipe(
        Layer.provide(layerCounting(recorded())),
        Layer.provide(IdentityProvider.layerStatic(contextOf(credentials, credentials.server)))
      )
    )
}

/** Effect's `NodeSocketServer` takes no TLS: its sockets over `node:tls`, each with a handler as it has it. */
export const plainRpcServer: ServerSubject = {
  start: async ({ credentials }) => {
    const server = createServer({
      ...tlsOptions(credentials, credentials.server),
      requestCert: true,
      rejectUnauthorized: true
    })
    const { port } = await listen(server)
    const run: SocketServer.SocketServer["Type"]["run"] = (handler) =>
      Effect.scoped(
        Effect.gen(function* () {
          const runFork = yield* FiberSet.makeRuntime<never>()
          const context = yield* Effect.context<Effect.Effect.Context<ReturnType<typeof handler>>>()
          return yield* Effect.async<never>(() => {
            const onConnection = (socket: TLSSocket) => {
              socket.setNoDelay(true)
              const open = Effect.acquireRelease(Effect.succeed(socket), () => Effect.sync(() => socket.destroySoon()))
              const served = NodeSocket.fromDuplex(open).pipe(
                Effect.flatMap(handler),
                Effect.provide(context),
                Effect.ignoreLogged
              )
              runFork(served)
            }
            server.on("secureConnection", onConnection)
            return Effect.sync(() => server.off("secureConnection", onConnection))
          })
        })
      )
    return serve(
      Layer.succeed(SocketServer.SocketServer, {
        address: { _tag: "TcpAddress", hostname: "127.0.0.1", port },
        run
      })
    )
  }
}
