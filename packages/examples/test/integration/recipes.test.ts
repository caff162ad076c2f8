import { createServer as createNetServer } from "node:net"
import { PeerMatcher, SpiffeId } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { AuditLog, type Connector, IdentityProvider, PeerIdentity, SecureChannel } from "@agentweave/transport"
import { NodeConnector, NodeSecureServer, NodeSecureSocketServer } from "@agentweave/transport-node"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse, SocketServer } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Context, Effect, Layer, Option, Stream } from "effect"
import * as express from "../../src/recipes/express.js"
import * as fetchShim from "../../src/recipes/fetchShim.js"
import * as grpc from "../../src/recipes/grpc.js"
import * as httpApi from "../../src/recipes/httpApi.js"
import * as postgres from "../../src/recipes/postgres.js"
import * as rpcStreaming from "../../src/recipes/rpcStreaming.js"
import * as webSocket from "../../src/recipes/webSocket.js"
import { answerAsPostgres } from "./postgresServer.js"

const host = "127.0.0.1"

/** A trust domain, and what each of its workloads runs on. */
const world = Effect.map(DevAuthority.make({ trustDomain: "example.org" }), (authority) => ({
  platform: (path: string) =>
    Layer.unwrapEffect(
      Effect.map(authority.context({ path }), (context) =>
        NodeConnector.layer.pipe(
          Layer.provideMerge(Layer.merge(IdentityProvider.layerStatic(context), AuditLog.layerMemory([])))
        )
      )
    )
}))

type Platform = Connector.Connector | IdentityProvider.IdentityProvider | AuditLog.AuditLog

const portOf = ({ address }: { readonly address: HttpServer.Address }): number =>
  address._tag === "TcpAddress" ? address.port : 0

/** Serves as one workload and calls as others, for as long as the test. */
const started = <A, E>(path: string, server: Layer.Layer<A, E, Platform>) =>
  Effect.gen(function* () {
    const { platform } = yield* world
    const services = yield* Layer.build(Layer.provide(server, platform(path)))
    return {
      services,
      as: (path: string) => {
        const provided = platform(path)
        return <B, E2, R>(effect: Effect.Effect<B, E2, R>) => Effect.provide(effect, provided)
      }
    }
  })

const httpPort = <A>(services: Context.Context<A | HttpServer.HttpServer>) =>
  portOf(Context.get(services, HttpServer.HttpServer))

const socketAddress = <A>(services: Context.Context<A | SocketServer.SocketServer>) => ({
  host,
  port: portOf(Context.get(services, SocketServer.SocketServer))
})

