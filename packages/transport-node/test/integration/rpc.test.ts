import { IdentityProvider } from "@agentweave/spiffe"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import {
  type AuditEvent,
  AuditLog,
  type Connector,
  PeerIdentity,
  SecureChannel,
  SecureSocket
} from "@agentweave/transport"
import {
  NodeConnector,
  NodeSecureServer,
  NodeSecureSocketServer,
  NodeSecureWebSocket
} from "@agentweave/transport-node"
import { HttpRouter, HttpServer, SocketServer } from "@effect/platform"
import { Rpc, RpcClient, RpcGroup, RpcMiddleware, RpcSerialization, RpcServer } from "@effect/rpc"
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Context, Deferred, Effect, Fiber, Layer, Schema, Stream } from "effect"
import { host, realTime } from "./fixture.js"

const client = SpiffeId.make("spiffe://example.org/client")
const server = SpiffeId.make("spiffe://example.org/server")

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

class Procedures extends RpcGroup.make(
  Rpc.make("WhoAmI", { success: Schema.String }),
  Rpc.make("Count", { payload: { to: Schema.Number }, success: Schema.Number, stream: true }),
  Rpc.make("Endless", { success: Schema.Number, stream: true }),
  Rpc.make("Never", { success: Schema.Void })
).middleware(Authenticated) {}

/** What the procedures tell the test of. */
class Seen extends Context.Tag("Seen")<
  Seen,
  Readonly<Record<"begun" | "interrupted" | "ended", Deferred.Deferred<void>>>
>() {}

const ProceduresLive = Procedures.toLayer(
  Effect.map(Seen, (seen) => ({
    WhoAmI: () => Caller,
    Count: ({ to }) => Stream.range(1, to),
    Endless: () =>
      Stream.repeatEffect(Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))).pipe(
        Stream.as(1),
        Stream.ensuring(Deferred.succeed(seen.ended, undefined))
      ),
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

const url = (port: number) => `${host}:${port}/rpc`

interface Way {
  readonly server: Layer.Layer<
    Port,
    unknown,
    IdentityProvider.IdentityProvider | AuditLog.AuditLog | RpcSerialization.RpcSerialization | Seen
  >
  readonly client: (
    port: number
  ) => Layer.Layer<
    RpcClient.Protocol,
    unknown,
    Connector.Connector | IdentityProvider.IdentityProvider | RpcSerialization.RpcSerialization
  >
}

/** Every way to call the same procedures. */
const ways: Readonly<Record<string, Way>> = {
  HTTP: {
    server: overHttp(RpcServer.layerProtocolHttp({ path: "/rpc" })),
    client: (port: number) =>
      RpcClient.layerProtocolHttp({ url: `https://${url(port)}` }).pipe(
        Layer.provide(SecureChannel.layerHttpClient({ peer: server, baseUrl: `https://${host}:${port}` }))
      )
  },
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
}

const setUp = Effect.fnUntraced(function* (way: Way) {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const identityOf = (path: string) => Effect.map(authority.context({ path }), IdentityProvider.layerStatic)
  const seen = yield* Effect.all({
    begun: Deferred.make<void>(),
    interrupted: Deferred.make<void>(),
    ended: Deferred.make<void>()
  })
  const services = yield* Layer.build(
    Layer.provide(way.server, [
      yield* identityOf("/server"),
      AuditLog.layerMemory([]),
      RpcSerialization.layerNdjson,
      Layer.succeed(Seen, seen)
    ])
  )
  const port = Context.get(services, Port)
  const events: Array<AuditEvent.AuditEvent> = []
  const protocol = yield* way
    .client(port)
    .pipe(
      Layer.provide(NodeConnector.layer),
      Layer.provide([yield* identityOf("/client"), AuditLog.layerMemory(events), RpcSerialization.layerNdjson]),
      Layer.build
    )
  return { seen, events, procedures: yield* Effect.provide(RpcClient.make(Procedures), protocol) }
})

for (const [name, way] of Object.entries(ways)) {
  describe(`RPC over ${name}`, () => {
    it.scoped("a middleware knows the verified caller", () =>
      Effect.gen(function* () {
        const { procedures } = yield* setUp(way)
        expect(yield* procedures.WhoAmI()).toBe(client)
      })
    )

    it.scoped("streams come whole, several at a time", () =>
      Effect.gen(function* () {
        const { procedures } = yield* setUp(way)
        const counts = yield* Effect.all(
          [1, 100, 1000].map((to) => Stream.runCount(procedures.Count({ to }))),
          { concurrency: "unbounded" }
        )
        expect(counts).toEqual([1, 100, 1000])
      })
    )

    it.scoped("a stream whose reader has enough ends at the server too", () =>
      Effect.gen(function* () {
        const { procedures, seen } = yield* setUp(way)
        expect(Chunk.size(yield* Stream.runCollect(Stream.take(procedures.Endless(), 3)))).toBe(3)
        expect(yield* procedures.WhoAmI()).toBe(client)
        yield* Deferred.await(seen.ended)
      })
    )

    it.scoped("an interrupted call is interrupted at the server", () =>
      Effect.gen(function* () {
        const { procedures, seen } = yield* setUp(way)
        const call = yield* Effect.fork(procedures.Never())
        yield* Deferred.await(seen.begun)
        yield* Fiber.interrupt(call)
        yield* Deferred.await(seen.interrupted)
        expect(yield* procedures.WhoAmI()).toBe(client)
      })
    )
  })
}
