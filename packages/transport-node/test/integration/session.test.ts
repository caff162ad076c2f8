import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import type * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import * as X509Context from "@agentweave/spiffe/X509Context"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as Fault from "@agentweave/testkit/Fault"
import * as FaultProxy from "@agentweave/testkit/FaultProxy"
import type * as KeyPair from "@agentweave/testkit/KeyPair"
import * as TestIdentity from "@agentweave/testkit/TestIdentity"
import type * as TransportConfig from "@agentweave/transport/TransportConfig"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { execute } from "./execute.js"
import { refusalOver } from "./fakeSocket.js"
import { failure, hostileClient, hostileServer, realTime, startClient, startServer } from "./fixture.js"
import { collectGarbage } from "./garbage.js"

const get = HttpClientRequest.get("/")

const versions: ReadonlyArray<TransportConfig.TlsVersion> = ["TLSv1.2", "TLSv1.3"]
const only = (version: TransportConfig.TlsVersion) => ({ tlsMinVersion: version, tlsMaxVersion: version })
const rawOnly = (version: TransportConfig.TlsVersion) => ({ minVersion: version, maxVersion: version })

const setup = Effect.gen(function* () {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const clientIdentity = yield* authority.context({ path: "/client" })
  return {
    authority,
    clientIdentity,
    clientId: authority.id("/client"),
    serverId: authority.id("/server"),
    client: yield* startClient(clientIdentity),
    startServer: Effect.flatMap(authority.context({ path: "/server" }), (identity) =>
      startServer({ identity, authorize: authority.id("/client"), tlsMinVersion: "TLSv1.2" })
    ),
    raw: (path: string, keyAlgorithm?: KeyPair.KeyAlgorithm) => authority.issueRaw({ path, keyAlgorithm })
  }
})

