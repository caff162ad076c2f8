import { randomBytes } from "node:crypto"
import { type TLSSocket, connect as tlsConnect } from "node:tls"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as X509BundleSet from "@agentweave/spiffe/X509BundleSet"
import * as X509Context from "@agentweave/spiffe/X509Context"
import * as X509Svid from "@agentweave/spiffe/X509Svid"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as TestIdentity from "@agentweave/testkit/TestIdentity"
import * as Connector from "@agentweave/transport/Connector"
import * as PeerIdentity from "@agentweave/transport/PeerIdentity"
import * as SecureChannel from "@agentweave/transport/SecureChannel"
import * as NodeSecureServer from "@agentweave/transport-node/NodeSecureServer"
import * as HttpApi from "@effect/platform/HttpApi"
import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import * as HttpApiClient from "@effect/platform/HttpApiClient"
import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as HttpRouter from "@effect/platform/HttpRouter"
import * as HttpServer from "@effect/platform/HttpServer"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Rpc from "@effect/rpc/Rpc"
import * as RpcClient from "@effect/rpc/RpcClient"
import * as RpcGroup from "@effect/rpc/RpcGroup"
import * as RpcSerialization from "@effect/rpc/RpcSerialization"
import * as RpcServer from "@effect/rpc/RpcServer"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Layer, Queue, Redacted, Schema } from "effect"
import { host, hostileClient, identityLayer, makeLog, realTime, startClient, startServer } from "./fixture.js"
import { caOf } from "./roots.js"

const setup = Effect.gen(function* () {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const clientIdentity = yield* authority.context({ path: "/client" })
  const log = makeLog()
  return {
    authority,
    clientIdentity,
    log,
    client: yield* startClient(clientIdentity),
    /** A secure server with the services of the platform, as an application has it. */
    secure: NodeSecureServer.layer({
      port: 0,
      host,
      authorize: PeerMatcher.exactly(authority.id("/client"))
    }).pipe(Layer.provide(DevAuthority.layerIdentity(authority, { path: "/server" })), Layer.provide(log.layer))
  }
})

const portOf = Effect.map(HttpServer.HttpServer, ({ address }) => (address._tag === "TcpAddress" ? address.port : 0))

describe("an application runs unchanged on a secure server", () => {
  class Api extends HttpApi.make("api").add(
    HttpApiGroup.make("who").add(
      HttpApiEndpoint.get("caller", "/caller").addSuccess(Schema.Struct({ id: Schema.String }))
    )
  ) {}

  it.scoped("made with HttpApi, whose handlers know their caller", () =>
    Effect.gen(function* () {
      const { authority, client, secure } = yield* setup
      const handlers = HttpApiBuilder.group(Api, "who", (group) =>
        group.handle("caller", () => Effect.map(PeerIdentity.caller, ({ spiffeId }) => ({ id: spiffeId })))
      )
      const services = yield* HttpApiBuilder.serve().pipe(
        Layer.provide(Layer.provide(HttpApiBuilder.api(Api), handlers)),
        Layer.provideMerge(secure),
        Layer.build
      )
      const port = yield* Effect.provide(portOf, services)
      const channel = yield* client.channel({ port, peer: authority.id("/server") })
      const api = yield* HttpApiClient.makeWith(Api, { httpClient: channel })
      expect(yield* api.who.caller({})).toEqual({ id: authority.id("/client") })
      // A peer that may not call is told so by the gate: its request reaches no handler.
      const stranger = yield* hostileClient(port, yield* authority.issueRaw({ path: "/stranger" }))
      expect(stranger.received).toMatch(/^HTTP\/1\.1 403 Forbidden\r\nconnection: close\r\n/)
      expect(stranger.received).not.toContain("/client")
    })
  )

  class Calls extends RpcGroup.make(
    Rpc.make("add", { success: Schema.Number, payload: { left: Schema.Number, right: Schema.Number } })
  ) {}

  it.scoped("made with RpcServer", () =>
    Effect.gen(function* () {
      const { authority, client, clientIdentity, secure } = yield* setup
      const handlers = Calls.toLayer({ add: ({ left, right }) => Effect.succeed(left + right) })
      const services = yield* HttpRouter.Default.serve().pipe(
        Layer.provide(Layer.provide(RpcServer.layer(Calls), handlers)),
        Layer.provide(RpcServer.layerProtocolHttp({ path: "/rpc" })),
        Layer.provide(RpcSerialization.layerNdjson),
        Layer.provideMerge(secure),
        Layer.build
      )
      const port = yield* Effect.provide(portOf, services)
      const url = `https://${host}:${port}`
      const http = SecureChannel.layerHttpClient({ peer: authority.id("/server"), baseUrl: url }).pipe(
        Layer.provide(Layer.succeed(Connector.Connector, client.connector)),
        Layer.provide(identityLayer(clientIdentity))
      )
      const protocol = yield* RpcClient.layerProtocolHttp({ url: `${url}/rpc` }).pipe(
        Layer.provide(http),
        Layer.provide(RpcSerialization.layerNdjson),
        Layer.build
      )
      const calls = yield* Effect.provide(RpcClient.make(Calls), protocol)
      expect(yield* calls.add({ left: 2, right: 3 })).toBe(5)
    })
  )
})

