/** gRPC by connect-es over verified HTTP/2 connections, in both roles: unary calls, and streams in both directions. */
import { createServer } from "node:http2"
import { PeerMatcher, SpiffeId } from "@agentweave/spiffe"
import { PeerIdentity } from "@agentweave/transport"
import { NodeSecureSocket, NodeSecureSocketServer } from "@agentweave/transport-node"
import { type ConnectRouter, createClient, createContextKey, createContextValues } from "@connectrpc/connect"
import { connectNodeAdapter, createGrpcTransport } from "@connectrpc/connect-node"
import { type Socket, SocketServer } from "@effect/platform"
import { Effect, Layer, Option } from "effect"
import { Greeter } from "./grpc/greeter_pb.js"

const callerKey = createContextKey("", { description: "the SPIFFE ID of the caller" })

const routes = ({ service }: ConnectRouter) =>
  service(Greeter, {
    greet: ({ name }, { values }) => ({ greeting: `hello ${name}, says ${values.get(callerKey)}` }),
    async *converse(requests, { values }) {
      for await (const { name } of requests) yield { greeting: `hello ${name}, says ${values.get(callerKey)}` }
    }
  })

/** Speaks HTTP/2 on a connection that has come in, until it ends. */
const serve = (socket: Socket.Socket) =>
  Effect.gen(function* () {
    const { spiffeId } = yield* PeerIdentity.callerOf(socket)
    const stream = Option.getOrThrow(NodeSecureSocketServer.toNetSocket(socket))
    const contextValues = () => createContextValues().set(callerKey, spiffeId)
    createServer(connectNodeAdapter({ routes, contextValues })).emit("connection", stream)
    yield* Effect.async<void>((resume) => void stream.once("close", () => resume(Effect.void)))
  })

export const ServerLive = (port: number) =>
  Layer.scopedDiscard(
    Effect.flatMap(SocketServer.SocketServer, (server) => Effect.forkScoped(Effect.interruptible(server.run(serve))))
  ).pipe(
    Layer.provideMerge(
      NodeSecureSocketServer.layer({
        port,
        protocols: ["h2"],
        authorize: PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/web"))
      })
    )
  )

/** A client whose sessions are opened when they are needed, each verified; they end with the scope. */
export const greeter = (address: { readonly host: string; readonly port: number }) =>
  Effect.map(
    NodeSecureSocket.makeFactory({ peer: "spiffe://example.org/greeter", protocols: ["h2"], ...address }),
    (createConnection) =>
      createClient(
        Greeter,
        createGrpcTransport({ baseUrl: `https://${address.host}:${address.port}`, nodeOptions: { createConnection } })
      )
  )
