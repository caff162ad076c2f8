import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as X509Bundle from "@agentweave/spiffe/X509Bundle"
import * as X509BundleSet from "@agentweave/spiffe/X509BundleSet"
import * as X509Context from "@agentweave/spiffe/X509Context"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as FaultProxy from "@agentweave/testkit/FaultProxy"
import * as AuditLog from "@agentweave/transport/AuditLog"
import * as Connector from "@agentweave/transport/Connector"
import * as SecureChannel from "@agentweave/transport/SecureChannel"
import * as TransportConfig from "@agentweave/transport/TransportConfig"
import * as NodeConnector from "@agentweave/transport-node/NodeConnector"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { contextOptions } from "../../src/internal/tls/secureContext.js"
import { execute } from "./execute.js"
import { failure, host, hostileClient, hostileServer, identityLayer, startServer } from "./fixture.js"
import { get, setup } from "./protocolPeers.js"

describe("where a request goes", () => {
  it.scoped("is never a plaintext URL: refused before a socket opens", () =>
    Effect.gen(function* () {
      const { client, clientIdentity, serverId } = yield* setup
      const proxy = yield* FaultProxy.make({ port: 1 })
      const url = `http://${host}:${proxy.port}`
      const services = Layer.merge(identityLayer(clientIdentity), Layer.succeed(Connector.Connector, client.connector))
      const made = SecureChannel.make({ peer: serverId, baseUrl: url }).pipe(Effect.provide(services))
      expect(yield* failure(made)).toMatchObject({ _tag: "InvalidConfigError", field: "baseUrl" })
      const channel = yield* SecureChannel.make({ peer: serverId }).pipe(Effect.provide(services))
      expect(yield* failure(channel.get(`${url}/`))).toMatchObject({ _tag: "RequestError", reason: "InvalidUrl" })
      expect(yield* proxy.connections).toEqual([])
      expect(client.log.events).toEqual([])
    })
  )

  it.scoped("is not where a redirect leads, unless asked to and only within the origin", () =>
    Effect.gen(function* () {
      const { client, clientId, serverId, serverIdentity } = yield* setup
      const elsewhere = yield* FaultProxy.make({ port: 1 })
      const server = yield* startServer({
        identity: serverIdentity,
        authorize: clientId,
        app: Effect.map(HttpServerRequest.HttpServerRequest, ({ url }) =>
          url === "/away"
            ? HttpServerResponse.redirect(`https://${host}:${elsewhere.port}/stolen`)
            : url === "/near"
              ? HttpServerResponse.redirect("/here")
              : HttpServerResponse.text("here")
        )
      })
      const channel = yield* client.channel({ port: server.port, peer: serverId })
      const response = yield* channel.get("/away")
      expect(response.status).toBe(302)
      expect(response.headers["location"]).toContain(`${elsewhere.port}/stolen`)
      // The platform resolves a redirect against the request's own URL, which must therefore be absolute.
      const following = HttpClient.followRedirects(channel)
      const origin = `https://${host}:${server.port}`
      expect(yield* failure(following.get(`${origin}/away`))).toMatchObject({
        _tag: "RequestError",
        reason: "InvalidUrl"
      })
      expect(yield* Effect.flatMap(following.get(`${origin}/near`), ({ text }) => text)).toBe("here")
      expect(yield* elsewhere.connections).toEqual([])
    })
  )

  it.scoped("is not changed by a Host header, nor is the connection", () =>
    Effect.gen(function* () {
      const { client, clientId, serverId, serverIdentity } = yield* setup
      const server = yield* startServer({
        identity: serverIdentity,
        authorize: clientId,
        app: Effect.map(HttpServerRequest.HttpServerRequest, ({ headers }) =>
          HttpServerResponse.text(headers["host"] ?? "none")
        )
      })
      const connection = yield* client.connect({ port: server.port, peer: serverId })
      const hosts = ["evil.test", undefined, "other.test:99"]
      for (const name of hosts) {
        const request = name === undefined ? get : HttpClientRequest.setHeader(get, "host", name)
        const response = yield* execute(connection, request)
        expect(yield* response.text).toBe(name ?? `${host}:${server.port}`)
      }
      expect(connection.isUsable()).toBe(true)
      expect(server.log.all("ConnectionEstablished")).toHaveLength(1)
    })
  )
})

