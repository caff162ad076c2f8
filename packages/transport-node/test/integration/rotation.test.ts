import type { TLSSocket } from "node:tls"
import * as X509BundleSet from "@agentweave/spiffe/X509BundleSet"
import * as X509Context from "@agentweave/spiffe/X509Context"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as Fault from "@agentweave/testkit/Fault"
import * as FaultProxy from "@agentweave/testkit/FaultProxy"
import * as TestIdentity from "@agentweave/testkit/TestIdentity"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Queue, Random, TestClock } from "effect"
import { execute } from "./execute.js"
import { failure, hostileServer, realTime, startClient, startServer } from "./fixture.js"
import { caOf } from "./roots.js"
import { get, held, lost, rawConnection, setup, streaming } from "./rotationPeers.js"

describe("a live connection whose certificates expire", () => {
  it.scoped("at the client: closed by then, and a part of its life earlier, drawn at random", () =>
    Effect.gen(function* () {
      const { client, connect, notAfter, own } = yield* setup
      // A server that does not mind the time.
      const server = yield* hostileServer(yield* own.issueRaw({ path: "/server" }))
      const drawn = (random: number) =>
        Effect.withRandom(client.connect({ port: server.port, peer: own.id("/server") }), Random.fixed([random]))
      const exact = yield* drawn(0)
      const early = yield* drawn(0.5)
      const { time } = yield* client.log.nth("ConnectionEstablished")
      const life = notAfter - time
      yield* TestClock.adjust(Math.ceil(life * 0.95) - 1)
      expect(early.isUsable()).toBe(true)
      yield* TestClock.adjust(1)
      expect(yield* early.ended).toBe("Expiry")
      yield* TestClock.setTime(notAfter - 1)
      expect(exact.isUsable()).toBe(true)
      yield* TestClock.setTime(notAfter)
      expect(yield* exact.ended).toBe("Expiry")
      yield* TestClock.adjust(1)
      expect(yield* failure(connect)).toMatchObject({ _tag: "IdentityError", reason: "Expired" })
    })
  )

  it.scoped("at the server: closed by then, and at most a tenth of its life earlier", () =>
    Effect.gen(function* () {
      const { clientIdentity, own, server } = yield* setup
      const context = yield* clientIdentity.provider.x509Context
      const raw = yield* rawConnection(server.port, context, caOf(own))
      raw.socket.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n")
      yield* server.log.nth("RequestEnded")
      const { notAfter } = context.svid
      const { time } = yield* server.log.nth("ConnectionEstablished")
      yield* TestClock.setTime(notAfter - Math.ceil((notAfter - time) / 10) - 1)
      expect(server.log.all("ConnectionClosed")).toEqual([])
      yield* TestClock.setTime(notAfter)
      yield* raw.closed
      expect(server.log.all("ConnectionClosed")).toMatchObject([{ reason: "Expiry" }])
    })
  )

  it.scoped("at the client, busy: takes no other request, and has one timeout left", () =>
    Effect.gen(function* () {
      const { client, notAfter, own } = yield* setup
      let peer: TLSSocket | undefined
      const server = yield* hostileServer(yield* own.issueRaw({ path: "/server" }), {
        onRequest: (socket) => {
          peer = socket
          socket.write("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\none")
        }
      })
      const to = { port: server.port, peer: own.id("/server"), config: { timeout: "10 seconds" } } as const
      const busy = yield* Effect.withRandom(client.connect(to), Random.fixed([0]))
      yield* TestClock.setTime(notAfter - 5_000)
      expect(busy.isUsable()).toBe(true)
      const { next, reading } = yield* streaming(busy)
      expect(yield* next).toBe("one")
      yield* TestClock.setTime(notAfter)
      expect(busy.isUsable()).toBe(false)
      yield* TestClock.setTime(notAfter + 4_000)
      peer?.write("two")
      expect(yield* next).toBe("two")
      yield* TestClock.setTime(notAfter + 9_999)
      expect(reading.unsafePoll()).toBeNull()
      yield* TestClock.setTime(notAfter + 10_000)
      expect(yield* failure(Fiber.join(reading))).toMatchObject(lost)
      expect(yield* busy.ended).toBe("Expiry")
    })
  )

  it.scoped("at the server, busy: its response has gracefulShutdownTimeout left", () =>
    Effect.gen(function* () {
      const { clientIdentity, own, send, server } = yield* setup
      const context = yield* clientIdentity.provider.x509Context
      const raw = yield* rawConnection(server.port, context, caOf(own))
      raw.socket.write("GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
      yield* send("one")
      yield* server.log.nth("RequestStarted")
      yield* TestClock.setTime(context.svid.notAfter + 4_999)
      expect(server.log.all("ConnectionClosed")).toEqual([])
      yield* TestClock.setTime(context.svid.notAfter + 5_000)
      yield* raw.closed
      expect(yield* server.log.nth("ConnectionClosed")).toMatchObject({ reason: "Expiry", requests: 1 })
    })
  )

  it.scoped("or that reaches its maximum age: its request ends, however long it takes", () =>
    Effect.gen(function* () {
      const { begun, client, own, release, server } = yield* setup
      const connection = yield* client.connect({
        port: server.port,
        peer: own.id("/server"),
        config: { maxConnectionAge: "1 minute", timeout: "10 minutes" }
      })
      const request = yield* Effect.fork(execute(connection, held))
      yield* Queue.take(begun)
      yield* TestClock.adjust("5 minutes")
      expect(connection.isUsable()).toBe(false)
      expect(request.unsafePoll()).toBeNull()
      yield* Deferred.succeed(release, undefined)
      expect((yield* Fiber.join(request)).status).toBe(200)
      expect(yield* connection.ended).toBe("Age")
    })
  )
})

describe("our own credentials", () => {
  it.scoped("with a key that is another certificate's are refused, by client and server, before a socket opens", () =>
    Effect.gen(function* () {
      yield* realTime
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const one = yield* authority.context({ path: "/one" })
      const other = yield* authority.issue({ path: "/one" })
      const mixed = X509Context.make({
        svid: { ...one.svid, privateKey: other.privateKey },
        bundles: one.bundles
      })
      const proxy = yield* FaultProxy.make({ port: 1 })
      yield* proxy.setFault(Fault.silence)
      const client = yield* startClient(mixed)
      const refused = { _tag: "IdentityError", reason: "Malformed" }
      expect(yield* failure(client.connect({ port: proxy.port, peer: authority.id("/one") }))).toMatchObject(refused)
      expect(client.log.all("ConnectionRefused")).toMatchObject([{ error: "IdentityError", reason: "Malformed" }])
      expect(yield* failure(startServer({ identity: mixed, authorize: authority.id("/one") }))).toMatchObject(refused)
      expect(yield* proxy.connections).toEqual([])
    })
  )

  it.scoped("that expired are refused at once, by client and server", () =>
    Effect.gen(function* () {
      yield* realTime
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const context = yield* authority.context({ path: "/one", validity: "Expired" })
      const proxy = yield* FaultProxy.make({ port: 1 })
      const client = yield* startClient(context)
      const refused = { _tag: "IdentityError", reason: "Expired" }
      expect(yield* failure(client.connect({ port: proxy.port, peer: authority.id("/one") }))).toMatchObject(refused)
      expect(yield* failure(startServer({ identity: context, authorize: authority.id("/one") }))).toMatchObject(refused)
      expect(yield* proxy.connections).toEqual([])
    })
  )
})

describe("a rotation", () => {
  it.scoped("has the next handshake present the newest SVIDs, while the connection before lives on", () =>
    Effect.gen(function* () {
      const { client, clientIdentity, connect, own, partner, server, serverIdentity } = yield* setup
      const before = yield* connect
      expect((yield* execute(before, get)).status).toBe(200)
      const newServer = yield* serverIdentity.rotate(own.context({ path: "/server", federatesWith: [partner] }))
      const newClient = yield* clientIdentity.rotate(partner.context({ path: "/client", federatesWith: [own] }))
      expect((yield* execute(before, get)).status).toBe(200)
      const after = yield* connect
      expect((yield* execute(after, get)).status).toBe(200)
      expect(before.isUsable()).toBe(true)
      expect(client.log.all("ConnectionEstablished")[1]).toMatchObject({
        peerFingerprint: newServer.svid.fingerprint,
        ownFingerprint: newClient.svid.fingerprint
      })
      expect(server.log.all("ConnectionEstablished")[1]).toMatchObject({
        peerFingerprint: newClient.svid.fingerprint,
        ownFingerprint: newServer.svid.fingerprint
      })
    })
  )

  it.scoped("of the CA, step by step under load, fails no request", () =>
    Effect.gen(function* () {
      yield* realTime
      const old = yield* DevAuthority.make({ trustDomain: "example.org" })
      const both = yield* old.rotateRoot()
      const next = yield* both.retireOldRoots
      const serverIdentity = yield* TestIdentity.make(yield* old.context({ path: "/server" }))
      const clientIdentity = yield* TestIdentity.make(yield* old.context({ path: "/client" }))
      const server = yield* startServer({ identity: serverIdentity, authorize: old.id("/client") })
      const client = yield* startClient(clientIdentity)
      const channel = yield* client.channel({ port: server.port, peer: old.id("/server"), config: { connections: 4 } })
      const answers = yield* Queue.unbounded<string>()
      const once = Effect.flatMap(channel.get("/"), ({ text }) => text)
      const load = yield* Effect.fork(
        Effect.replicateEffect(Effect.forever(Effect.flatMap(once, (answer) => Queue.offer(answers, answer))), 4, {
          concurrency: 4
        })
      )
      // Every step meets requests in flight.
      const some = Effect.zipRight(Queue.takeAll(answers), Queue.takeN(answers, 12)).pipe(
        Effect.raceFirst(Fiber.join(load))
      )
      yield* some
      // 1. Everybody trusts the new root. 2. Everybody is issued below it. 3. The old root goes.
      const issuedByOld = (path: string) =>
        Effect.map(old.issue({ path }), (svid) => X509Context.make({ svid, bundles: X509BundleSet.of(both.bundle) }))
      yield* serverIdentity.rotate(issuedByOld("/server"))
      yield* clientIdentity.rotate(issuedByOld("/client"))
      yield* some
      const newServer = yield* serverIdentity.rotate(both.context({ path: "/server" }))
      yield* some
      const newClient = yield* clientIdentity.rotate(both.context({ path: "/client" }))
      yield* some
      yield* clientIdentity.set(X509Context.make({ svid: newClient.svid, bundles: X509BundleSet.of(next.bundle) }))
      yield* some
      yield* serverIdentity.set(X509Context.make({ svid: newServer.svid, bundles: X509BundleSet.of(next.bundle) }))
      yield* some
      expect(load.unsafePoll()).toBeNull()
      yield* Fiber.interrupt(load)
      // The connections made below the old root were given up; none was refused.
      const last = client.log.all("ConnectionEstablished").at(-1)
      expect(last).toMatchObject({
        peerFingerprint: newServer.svid.fingerprint,
        ownFingerprint: newClient.svid.fingerprint
      })
      expect(client.log.all("ConnectionClosed").filter(({ reason }) => reason === "Distrust").length).toBeGreaterThan(0)
      expect([...client.log.all("ConnectionRefused"), ...server.log.all("ConnectionRefused")]).toEqual([])
    })
  )
})
