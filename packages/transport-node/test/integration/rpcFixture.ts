/** Procedures, and every way there is to call them over verified connections, for the tests in this folder. */
import type { IdentityProvider } from "@agentweave/spiffe"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as TestIdentity from "@agentweave/testkit/TestIdentity"
import { type AuditLog, type Connector, PeerIdentity, SecureChannel, SecureSocket } from "@agentweave/transport"
import {
  NodeConnector,
  NodeSecureServer,
  NodeSecureSocketServer,
  NodeSecureWebSocket,
  RpcHttpProtocol
} from "@agentweave/transport-node"
import { HttpRouter, HttpServer, SocketServer } from "@effect/platform"
import { Rpc, RpcClient, RpcGroup, RpcMiddleware, RpcSerialization, RpcServer } from "@effect/rpc"
import { Context, Deferred, Effect, Exit, Layer, Schedule, Schema, Scope, Stream } from "effect"
import { host, type Identity, identityLayer, makeLog, realTime } from "./fixture.js"

export const client = SpiffeId.make("spiffe://example.org/client")
export const server = SpiffeId.make("spiffe://example.org/server")

class Caller extends Context.Tag("Caller")<Caller, SpiffeId.SpiffeId>() {}

class Authenticated extends RpcMiddleware.Tag<Authenticated>()("Authenticated", { provides: Caller }) {}

/** Gives every procedure its verified caller. */
const AuthenticatedLive = Layer.effect(
  Authenticated,
  Effect.map(PeerIdentity.PeerIdentity, (identity) =>
    Authenticated.of(() =>
      Effect.map(PeerIdentity.current, ({ spiffeId }) => spiffeId).pipe(
        Effect.provideService(PeerIdentity.PeerIdentity, identity)
      )
    )
  )
)

export class Procedures extends RpcGroup.make(
  Rpc.make("WhoAmI", { success: Schema.String }),
  Rpc.make("Count", { payload: { to: Schema.Number }, success: Schema.Number, stream: true }),
  Rpc.make("Endless", { success: Schema.String, stream: true }),
  Rpc.make("Ticks", { success: Schema.Number, stream: true }),
  Rpc.make("Never", { success: Schema.Void })
).middleware(Authenticated) {}

/** A size of the pieces of the endless stream at which buffers fill up soon. */
const pieceSize = 64 * 1024

/** One turn of the event loop. */
export const turn = Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))

/** What the procedures tell the test of. */
export interface Seen {
  readonly begun: Deferred.Deferred<void>
  readonly interrupted: Deferred.Deferred<void>
  readonly ended: Deferred.Deferred<void>
  /** Calls of `WhoAmI`. */
  calls: number
  /** Pieces of `Endless` that the server has made. */
  made: number
}

class SeenTag extends Context.Tag("Seen")<SeenTag, Seen>() {}

const ProceduresLive = Procedures.toLayer(
  Effect.map(SeenTag, (seen) => ({
    WhoAmI: () =>
      Effect.tap(Caller, () => {
        seen.calls++
      }),
    Count: ({ to }) => Stream.range(1, to),
    Endless: () =>
      Stream.repeatEffect(
        Effect.map(turn, () => {
          seen.made++
          return `${seen.made}`.padEnd(pieceSize)
        })
      ).pipe(Stream.ensuring(Deferred.succeed(seen.ended, undefined))),
    Ticks: () => Stream.schedule(Stream.range(1, Number.MAX_SAFE_INTEGER), Schedule.spaced("5 millis")),
    Never: () =>
      Effect.zipRight(Deferred.succeed(seen.begun, undefined), Effect.never).pipe(
        Effect.onInterrupt(() => Deferred.succeed(seen.interrupted, undefined))
      )
  }))
)

const listening = { port: 0, host, authorize: PeerMatcher.exactly(client) } as const

/** The port a server listens on. */
class Port extends Context.Tag("Port")<Port, number>() {}

const portOf = ({ address }: { readonly address: HttpServer.Address }): number =>
  address._tag === "TcpAddress" ? address.port : 0

const http = NodeSecureServer.layer({ ...listening, gracefulShutdownTimeout: "10 millis" })

const served = Layer.provide(RpcServer.layer(Procedures), [ProceduresLive, AuthenticatedLive])