describe("what cannot be switched off", () => {
  it.scoped("the limits of a server's options", () =>
    Effect.gen(function* () {
      const { clientId, serverIdentity } = yield* setup
      const cases = [
        ["handshakeTimeout", { handshakeTimeout: "10001 millis" }],
        ["handshakeTimeout", { handshakeTimeout: 0 }],
        ["tlsMaxVersion", { tlsMinVersion: "TLSv1.3", tlsMaxVersion: "TLSv1.2" }],
        ["maxConnectionAge", { maxConnectionAge: -1 }]
      ] as const
      for (const [field, options] of cases) {
        const started = startServer({ identity: serverIdentity, authorize: clientId, ...options })
        expect(yield* failure(started)).toMatchObject({
          _tag: "InvalidConfigError",
          config: "NodeSecureServer",
          field
        })
      }
    })
  )

  it.scoped("an empty bundle: it trusts nobody, and never the roots of the web", () =>
    Effect.gen(function* () {
      const { authority, clientIdentity } = yield* setup
      const bundles = X509BundleSet.of(X509Bundle.empty(authority.trustDomain))
      const context = X509Context.make({ svid: clientIdentity.svid, bundles })
      expect(contextOptions(context, bundles.bundles.keys(), TransportConfig.defaults).ca).toEqual([])
    })
  )

  it.scoped("verification, by NODE_TLS_REJECT_UNAUTHORIZED=0 in the environment", () =>
    Effect.gen(function* () {
      const { client, clientId, serverId, serverIdentity } = yield* setup
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          process.env["NODE_TLS_REJECT_UNAUTHORIZED"] = "0"
        }),
        () =>
          Effect.sync(() => {
            delete process.env["NODE_TLS_REJECT_UNAUTHORIZED"]
          })
      )
      const foreign = yield* DevAuthority.make({ trustDomain: "example.org" })
      const hostile = yield* hostileServer(yield* foreign.issueRaw({ path: "/server" }))
      expect(yield* failure(client.connect({ port: hostile.port, peer: serverId }))).toMatchObject({
        _tag: "PeerVerificationError",
        reason: "UntrustedChain",
        description: expect.stringContaining("TLS refused")
      })
      const server = yield* startServer({ identity: serverIdentity, authorize: clientId })
      const attempt = yield* hostileClient(server.port, yield* foreign.issueRaw({ path: "/client" }))
      expect(attempt.received).toBe("")
      expect(yield* server.log.nth("ConnectionRefused")).toMatchObject({
        reason: "UntrustedChain",
        description: expect.stringContaining("TLS refused")
      })
      expect([hostile.bytes(), server.handled()]).toEqual([0, 0])
    })
  )

  it.scoped("the audit: what cannot be put on record does not happen", () =>
    Effect.gen(function* () {
      const { clientIdentity, raw, serverId } = yield* setup
      const server = yield* hostileServer(yield* raw("/server"))
      const full = new AuditLog.AuditError({ reason: "Full", description: "expected room for an event, got none" })
      for (const refused of ["ConnectionAttempted", "ConnectionEstablished"]) {
        const services = yield* NodeConnector.layer.pipe(
          Layer.provide(identityLayer(clientIdentity)),
          Layer.provide(
            Layer.succeed(AuditLog.AuditLog, { unsafeRecord: ({ _tag }) => (_tag === refused ? full : undefined) })
          ),
          Layer.build
        )
        const { connect } = yield* Effect.provide(Connector.Connector, services)
        const error = yield* failure(
          connect({
            matcher: PeerMatcher.exactly(serverId),
            host,
            port: server.port,
            config: TransportConfig.defaults,
            onClose: () => {}
          })
        )
        expect(error).toBe(full)
        yield* server.idle
        expect(server.accepted()).toBe(refused === "ConnectionAttempted" ? 0 : 1)
      }
      expect(server.bytes()).toBe(0)
    })
  )
})