describe("no session is ever resumed", () => {
  for (const version of versions) {
    it.scoped(`by a client whose peer offers to, ${version}`, () =>
      Effect.gen(function* () {
        const { client, raw, serverId } = yield* setup
        const server = yield* hostileServer(yield* raw("/server"), rawOnly(version))
        // The offer is real: whoever takes it up resumes.
        let ticket: Buffer | undefined
        const keep = (session: Buffer) => {
          ticket = session
        }
        yield* hostileClient(server.port, yield* raw("/client"), { onSession: keep })
        yield* hostileClient(server.port, yield* raw("/client"), ticket === undefined ? {} : { session: ticket })
        expect(server.reused).toEqual([false, true])

        const once = Effect.scoped(
          Effect.gen(function* () {
            const connection = yield* client.connect({ port: server.port, peer: serverId, config: only(version) })
            expect((yield* execute(connection, get)).status).toBe(200)
          })
        )
        yield* once
        yield* once
        yield* collectGarbage
        yield* once
        expect(server.reused.slice(2)).toEqual([false, false, false])
      })
    )

    it.scoped(`by a server, for a client that offers an old one, ${version}`, () =>
      Effect.gen(function* () {
        const { raw, startServer } = yield* setup
        const server = yield* startServer
        const credentials = yield* raw("/client")
        const tickets: Array<Buffer> = []
        const keep = (session: Buffer) => void tickets.push(session)
        const first = yield* hostileClient(server.port, credentials, { ...rawOnly(version), onSession: keep })
        expect(first.received).toMatch(/^HTTP\/1.1 200/)
        // There is something to offer: not a ticket, but an ID that leads nowhere.
        expect(tickets.length).toBeGreaterThan(0)
        const again = yield* hostileClient(server.port, credentials, { ...rawOnly(version), session: tickets[0] })
        expect(again).toMatchObject({ reused: false, secured: true, version })
        expect(again.received).toMatch(/^HTTP\/1.1 200/)
        expect(server.log.all("ConnectionEstablished")).toMatchObject([
          { tlsVersion: version, peerId: "spiffe://example.org/client" },
          { tlsVersion: version, peerId: "spiffe://example.org/client" }
        ])
      })
    )

    it.scoped(`so that a session from before a CA's removal is worth nothing, ${version}`, () =>
      Effect.gen(function* () {
        yield* realTime
        const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
        const partner = yield* DevAuthority.make({ trustDomain: "partner.test" })
        const trusting = yield* authority.context({ path: "/server", federatesWith: [partner] })
        const identity = yield* TestIdentity.make(trusting)
        const server = yield* startServer({
          identity,
          authorize: PeerMatcher.memberOf(partner.trustDomain),
          tlsMinVersion: "TLSv1.2"
        })
        const credentials = yield* partner.issueRaw({ path: "/client" })
        let ticket: Buffer | undefined
        const before = yield* hostileClient(server.port, credentials, {
          ...rawOnly(version),
          onSession: (session) => {
            ticket = session
          }
        })
        expect(before.received).toMatch(/^HTTP\/1.1 200/)
        const witness = yield* startClient(yield* partner.context({ path: "/witness", federatesWith: [authority] }))
        const live = yield* witness.connect({ port: server.port, peer: authority.id("/server"), config: only(version) })
        yield* server.log.nth("ConnectionEstablished", 1)
        yield* identity.set(X509Context.make({ svid: trusting.svid, bundles: (yield* authority.context()).bundles }))
        // The server has taken the new bundles into use when it has closed what rests on the old ones.
        yield* live.ended
        const handled = server.handled()
        const after = yield* hostileClient(server.port, credentials, { ...rawOnly(version), session: ticket })
        expect(after).toMatchObject({ reused: false, received: "" })
        expect(yield* server.log.nth("ConnectionRefused")).toMatchObject({
          error: "PeerVerificationError",
          reason: "UntrustedChain"
        })
        expect(server.handled()).toBe(handled)
      })
    )

    it.scoped(`so that a channel for B does not talk to A, which was spoken to at the same address, ${version}`, () =>
      Effect.gen(function* () {
        const { authority, client, raw } = yield* setup
        const a = yield* hostileServer(yield* raw("/a"), rawOnly(version))
        const b = yield* hostileServer(yield* raw("/b"), rawOnly(version))
        const proxy = yield* FaultProxy.make({ port: a.port })
        const channel = (peer: SpiffeId.SpiffeId) => client.channel({ port: proxy.port, peer, config: only(version) })
        const toA = yield* channel(authority.id("/a"))
        const toB = yield* channel(authority.id("/b"))
        expect((yield* toA.get("/")).status).toBe(200)
        const spoken = a.bytes()
        const refused = { _tag: "PeerVerificationError", reason: "UnexpectedPeer", actualId: authority.id("/a") }
        expect(yield* failure(toB.get("/"))).toMatchObject(refused)
        yield* collectGarbage
        expect(yield* failure(toB.get("/"))).toMatchObject(refused)
        expect(a.bytes()).toBe(spoken)

        yield* proxy.setTarget({ port: b.port })
        expect((yield* toB.get("/")).status).toBe(200)
        // The connection to A lives on and is A's alone; a new one would lead to B, and is refused.
        expect((yield* toA.get("/")).status).toBe(200)
        yield* proxy.cutAll
        yield* client.log.nth("ConnectionClosed", 1)
        expect(yield* failure(toA.get("/"))).toMatchObject({ ...refused, actualId: authority.id("/b") })
        expect([...a.reused, ...b.reused].some((reused) => reused)).toBe(false)
      })
    )
  }

  // What TLS never hands on as long as it does what it is told.
  const sockets: ReadonlyArray<readonly [name: string, reason: string, socket: object]> = [
    ["whose session was resumed", "SessionResumed", { isSessionReused: () => true, authorized: true }],
    ["that TLS did not accept", "UntrustedChain", { isSessionReused: () => false, authorized: false }],
    [
      "without a certificate",
      "NoCertificate",
      { isSessionReused: () => false, authorized: true, getPeerCertificate: () => ({}) }
    ]
  ]
  for (const [name, reason, socket] of sockets) {
    it.scoped(`and a socket ${name} is refused by the gate: ${reason}`, () =>
      Effect.gen(function* () {
        const { clientIdentity, serverId } = yield* setup
        expect(yield* refusalOver(socket, clientIdentity, serverId)).toMatchObject({ reason })
      })
    )
  }
})