const overHttp = (protocol: Layer.Layer<RpcServer.Protocol, never, RpcSerialization.RpcSerialization>) =>
  HttpRouter.Default.serve().pipe(
    Layer.provide(served),
    Layer.provide(protocol),
    Layer.merge(Layer.effect(Port, Effect.map(HttpServer.HttpServer, portOf))),
    Layer.provide(http)
  )

/** The most streams at a time over HTTP, each on a connection of its own. */
export const mostConnections = 4

const config = { connections: mostConnections, timeout: "10 seconds" } as const

const url = (port: number) => `${host}:${port}/rpc`

export interface Way {
  readonly server: Layer.Layer<
    Port,
    unknown,
    IdentityProvider.IdentityProvider | AuditLog.AuditLog | RpcSerialization.RpcSerialization | SeenTag
  >
  readonly client: (
    port: number
  ) => Layer.Layer<
    RpcClient.Protocol,
    unknown,
    Connector.Connector | IdentityProvider.IdentityProvider | RpcSerialization.RpcSerialization
  >
}

const httpClient: Way["client"] = (port) =>
  RpcClient.layerProtocolHttp({ url: `https://${url(port)}` }).pipe(
    Layer.provide(SecureChannel.layerHttpClient({ peer: server, baseUrl: `https://${host}:${port}`, config }))
  )

/** The ways that stop a stream which its client does not read. */
export const pacedWays = {
  HTTP: { server: overHttp(RpcHttpProtocol.layer({ path: "/rpc" })), client: httpClient },
  WebSocket: {
    server: overHttp(RpcServer.layerProtocolWebsocket({ path: "/rpc" })),
    client: (port: number) =>
      Layer.provide(
        RpcClient.layerProtocolSocket(),
        NodeSecureWebSocket.layer({ peer: server, url: `wss://${url(port)}` })
      )
  },
  "a secure socket": {
    server: served.pipe(
      Layer.provide(RpcServer.layerProtocolSocketServer),
      Layer.merge(Layer.effect(Port, Effect.map(SocketServer.SocketServer, portOf))),
      Layer.provide(NodeSecureSocketServer.layer(listening))
    ),
    client: (port: number) =>
      Layer.provide(RpcClient.layerProtocolSocket(), SecureSocket.layerSocket({ peer: server, host, port }))
  }
} satisfies Readonly<Record<string, Way>>

export const ways = {
  ...pacedWays,
  "HTTP, by Effect's own protocol": {
    server: overHttp(RpcServer.layerProtocolHttp({ path: "/rpc" })),
    client: httpClient
  }
} satisfies Readonly<Record<string, Way>>

/** Serves the procedures until the scope, or `close`, ends it. */
export const serveRpc = Effect.fnUntraced(function* (way: Way, identity: Identity) {
  const log = makeLog()
  const seen: Seen = {
    begun: yield* Deferred.make<void>(),
    interrupted: yield* Deferred.make<void>(),
    ended: yield* Deferred.make<void>(),
    calls: 0,
    made: 0
  }
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
  const services = yield* way.server.pipe(
    Layer.provide([identityLayer(identity), log.layer, RpcSerialization.layerNdjson, Layer.succeed(SeenTag, seen)]),
    Layer.buildWithScope(scope)
  )
  return { port: Context.get(services, Port), log, seen, close: Scope.close(scope, Exit.void) }
})

/** A client of the procedures. */
export const callRpc = Effect.fnUntraced(function* (way: Way, port: number, identity: Identity) {
  const log = makeLog()
  const protocol = yield* way
    .client(port)
    .pipe(
      Layer.provide(NodeConnector.layer),
      Layer.provide([identityLayer(identity), log.layer, RpcSerialization.layerNdjson]),
      Layer.build
    )
  return { log, procedures: yield* Effect.provide(RpcClient.make(Procedures), protocol) }
})

/** A server of the procedures and a client of it, of one trust domain. */
export const setUpRpc = Effect.fnUntraced(function* (way: Way) {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const identity = yield* TestIdentity.make(yield* authority.context({ path: "/server" }))
  const clientIdentity = yield* TestIdentity.make(yield* authority.context({ path: "/client" }))
  const served = yield* serveRpc(way, identity)
  const called = yield* callRpc(way, served.port, clientIdentity)
  return { authority, identity, clientIdentity, ...served, ...called, serverLog: served.log }
})