describe("recipes", () => {
  it.scopedLive("an HttpApi answers its verified caller, and its errors are typed at the client", () =>
    Effect.gen(function* () {
      const { as, services } = yield* started("/billing", httpApi.ServerLive(0))
      const baseUrl = `https://${host}:${httpPort(services)}`
      expect(yield* as("/web")(httpApi.invoice(baseUrl, 42))).toEqual(
        new httpApi.Invoice({ id: 42, readBy: "spiffe://example.org/web" })
      )
      expect(yield* Effect.flip(as("/web")(httpApi.invoice(baseUrl, 7)))).toEqual(
        new httpApi.InvoiceNotFound({ id: 7 })
      )
      expect(yield* Effect.flip(as("/other")(httpApi.invoice(baseUrl, 42)))).toMatchObject({
        _tag: "RequestError",
        cause: { _tag: "IdentityError", reason: "LocalCertificateRefused" }
      })
    })
  )

  it.scopedLive("an RPC stream has a verified caller, ends with its reader, and fails with its typed error", () =>
    Effect.gen(function* () {
      const { as, services } = yield* started("/prices", rpcStreaming.ServerLive(0))
      const watch = (symbol: string) =>
        as("/web")(Stream.runCollect(Stream.take(rpcStreaming.watch(socketAddress(services), symbol), 3)))
      const prices = Chunk.toReadonlyArray(yield* watch("ACME"))
      expect(prices.map((price) => ({ ...price }))).toEqual(
        [100, 101, 102].map((cents) => ({ cents, for: "spiffe://example.org/web" }))
      )
      expect(yield* Effect.flip(watch("NONE"))).toEqual(new rpcStreaming.UnknownSymbol({ symbol: "NONE" }))
    })
  )

  it.scopedLive("a WebSocket greets its caller by name and sends back what comes", () =>
    Effect.gen(function* () {
      const { as, services } = yield* started("/chat", webSocket.ServerLive(0))
      const said = webSocket.talk(
        `wss://${host}:${httpPort(services)}/chat`,
        Stream.concat(Stream.make("one", "two"), Stream.never)
      )
      expect(Chunk.toReadonlyArray(yield* as("/web")(Stream.runCollect(Stream.take(said, 3))))).toEqual([
        "hello spiffe://example.org/web",
        "one",
        "two"
      ])
    })
  )

  it.scopedLive("a library that takes a fetch calls the verified peer, and nobody else", () =>
    Effect.gen(function* () {
      const server = HttpRouter.empty.pipe(
        HttpRouter.post(
          "/v1/completions",
          Effect.gen(function* () {
            const request = yield* HttpServerRequest.HttpServerRequest
            const { spiffeId } = yield* PeerIdentity.caller
            return yield* HttpServerResponse.json({ caller: spiffeId, asked: yield* request.json })
          })
        ),
        HttpServer.serve(),
        Layer.provideMerge(
          NodeSecureServer.layer({
            port: 0,
            authorize: PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/web"))
          })
        )
      )
      const { as, services } = yield* started("/models", server)
      const baseURL = `https://${host}:${httpPort(services)}/v1`
      const complete = (path: string) =>
        as(path)(
          Effect.flatMap(fetchShim.models(baseURL), (models) =>
            Effect.tryPromise({ try: () => models.complete("hello"), catch: (cause) => cause })
          )
        )
      expect(yield* complete("/web")).toEqual({ caller: "spiffe://example.org/web", asked: { prompt: "hello" } })
      expect(yield* Effect.flip(complete("/other"))).toMatchObject({
        cause: { _tag: "IdentityError", reason: "LocalCertificateRefused" }
      })
    })
  )

  it.scopedLive("an Express app knows its caller, and decides who may do what", () =>
    Effect.gen(function* () {
      const { platform } = yield* world
      const address = yield* Effect.provide(express.server(0), platform("/app"))
      const ask = (path: string, method: "get" | "del", url: string) =>
        Effect.gen(function* () {
          const channel = yield* SecureChannel.make({
            peer: "spiffe://example.org/app",
            baseUrl: `https://${host}:${portOf({ address })}`
          })
          const response = yield* channel[method](url)
          return { status: response.status, body: response.status === 204 ? undefined : yield* response.json }
        }).pipe(Effect.scoped, Effect.provide(platform(path)))
      expect(yield* ask("/web", "get", "/whoami")).toEqual({
        status: 200,
        body: { caller: "spiffe://example.org/web" }
      })
      expect(yield* ask("/web", "del", "/users/1")).toEqual({ status: 403, body: { error: "not yours" } })
      expect(yield* ask("/admin", "del", "/users/1")).toEqual({ status: 204, body: undefined })
    })
  )

  it.scopedLive("gRPC goes both ways, unary and as a stream, and the server knows its caller", () =>
    Effect.gen(function* () {
      const { as, services } = yield* started("/greeter", grpc.ServerLive(0))
      const talk = (path: string) =>
        as(path)(
          Effect.flatMap(grpc.greeter(socketAddress(services)), (greeter) =>
            Effect.tryPromise({
              try: async () => {
                const { greeting } = await greeter.greet({ name: "Ada" })
                const requests = async function* () {
                  yield { name: "Grace" }
                  yield { name: "Edsger" }
                }
                const greetings = [greeting]
                for await (const { greeting } of greeter.converse(requests())) greetings.push(greeting)
                return greetings
              },
              catch: (cause) => cause
            })
          )
        )
      expect(yield* talk("/web")).toEqual(
        ["Ada", "Grace", "Edsger"].map((name) => `hello ${name}, says spiffe://example.org/web`)
      )
      expect(yield* Effect.flip(talk("/other"))).toMatchObject({ name: "ConnectError" })
    })
  )

  it.scopedLive("PostgreSQL's driver speaks to the verified database over streams of a factory", () =>
    Effect.gen(function* () {
      const server = Layer.scopedDiscard(
        Effect.flatMap(SocketServer.SocketServer, (server) =>
          Effect.forkScoped(
            Effect.interruptible(
              server.run((socket) =>
                Effect.gen(function* () {
                  const { spiffeId } = yield* PeerIdentity.callerOf(socket)
                  const stream = Option.getOrThrow(NodeSecureSocketServer.toNetSocket(socket))
                  answerAsPostgres(stream, spiffeId)
                  yield* Effect.async<void>((resume) => void stream.once("close", () => resume(Effect.void)))
                })
              )
            )
          )
        )
      ).pipe(
        Layer.provideMerge(
          NodeSecureSocketServer.layer({
            port: 0,
            authorize: PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/web"))
          })
        )
      )
      const { as, services } = yield* started("/db", server)
      const query = (address: { readonly host: string; readonly port: number }) =>
        as("/web")(
          Effect.flatMap(postgres.database(address), (client) =>
            Effect.promise(async () => (await client.query("select current_user")).rows)
          )
        )
      expect(yield* query(socketAddress(services))).toEqual([{ current_user: "spiffe://example.org/web" }])
      // A listener that is no peer at all: the driver is told why.
      const stranger = yield* Effect.acquireRelease(
        Effect.async<ReturnType<typeof createNetServer>>((resume) => {
          const server = createNetServer((socket) =>
            socket
              .on("error", () => {})
              .end("R\0\0\0\u0008\0\0\0\0")
              .resume()
          )
          server.listen(0, host, () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      const address = stranger.address()
      const port = typeof address === "object" && address !== null ? address.port : 0
      expect(yield* Effect.flip(query({ host, port }))).toMatchObject({
        _tag: "UnknownException",
        error: { _tag: "ConnectionError", reason: "NotTls" }
      })
    })
  )
})
