import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { IdentityProvider, PeerMatcher, SpiffeBundle, SpiffeId, X509Bundle, X509Svid } from "@agentweave/spiffe"
import { DevAuthority, Fault, FaultProxy, TestConnector } from "@agentweave/testkit"
import { AuditLog, Connector, SecureChannel, SecureSocket } from "@agentweave/transport"
import {
  AuditAnchor,
  type BundleEndpoint,
  FederatedBundles,
  NodeAuditLog,
  NodeConnector,
  NodeDispatcher,
  NodeIdentity,
  NodeSecureServer,
  NodeSecureSocketServer,
  NodeSecureWebSocket
} from "@agentweave/transport-node"
import { FetchHttpClient, HttpClient, HttpServer, Socket, SocketServer } from "@effect/platform"
import { describe } from "@effect/vitest"
import { Config, Effect, Layer, Redacted, Scope } from "effect"
import { providerEnd } from "../../../spiffe/test/support/providerEnd.js"
import { eachEnds, row } from "../../../spiffe/test/support/uninterruptible.js"
import { layerOneSided } from "../../src/internal/client/connector.js"
import { folder, refused } from "./auditEvents.js"
import { host, startClient, startServer } from "./fixture.js"

const authority = Effect.cached(DevAuthority.make({ trustDomain: "example.org" })).pipe(Effect.runSync)
const contextOf = (path: string) => Effect.flatMap(authority, (_) => _.context({ path }))
const identityOf = (path: string) => Effect.map(contextOf(path), IdentityProvider.layerStatic)
const clientId = SpiffeId.make("spiffe://example.org/client")
const serverId = SpiffeId.make("spiffe://example.org/server")

const record = Effect.flatMap(AuditLog.AuditLog, (log) => Effect.sync(() => log.unsafeRecord(refused(1))))

/** The files of an identity. */
const files = Effect.gen(function* () {
  const path = yield* folder
  const { bundles, svid } = yield* contextOf("/client")
  const [bundle] = bundles.bundles.values()
  const found = { certificate: join(path, "svid.pem"), key: join(path, "key.pem"), bundle: join(path, "bundle.pem") }
  writeFileSync(found.certificate, X509Svid.certificatesPem(svid))
  writeFileSync(found.key, Redacted.value(X509Svid.privateKeyPem(svid)))
  writeFileSync(found.bundle, bundle === undefined ? "" : X509Bundle.toPem(bundle))
  return { ...found, pollInterval: "1 millis" as const }
})

/** Endpoints that accept connections and never say a word. */
const silentEndpoints = Effect.gen(function* () {
  const proxy = yield* FaultProxy.make({ port: 1 })
  yield* proxy.setFault(Fault.silence)
  const foreign = yield* DevAuthority.make({ trustDomain: "partner.example" })
  const url = `https://localhost:${proxy.port}/bundle.json`
  const endpoints: ReadonlyArray<BundleEndpoint.Options> = [
    { profile: "https_web", trustDomain: "other.example", url },
    {
      profile: "https_spiffe",
      trustDomain: "partner.example",
      endpointId: "spiffe://partner.example/bundles",
      bundle: SpiffeBundle.toJson(SpiffeBundle.make({ x509Bundle: foreign.bundle })),
      url
    }
  ]
  return endpoints
})

/** A request that is answered, on a connection that nobody closes. */
const request = (port: number) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const options = { peer: serverId, baseUrl: `https://${host}:${port}` }
    const channel = yield* Scope.extend(SecureChannel.make(options), scope)
    yield* Effect.flatMap(channel.get("/"), (response) => response.text)
  })

/** A server that is asked, by a client that leaves its connection open and waits for an answer that does not come. */
const servedAndHeld = Effect.gen(function* () {
  const address = yield* Effect.map(HttpServer.HttpServer, (server) => server.address)
  const scope = yield* Scope.make()
  const client = yield* Scope.extend(startClient(yield* contextOf("/client")), scope)
  const to = { port: address._tag === "TcpAddress" ? address.port : 0, peer: serverId }
  const channel = yield* Scope.extend(client.channel(to), scope)
  yield* Effect.forkDaemon(Effect.exit(channel.get("/")))
  yield* client.log.nth("RequestStarted")
})

/** What WebSockets are opened with, to a server that accepts connections and never says a word. */
const webSocketRow = <A>(
  layer: (options: NodeSecureWebSocket.Options) => Layer.Layer<A, unknown, Connector.Connector>
) =>
  Effect.gen(function* () {
    const proxy = yield* FaultProxy.make({ port: 1 })
    yield* proxy.setFault(Fault.silence)
    const services = Layer.merge(yield* identityOf("/client"), AuditLog.layerMemory([]))
    const connector = Layer.provide(NodeConnector.layer, services)
    return Layer.provide(layer({ peer: serverId, url: `wss://localhost:${proxy.port}/` }), connector)
  })

const refusedWebSocket = Effect.map(Socket.WebSocketConstructor, (make) => {
  make("wss://elsewhere.test/").addEventListener("error", () => {})
})

/** A `fetch` whose answer does not come. */
const fetchHeld = Effect.flatMap(FetchHttpClient.Fetch, (fetch) =>
  Effect.forkDaemon(Effect.exit(Effect.tryPromise(() => fetch("https://server.test/"))))
)

