import { createServer } from "node:http"
import { type IdentityProvider, PeerMatcher, SpiffeId } from "@agentweave/spiffe"
import { type AuditLog, PeerIdentity } from "@agentweave/transport"
import { NodeSecureServer, NodeSecureSocketServer, RpcHttpProtocol } from "@agentweave/transport-node"
import {
  HttpApi,
  HttpApiBuilder,
  HttpApiEndpoint,
  HttpApiGroup,
  HttpRouter,
  HttpServer,
  HttpServerRequest,
  HttpServerResponse,
  SocketServer
} from "@effect/platform"
import { NodeHttpServer, NodeSocketServer } from "@effect/platform-node"
import { Rpc, RpcGroup, RpcMiddleware, RpcSerialization, RpcServer } from "@effect/rpc"
import { Effect, Layer, Schema } from "effect"
import { describe, expectTypeOf, it } from "vitest"

// Only their types are looked at: `tsc` is what fails here.
const types = (_: () => unknown) => {}

type Needed<L> = L extends Layer.Layer<infer _Out, infer _E, infer R> ? R : never
type Verified = PeerIdentity.PeerIdentity
type Platform = IdentityProvider.IdentityProvider | AuditLog.AuditLog

const authorize = PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/web"))
const insecure = { http: NodeHttpServer.layer(createServer, { port: 0 }), socket: NodeSocketServer.layer({ port: 0 }) }
const secure = {
  http: NodeSecureServer.layer({ port: 0, authorize }),
  socket: NodeSecureSocketServer.layer({ port: 0, authorize })
}

const app = HttpServer.serve(Effect.map(PeerIdentity.caller, ({ spiffeId }) => HttpServerResponse.text(spiffeId)))

const webSocketApp = HttpServer.serve(
  Effect.gen(function* () {
    const socket = yield* HttpServerRequest.upgrade
    const { spiffeId } = yield* PeerIdentity.current
    const write = yield* socket.writer
    yield* socket.run(() => write(spiffeId))
    return HttpServerResponse.empty()
  }).pipe(Effect.scoped)
)

class Greeting extends HttpApi.make("api").add(
  HttpApiGroup.make("group").add(HttpApiEndpoint.get("whoami", "/").addSuccess(Schema.String))
) {}

const api = HttpApiBuilder.serve().pipe(
  Layer.provide(HttpApiBuilder.api(Greeting)),
  Layer.provide(
    HttpApiBuilder.group(Greeting, "group", (handlers) =>
      handlers.handle("whoami", () => Effect.map(PeerIdentity.caller, ({ spiffeId }): string => spiffeId))
    )
  )
)

const socketHandlers = Layer.scopedDiscard(
  Effect.flatMap(SocketServer.SocketServer, (server) =>
    Effect.forkScoped(server.run((socket) => PeerIdentity.callerOf(socket)))
  )
)

class Checked extends RpcMiddleware.Tag<Checked>()("Checked") {}
class Procedures extends RpcGroup.make(Rpc.make("Ping")).middleware(Checked) {}

const rpc = RpcServer.layer(Procedures).pipe(
  Layer.provide(Procedures.toLayer({ Ping: () => Effect.void })),
  Layer.provide(
    Layer.effect(
      Checked,
      Effect.map(PeerIdentity.PeerIdentity, () => () => Effect.void)
    )
  )
)
const rpcOverHttp = HttpRouter.Default.serve().pipe(
  Layer.provide(rpc),
  Layer.provide(RpcHttpProtocol.layer({ path: "/rpc" })),
  Layer.provide(RpcSerialization.layerNdjson)
)
const rpcOverSocket = rpc.pipe(
  Layer.provide(RpcServer.layerProtocolSocketServer),
  Layer.provide(RpcSerialization.layerNdjson)
)

describe("a program that asks for its caller is whole with a secure server, and cannot be run without one", () => {
  it("an HTTP app", () =>
    types(() => {
      const [without, whole] = [Layer.provide(app, insecure.http), Layer.provide(app, secure.http)]
      expectTypeOf<Needed<typeof without>>().toEqualTypeOf<Verified>()
      expectTypeOf<Needed<typeof whole>>().toEqualTypeOf<Platform>()
      // @ts-expect-error there is no caller without a secure server
      Effect.runFork(Layer.launch(without))
    }))

  it("a WebSocket", () =>
    types(() => {
      const [without, whole] = [Layer.provide(webSocketApp, insecure.http), Layer.provide(webSocketApp, secure.http)]
      expectTypeOf<Needed<typeof without>>().toEqualTypeOf<Verified>()
      expectTypeOf<Needed<typeof whole>>().toEqualTypeOf<Platform>()
    }))

  it("an HttpApi", () =>
    types(() => {
      const [without, whole] = [Layer.provide(api, insecure.http), Layer.provide(api, secure.http)]
      expectTypeOf<Needed<typeof without>>().toEqualTypeOf<Verified>()
      expectTypeOf<Needed<typeof whole>>().toEqualTypeOf<Platform>()
    }))

  it("a handler of sockets", () =>
    types(() => {
      const without = Layer.provide(socketHandlers, insecure.socket)
      const whole = Layer.provide(socketHandlers, secure.socket)
      expectTypeOf<Needed<typeof without>>().toEqualTypeOf<Verified>()
      expectTypeOf<Needed<typeof whole>>().toEqualTypeOf<Platform>()
    }))

  it("procedures over HTTP and over sockets", () =>
    types(() => {
      const [http, socket] = [Layer.provide(rpcOverHttp, insecure.http), Layer.provide(rpcOverSocket, insecure.socket)]
      expectTypeOf<Needed<typeof http>>().toEqualTypeOf<Verified>()
      expectTypeOf<Needed<typeof socket>>().toEqualTypeOf<Verified>()
      const whole = Layer.merge(Layer.provide(rpcOverHttp, secure.http), Layer.provide(rpcOverSocket, secure.socket))
      expectTypeOf<Needed<typeof whole>>().toEqualTypeOf<Platform>()
    }))
})