/** A WebSocket by hand (RFC 6455): enough for one text message each way. */
const upgrade = [
  "GET /socket HTTP/1.1",
  "host: x",
  "connection: Upgrade",
  "upgrade: websocket",
  "sec-websocket-version: 13",
  `sec-websocket-key: ${randomBytes(16).toString("base64")}`,
  "",
  ""
].join("\r\n")

const textFrame = (text: string): Buffer => {
  const mask = randomBytes(4)
  const masked = Buffer.from(text).map((byte, index) => byte ^ (mask[index % 4] ?? 0))
  return Buffer.concat([Buffer.of(0x81, 0x80 | masked.length), mask, masked])
}

describe("a WebSocket", () => {
  /** Answers every message with the caller's ID. */
  const app = Effect.gen(function* () {
    const request = yield* HttpServerRequest.HttpServerRequest
    const caller = yield* PeerIdentity.caller
    const socket = yield* request.upgrade
    const write = yield* socket.writer
    yield* socket.run(() => write(caller.spiffeId))
    return HttpServerResponse.empty()
  }).pipe(Effect.scoped, Effect.orDie)

  it.scoped("is opened for a verified peer, whom the handler knows, and ends when its authority is removed", () =>
    Effect.gen(function* () {
      const { authority } = yield* setup
      const partner = yield* DevAuthority.make({ trustDomain: "partner.test" })
      const trusting = yield* authority.context({ path: "/server", federatesWith: [partner] })
      const identity = yield* TestIdentity.make(trusting)
      const server = yield* startServer({ identity, authorize: PeerMatcher.memberOf(partner.trustDomain), app })
      const svid = yield* partner.issue({ path: "/client" })
      const closed = yield* Deferred.make<void>()
      const received = yield* Queue.unbounded<string>()
      const socket = yield* Effect.acquireRelease(
        Effect.sync(
          (): TLSSocket =>
            tlsConnect({
              host,
              port: server.port,
              ca: caOf(authority),
              cert: X509Svid.certificatesPem(svid),
              key: Redacted.value(X509Svid.privateKeyPem(svid)),
              checkServerIdentity: () => undefined
            })
        ),
        (socket) => Effect.sync(() => socket.destroy())
      )
      socket.on("data", (chunk) => Queue.unsafeOffer(received, chunk.toString("latin1")))
      socket.on("error", () => {})
      socket.on("close", () => Deferred.unsafeDone(closed, Effect.void))
      socket.write(upgrade)
      expect(yield* Queue.take(received)).toMatch(/^HTTP\/1.1 101 Switching Protocols/)
      socket.write(textFrame("who am I?"))
      expect(yield* Queue.take(received)).toContain(partner.id("/client"))
      yield* identity.set(X509Context.make({ svid: trusting.svid, bundles: X509BundleSet.of(authority.bundle) }))
      yield* Deferred.await(closed)
      expect(yield* server.log.nth("ConnectionClosed")).toMatchObject({ reason: "Distrust", requests: 1 })
    })
  )

  it.scoped("is not opened for a peer that is refused", () =>
    Effect.gen(function* () {
      const { authority } = yield* setup
      const identity = yield* authority.context({ path: "/server" })
      const server = yield* startServer({ identity, authorize: authority.id("/client"), app })
      const stranger = yield* authority.issueRaw({ path: "/stranger" })
      expect((yield* hostileClient(server.port, stranger, { request: upgrade })).received).toMatch(/^HTTP\/1\.1 403 /)
      expect((yield* hostileClient(server.port, undefined, { request: upgrade })).received).toBe("")
      expect(server.log.all("ConnectionRefused").map(({ reason }) => reason)).toEqual([
        "UnexpectedPeer",
        "NoCertificate"
      ])
      expect(server.handled()).toBe(0)
    })
  )

  it.scoped("does not hold up a server that closes", () =>
    Effect.gen(function* () {
      const { authority } = yield* setup
      const identity = yield* authority.context({ path: "/server" })
      const server = yield* startServer({ identity, authorize: authority.id("/client"), app })
      const opened = yield* Deferred.make<void>()
      const attempt = yield* Effect.fork(
        hostileClient(server.port, yield* authority.issueRaw({ path: "/client" }), {
          request: upgrade,
          onData: () => Deferred.unsafeDone(opened, Effect.void)
        })
      )
      yield* Deferred.await(opened)
      yield* server.close
      expect((yield* attempt).received).toMatch(/^HTTP\/1.1 101/)
      expect(server.log.all("ConnectionClosed")).toMatchObject([{ reason: "Shutdown" }])
    })
  )
})
