import type { Socket as NetSocket } from "node:net"
import { connect as connectTls } from "node:tls"
import { PeerMatcher } from "@agentweave/spiffe"
import { FaultProxy } from "@agentweave/testkit"
import { Connector, SecureSocket } from "@agentweave/transport"
import { NodeConnector, NodeSecureSocketServer } from "@agentweave/transport-node"
import { type Socket, SocketServer } from "@effect/platform"
import { describe } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Layer, Queue, Scope } from "effect"
import { makeParties } from "../../../transport/test/lifeParties.js"
import { type LifeRecord, limits } from "../../../transport/test/lifeSide.js"
import { type StreamSide, streamLife } from "../../../transport/test/streamLife.js"
import { host, hostileServer, presented as ofNode } from "./fixture.js"

const layerScope = Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))

const client = (record: LifeRecord): Effect.Effect<StreamSide, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const { identity, layer, peer, present } = yield* makeParties
    const scope = yield* layerScope
    const services = yield* NodeConnector.layer.pipe(Layer.provide([layer, record.layer]), Layer.buildWithScope(scope))
    const open: StreamSide["open"] = (presented) =>
      Effect.gen(function* () {
        const accepted: Array<NetSocket> = []
        let reads = false
        const server = yield* hostileServer(yield* present(presented), {
          onSecure: (socket) => accepted.push(socket),
          onRequest: (socket) => {
            if (!reads) socket.pause()
          }
        })
        const proxy = yield* FaultProxy.make({ port: server.port })
        const config = { maxConnectionAge: limits.age }
        const socket = yield* SecureSocket.connect({ peer, host, port: proxy.port, config }).pipe(
          Effect.provideService(Connector.Connector, Context.get(services, Connector.Connector))
        )
        const read = Effect.sync(() => {
          reads = true
          for (const socket of accepted) socket.resume()
        })
        return { socket, lose: proxy.cutAll, goneAtPeer: Effect.zipRight(read, server.idle) }
      })
    return { identity, end: Scope.close(scope, Exit.void), open }
  })

const server = (record: LifeRecord): Effect.Effect<StreamSide, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const { identity, layer, peer, present } = yield* makeParties
    const scope = yield* layerScope
    const authorize = PeerMatcher.exactly(peer)
    const services = yield* NodeSecureSocketServer.layer({
      port: 0,
      host,
      authorize,
      maxConnectionAge: limits.age
    }).pipe(Layer.provide([layer, record.layer]), Layer.buildWithScope(scope))
    const { address, run } = Context.get(services, SocketServer.SocketServer)
    if (address._tag !== "TcpAddress") return yield* Effect.dieMessage("expected a TCP address")
    const proxy = yield* FaultProxy.make({ port: address.port })
    const accepted = yield* Queue.unbounded<Socket.Socket>()
    // In the scope of the test: a handler is there until its connection has ended.
    yield* Effect.forkScoped(run((socket) => Effect.zipRight(Queue.offer(accepted, socket), Effect.never)))
    const open: StreamSide["open"] = (presented) =>
      Effect.gen(function* () {
        const credentials = ofNode(yield* present(presented))
        const closed = yield* Deferred.make<void>()
        const tls = yield* Effect.acquireRelease(
          Effect.sync(() => connectTls({ host, port: proxy.port, ...credentials, rejectUnauthorized: false })),
          (tls) => Effect.sync(() => tls.destroy())
        )
        tls.on("error", () => {}).once("close", () => Deferred.unsafeDone(closed, Effect.void))
        const read = Effect.sync(() => tls.resume())
        const socket = yield* Queue.take(accepted)
        return { socket, lose: proxy.cutAll, goneAtPeer: Effect.zipRight(read, Deferred.await(closed)) }
      })
    return { identity, end: Scope.close(scope, Exit.void), open }
  })

describe("a client's stream over sockets", () => {
  streamLife(client)
})

describe("a server's stream over sockets", () => {
  streamLife(server)
})