describe("a client without certificate", () => {
  for (const version of versions) {
    it.scoped(`is refused by a server, ${version}`, () =>
      Effect.gen(function* () {
        const { startServer } = yield* setup
        const server = yield* startServer
        const attempt = yield* hostileClient(server.port, undefined, rawOnly(version))
        expect(attempt).toMatchObject(
          version === "TLSv1.3"
            ? { secured: true, received: "", code: "ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED" }
            : { secured: false, received: "", code: "EPROTO" }
        )
        expect(yield* server.log.nth("ConnectionRefused")).toMatchObject({
          error: "PeerVerificationError",
          reason: "NoCertificate",
          actualId: null
        })
        expect(server.handled()).toBe(0)
      })
    )
  }
})

/** TLS alert records as a peer sends them before encryption began (RFC 8446 section 6). */
const alertRecord = (description: number): Uint8Array => Uint8Array.of(21, 3, 3, 0, 2, 2, description)

describe("our own certificate refused", () => {
  const alerts: ReadonlyArray<readonly [number, string]> = [
    [42, "bad_certificate"],
    [43, "unsupported_certificate"],
    [44, "certificate_revoked"],
    [45, "certificate_expired"],
    [46, "certificate_unknown"],
    [48, "unknown_ca"],
    [49, "access_denied"],
    [51, "decrypt_error"],
    [116, "certificate_required"]
  ]
  it.scoped("by an alert in the handshake: the alert is named", () =>
    Effect.gen(function* () {
      const { client, serverId } = yield* setup
      const proxy = yield* FaultProxy.make({ port: 1 })
      for (const version of versions) {
        for (const [index, [code, alert]] of alerts.entries()) {
          yield* proxy.setFault(Fault.answer(alertRecord(code)))
          const refused = client.log.all("ConnectionRefused").length
          const error = yield* failure(
            client.connect({ port: proxy.port, peer: serverId, config: { ...only(version) } })
          )
          expect(error).toMatchObject({ _tag: "IdentityError", reason: "LocalCertificateRefused", alert })
          expect(client.log.all("ConnectionRefused")[refused], `${version} ${index}`).toMatchObject({
            error: "IdentityError",
            reason: "LocalCertificateRefused"
          })
        }
      }
    })
  )

  it.scoped("by an alert after the handshake, as TLS 1.3 has it: the request learns the alert", () =>
    Effect.gen(function* () {
      const { client, raw, serverId } = yield* setup
      // It takes signatures of a kind our key cannot make, so we have no certificate for it.
      const server = yield* hostileServer(yield* raw("/server", "RSA-2048"), {
        rejectUnauthorized: true,
        sigalgs: "RSA-PSS+SHA256",
        maxVersion: "TLSv1.3"
      })
      const refused = {
        _tag: "IdentityError",
        reason: "LocalCertificateRefused",
        alert: "certificate_required",
        isRetryable: false
      }
      const connection = yield* client.connect({ port: server.port, peer: serverId })
      expect(yield* failure(execute(connection, get))).toMatchObject(refused)
      expect(yield* connection.ended).toBe("Error")
      // On a connection that waited, the alert is there before the request.
      const waiting = yield* client.connect({ port: server.port, peer: serverId })
      expect(yield* waiting.ended).toBe("Error")
      expect(waiting.isUsable()).toBe(false)
      expect(yield* failure(execute(waiting, get))).toMatchObject(refused)
      expect(server.bytes()).toBe(0)
      expect(server.failures).toEqual(Array(2).fill("ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE"))
    })
  )

  for (const version of versions) {
    it.scoped(`by a server that does not authorise us, which says so, ${version}`, () =>
      Effect.gen(function* () {
        const { authority, client, serverId } = yield* setup
        const server = yield* startServer({
          identity: yield* authority.context({ path: "/server" }),
          authorize: authority.id("/someone-else"),
          tlsMinVersion: "TLSv1.2"
        })
        const connection = yield* client.connect({ port: server.port, peer: serverId, config: only(version) })
        expect(yield* failure(execute(connection, get))).toMatchObject({
          _tag: "IdentityError",
          reason: "LocalCertificateRefused"
        })
        expect(connection.isUsable()).toBe(false)
        yield* connection.ended
        expect(client.log.connections()).toEqual(["ConnectionAttempted", "ConnectionEstablished", "ConnectionClosed"])
        expect(yield* server.log.nth("ConnectionRefused")).toMatchObject({
          error: "PeerVerificationError",
          reason: "UnexpectedPeer",
          actualId: authority.id("/client")
        })
        expect(server.handled()).toBe(0)
      })
    )
  }
})