/** A socket server that serves a client without end. */
const socketHeld = Effect.gen(function* () {
  const { address, run } = yield* SocketServer.SocketServer
  yield* Effect.forkDaemon(run(() => Effect.interruptible(Effect.never)))
  const scope = yield* Scope.make()
  const client = yield* Scope.extend(startClient(yield* contextOf("/client")), scope)
  const options = { peer: serverId, host, port: address._tag === "TcpAddress" ? address.port : 0 }
  yield* SecureSocket.connect(options).pipe(
    Effect.provideService(Connector.Connector, client.connector),
    Scope.extend(scope)
  )
})

const connectorRow = (connector: typeof NodeConnector.layer) =>
  Effect.gen(function* () {
    const authorize = PeerMatcher.exactly(clientId)
    const server = yield* startServer({ identity: yield* contextOf("/server"), authorize })
    const services = Layer.merge(yield* identityOf("/client"), AuditLog.layerMemory([]))
    const used = Layer.effectDiscard(request(server.port))
    return Layer.provideMerge(used, Layer.provideMerge(connector, services))
  })

const channel = Effect.gen(function* () {
  const network = yield* TestConnector.make()
  const services = Layer.provideMerge(
    network.layer,
    Layer.merge(yield* identityOf("/client"), AuditLog.layerMemory([]))
  )
  const context = yield* Layer.build(services)
  return yield* Effect.provide(SecureChannel.make({ peer: serverId, baseUrl: "https://server.test" }), context)
})
const store = Effect.flatMap(AuditAnchor.AuditAnchor, (anchor) => anchor.latest)

const federated = Effect.gen(function* () {
  const endpoints = yield* silentEndpoints
  const own = Layer.merge(yield* identityOf("/client"), AuditLog.layerMemory([]))
  return Layer.provide(FederatedBundles.layer({ endpoints, initialWait: "1 millis" }), own)
})

describe("every layer of the transport for Node", () => {
  eachEnds(new URL("../../src/", import.meta.url), [
    row(
      "AuditAnchor.layerFile",
      Effect.map(folder, (path) => AuditAnchor.layerFile({ path: join(path, "anchor") })),
      store
    ),
    row(
      "AuditAnchor.layerChannel",
      Effect.map(channel, (channel) => AuditAnchor.layerChannel(channel)),
      Effect.exit(store)
    ),
    row("FederatedBundles.layer", federated),
    row(
      "NodeAuditLog.layerFile",
      Effect.gen(function* () {
        const path = join(yield* folder, "audit.ndjson")
        return Layer.provide(NodeAuditLog.layerFile({ path }), yield* identityOf("/client"))
      }),
      record
    ),
    row("NodeConnector.layer", connectorRow(NodeConnector.layer)),
    row(
      "NodeDispatcher.layerFetch",
      Effect.succeed(
        Layer.provide(
          NodeDispatcher.layerFetch,
          Layer.succeed(
            HttpClient.HttpClient,
            HttpClient.make(() => Effect.interruptible(Effect.never))
          )
        )
      ),
      fetchHeld
    ),
    row("the connector of bundle endpoints", connectorRow(layerOneSided)),
    row("NodeIdentity.layerFiles", Effect.map(files, NodeIdentity.layerFiles)),
    row(
      "NodeIdentity.layerFilesConfig",
      Effect.map(files, ({ bundle, certificate, key }) =>
        NodeIdentity.layerFilesConfig({
          certificate: Config.succeed(certificate),
          key: Config.succeed(key),
          bundle: Config.succeed(bundle)
        })
      )
    ),
    row(
      "NodeSecureServer.layer",
      Effect.map(identityOf("/server"), (identity) =>
        HttpServer.serve(Effect.interruptible(Effect.never)).pipe(
          Layer.provideMerge(
            NodeSecureServer.layer({
              port: 0,
              host,
              authorize: PeerMatcher.exactly(clientId),
              gracefulShutdownTimeout: "10 millis"
            })
          ),
          Layer.provide(Layer.merge(identity, AuditLog.layerMemory([])))
        )
      ),
      servedAndHeld
    ),
    row(
      "NodeSecureServer.layerListener",
      Effect.map(identityOf("/server"), (identity) =>
        NodeSecureServer.layerListener(() => {}, { port: 0, host, authorize: PeerMatcher.exactly(clientId) }).pipe(
          Layer.provide(Layer.merge(identity, AuditLog.layerMemory([])))
        )
      )
    ),
    row(
      "NodeSecureWebSocket.layer",
      webSocketRow(NodeSecureWebSocket.layer),
      Effect.flatMap(Socket.Socket, (socket) => Effect.forkDaemon(Effect.exit(socket.run(() => {}))))
    ),
    row("NodeSecureWebSocket.layerConstructor", webSocketRow(NodeSecureWebSocket.layerConstructor), refusedWebSocket),
    row(
      "NodeSecureSocketServer.layer",
      Effect.map(identityOf("/server"), (identity) =>
        NodeSecureSocketServer.layer({ port: 0, host, authorize: PeerMatcher.exactly(clientId) }).pipe(
          Layer.provide(Layer.merge(identity, AuditLog.layerMemory([])))
        )
      ),
      socketHeld
    )
  ])
})

describe("a source of identity whose scope has ended", () => {
  providerEnd("NodeIdentity.layerFiles", Effect.map(files, NodeIdentity.layerFiles))
  providerEnd("FederatedBundles.layer", federated)
})
