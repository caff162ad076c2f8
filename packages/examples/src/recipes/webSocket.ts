/** A WebSocket between two workloads: the server greets its caller by name, then sends back what comes. */
import { PeerMatcher, SpiffeId } from "@agentweave/spiffe"
import { PeerIdentity } from "@agentweave/transport"
import { NodeSecureServer, NodeSecureWebSocket } from "@agentweave/transport-node"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse, Socket } from "@effect/platform"
import { Effect, Layer, Stream } from "effect"

const chat = Effect.gen(function* () {
  const socket = yield* HttpServerRequest.upgrade
  const { spiffeId } = yield* PeerIdentity.caller
  const write = yield* socket.writer
  yield* socket.run(write, { onOpen: Effect.orDie(write(`hello ${spiffeId}`)) })
  return HttpServerResponse.empty()
}).pipe(Effect.scoped)

export const ServerLive = (port: number) =>
  HttpRouter.empty.pipe(
    HttpRouter.get("/chat", chat),
    HttpServer.serve(),
    Layer.provideMerge(
      NodeSecureServer.layer({ port, authorize: PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/web")) })
    )
  )

/** What the server says: its greeting, then each of our sentences. */
export const talk = (url: string, sentences: Stream.Stream<string>) =>
  Stream.unwrapScoped(
    Effect.map(NodeSecureWebSocket.make({ peer: "spiffe://example.org/chat", url }), (socket) =>
      sentences.pipe(Stream.pipeThroughChannel(Socket.toChannelString(socket)))
    )
  )
