import { type TLSSocket, connect as tlsConnect } from "node:tls"
import * as IdentityError from "@agentweave/spiffe/IdentityError"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as X509BundleSet from "@agentweave/spiffe/X509BundleSet"
import * as X509Context from "@agentweave/spiffe/X509Context"
import * as X509Svid from "@agentweave/spiffe/X509Svid"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as Fault from "@agentweave/testkit/Fault"
import * as FaultProxy from "@agentweave/testkit/FaultProxy"
import * as TestIdentity from "@agentweave/testkit/TestIdentity"
import type * as Connector from "@agentweave/transport/Connector"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Queue, Random, Redacted, Stream, TestClock } from "effect"
import { execute } from "./execute.js"
import { caOf, failure, host, hostileServer, realTime, startClient, startServer } from "./fixture.js"

const get = HttpClientRequest.get("/")

/** Our server is of example.org, the client of partner.test, and each trusts the other's domain until told otherwise. */
const setup = Effect.gen(function* () {
  yield* realTime
  const own = yield* DevAuthority.make({ trustDomain: "example.org" })
  const partner = yield* DevAuthority.make({ trustDomain: "partner.test" })
  const serverContext = yield* own.context({ path: "/server", ttl: "1 hour", federatesWith: [partner] })
  const clientContext = yield* partner.context({ path: "/client", ttl: "30 minutes", federatesWith: [own] })
  const serverIdentity = yield* TestIdentity.make(serverContext)
  const clientIdentity = yield* TestIdentity.make(clientContext)
  const begun = yield* Queue.unbounded<string>()
  const release = yield* Deferred.make<void>()
  const pieces = yield* Queue.unbounded<Uint8Array>()
  const server = yield* startServer({
    identity: serverIdentity,
    authorize: PeerMatcher.memberOf(partner.trustDomain),
    gracefulShutdownTimeout: "5 seconds",
    keepAliveTimeout: "2 hours",
    app: Effect.gen(function* () {
      const { url } = yield* HttpServerRequest.HttpServerRequest
      yield* Queue.offer(begun, url)
      if (url === "/stream") return HttpServerResponse.stream(Stream.fromQueue(pieces))
      if (url === "/held") yield* Deferred.await(release)
      return HttpServerResponse.text("finished")
    })
  })
  const client = yield* startClient(clientIdentity)
  return {
    own,
    partner,
    begun,
    release,
    server,
    client,
    /** Without jitter. */
    connect: Effect.withRandom(
      client.connect({ port: server.port, peer: own.id("/server"), config: { timeout: "10 seconds" } }),
      Random.fixed([0])
    ),
    notAfter: clientContext.svid.notAfter,
    /** Sends a piece of the response to `/stream`. */
    send: (piece: string) => Queue.offer(pieces, new TextEncoder().encode(piece)),
    serverIdentity,
    clientIdentity,
    /** The bundle of the other side's domain is gone. */
    clientDistrusts: clientIdentity.set(
      X509Context.make({ svid: clientContext.svid, bundles: X509BundleSet.of(partner.bundle) })
    ),
    serverDistrusts: serverIdentity.set(
      X509Context.make({ svid: serverContext.svid, bundles: X509BundleSet.of(own.bundle) })
    )
  }
})

const held = HttpClientRequest.get("/held")

/** Reads a response to `/stream` piece by piece. */
const streaming = Effect.fnUntraced(function* (connection: Connector.Connection) {
  const arrived = yield* Queue.unbounded<string>()
  const response = yield* execute(connection, HttpClientRequest.get("/stream"))
  const reading = yield* Effect.fork(
    Stream.runForEach(response.stream, (chunk) => Queue.offer(arrived, Buffer.from(chunk).toString()))
  )
  return { reading, next: Queue.take(arrived) }
})

const lost = { _tag: "ResponseError", cause: { _tag: "ConnectionError", reason: "Lost" } }

/** A raw client that keeps its connection for as long as the server lets it. */
const rawConnection = Effect.fnUntraced(function* (port: number, context: X509Context.X509Context, ca: string) {
  const closed = yield* Deferred.make<void>()
  let received = ""
  const { svid } = context
  const socket = yield* Effect.acquireRelease(
    Effect.sync(() =>
      tlsConnect({
        host,
        port,
        ca,
        cert: X509Svid.certificatesPem(svid),
        key: Redacted.value(X509Svid.privateKeyPem(svid)),
        checkServerIdentity: () => undefined
      })
    ),
    (socket) => Effect.sync(() => socket.destroy())
  )
  socket.on("data", (chunk) => {
    received += chunk.toString()
  })
  socket.on("error", () => {})
  socket.on("close", () => Deferred.unsafeDone(closed, Effect.void))
  return { socket, closed: Deferred.await(closed), received: () => received }
})

describe("a live connection whose CA is removed", () => {
  it.scoped("at the client: closed at once when idle; when busy, its request ends first and no other begins", () =>
    Effect.gen(function* () {
      const { begun, client, clientDistrusts, connect, release, server } = yield* setup
      const idle = yield* connect
      const busy = yield* connect
      const request = yield* Effect.fork(execute(busy, held))
      yield* Queue.take(begun)
      yield* clientDistrusts
      expect(yield* idle.ended).toBe("Distrust")
      expect(busy.isUsable()).toBe(false)
      expect(yield* failure(connect)).toMatchObject({ _tag: "PeerVerificationError", reason: "NoBundle" })
      yield* Deferred.succeed(release, undefined)
      expect(yield* Effect.flatMap(Fiber.join(request), ({ text }) => text)).toBe("finished")
      expect(yield* busy.ended).toBe("Distrust")
      expect(server.handled()).toBe(1)
      expect(client.log.all("ConnectionClosed").map(({ reason }) => reason)).toEqual(["Distrust", "Distrust"])
      expect(client.log.all("ConnectionRefused")).toMatchObject([{ reason: "NoBundle" }])
    })
  )

  it.scoped("at the client: a response that does not end is cut after one timeout, though it moves", () =>
    Effect.gen(function* () {
      const { clientDistrusts, connect, send } = yield* setup
      const idle = yield* connect
      const busy = yield* connect
      yield* send("one")
      const { next, reading } = yield* streaming(busy)
      expect(yield* next).toBe("one")
      yield* clientDistrusts
      yield* idle.ended
      yield* TestClock.adjust("9 seconds")
      yield* send("two")
      expect(yield* next).toBe("two")
      yield* TestClock.adjust("999 millis")
      expect(reading.unsafePoll()).toBeNull()
      yield* TestClock.adjust("1 millis")
      expect(yield* failure(Fiber.join(reading))).toMatchObject(lost)
      expect(yield* busy.ended).toBe("Distrust")
    })
  )

  it.scoped("at the server: closed at once when idle; when busy, its request ends first and no other is served", () =>
    Effect.gen(function* () {
      const { begun, connect, release, server, serverDistrusts } = yield* setup
      const idle = yield* connect
      const busy = yield* connect
      const request = yield* Effect.fork(execute(busy, held))
      yield* Queue.take(begun)
      yield* server.log.nth("ConnectionEstablished", 1)
      yield* serverDistrusts
      expect(yield* idle.ended).toBe("PeerClosed")
      const late = yield* connect
      expect(yield* failure(execute(late, get))).toMatchObject({ _tag: "ConnectionError", reason: "Closed" })
      yield* Deferred.succeed(release, undefined)
      const response = yield* Fiber.join(request)
      expect(yield* response.text).toBe("finished")
      expect(response.headers["connection"]).toBe("close")
      expect(yield* busy.ended).toBe("PeerClosed")
      yield* server.log.nth("ConnectionClosed", 1)
      expect(server.log.all("ConnectionClosed")).toMatchObject([
        { reason: "Distrust", requests: 0 },
        { reason: "Distrust", requests: 1 }
      ])
      expect(server.log.all("ConnectionRefused")).toMatchObject([{ reason: "UntrustedChain" }])
      expect(server.handled()).toBe(1)
    })
  )

  it.scoped("at the server: a request sent behind the last one is not served", () =>
    Effect.gen(function* () {
      const { begun, clientIdentity, connect, own, release, server, serverDistrusts } = yield* setup
      const context = yield* clientIdentity.provider.x509Context
      const raw = yield* rawConnection(server.port, context, caOf(own))
      const idle = yield* connect
      yield* server.log.nth("ConnectionEstablished", 1)
      raw.socket.write("GET /held HTTP/1.1\r\nhost: x\r\n\r\n")
      expect(yield* Queue.take(begun)).toBe("/held")
      yield* serverDistrusts
      yield* idle.ended
      raw.socket.write("GET /behind HTTP/1.1\r\nhost: x\r\n\r\n")
      // The server has read it by the time it has answered a stranger's handshake.
      yield* failure(Effect.flatMap(connect, (late) => execute(late, get)))
      yield* Deferred.succeed(release, undefined)
      yield* raw.closed
      expect(raw.received().match(/HTTP\/1.1 200 OK/g)).toHaveLength(1)
      expect(raw.received()).toContain("finished")
      expect(server.handled()).toBe(1)
      expect(yield* Queue.size(begun)).toBe(0)
    })
  )

  it.scoped("at the server: a response that does not end is cut after gracefulShutdownTimeout", () =>
    Effect.gen(function* () {
      const { begun, connect, server, serverDistrusts } = yield* setup
      const idle = yield* connect
      const busy = yield* connect
      const request = yield* Effect.fork(execute(busy, held))
      yield* Queue.take(begun)
      yield* server.log.nth("ConnectionEstablished", 1)
      yield* serverDistrusts
      yield* idle.ended
      yield* TestClock.adjust("4999 millis")
      expect(request.unsafePoll()).toBeNull()
      yield* TestClock.adjust("1 millis")
      expect(yield* failure(Fiber.join(request))).toMatchObject({ _tag: "ConnectionError", reason: "Closed" })
      expect(yield* server.log.nth("ConnectionClosed", 1)).toMatchObject({ reason: "Distrust", requests: 1 })
    })
  )

  it.scoped("during the handshake: the connection is refused by the bundles that are in force at its end", () =>
    Effect.gen(function* () {
      const { client, clientDistrusts, own } = yield* setup
      const run = Effect.runFork
      const server = yield* hostileServer(yield* own.issueRaw({ path: "/server" }), {
        ALPNCallback: () => {
          run(clientDistrusts)
          return "http/1.1"
        }
      })
      expect(yield* failure(client.connect({ port: server.port, peer: own.id("/server") }))).toMatchObject({
        _tag: "PeerVerificationError",
        reason: "NoBundle"
      })
      expect(client.log.connections()).toEqual(["ConnectionAttempted", "ConnectionRefused"])
      yield* server.idle
      expect(server.bytes()).toBe(0)
    })
  )

  it.scoped("at a server whose new SVID is of no use: what the new bundles withdraw is withdrawn all the same", () =>
    Effect.gen(function* () {
      const { connect, own, server, serverIdentity } = yield* setup
      const idle = yield* connect
      yield* server.log.nth("ConnectionEstablished")
      const expired = yield* own.issue({ path: "/server", validity: "Expired" })
      yield* serverIdentity.set(X509Context.make({ svid: expired, bundles: X509BundleSet.of(own.bundle) }))
      expect(yield* idle.ended).toBe("PeerClosed")
      expect(yield* server.log.nth("ConnectionClosed")).toMatchObject({ reason: "Distrust" })
      expect(server.log.all("IdentityProblem")).toMatchObject([{ problem: "Discarded", reason: "Expired" }])
      // The good SVID still serves.
      const late = yield* connect
      expect(late.peer.spiffeId).toBe(own.id("/server"))
      yield* failure(execute(late, get))
      expect(yield* server.log.nth("ConnectionRefused")).toMatchObject({ reason: "UntrustedChain" })
    })
  )
})

describe("an identity that was lost and came back", () => {
  const gone = new IdentityError.IdentityError({ reason: "Withdrawn", description: "expected an identity, got none" })

  it.scoped("is seen again by a client, which meanwhile opens nothing new", () =>
    Effect.gen(function* () {
      const { clientDistrusts, clientIdentity, connect, server } = yield* setup
      const first = yield* connect
      yield* server.log.nth("ConnectionEstablished")
      yield* clientIdentity.fail(
        new IdentityError.IdentityError({ reason: "Unavailable", description: "expected an agent, got none" })
      )
      expect(yield* failure(connect)).toMatchObject({ _tag: "IdentityError", reason: "Unavailable" })
      // What was established rests on certificates that are still good.
      expect((yield* execute(first, get)).status).toBe(200)
      yield* clientDistrusts
      yield* TestClock.adjust("250 millis")
      expect(yield* first.ended).toBe("Distrust")
    })
  )

  it.scoped(
    "and was withdrawn ends what rests on it at a client: the idle at once, the busy when its request has ended",
    () =>
      Effect.gen(function* () {
        const { begun, clientIdentity, connect, release } = yield* setup
        const [idle, busy] = [yield* connect, yield* connect]
        const response = yield* Effect.fork(execute(busy, held))
        yield* Queue.take(begun)
        yield* clientIdentity.fail(gone)
        expect(yield* idle.ended).toBe("Withdrawn")
        expect(busy.isUsable()).toBe(false)
        yield* Deferred.succeed(release, undefined)
        expect((yield* Fiber.join(response)).status).toBe(200)
        expect(yield* busy.ended).toBe("Withdrawn")
      })
  )

  it.scoped("is seen again by a server, which meanwhile serves with the one it has", () =>
    Effect.gen(function* () {
      const { connect, server, serverDistrusts, serverIdentity } = yield* setup
      yield* serverIdentity.fail(
        new IdentityError.IdentityError({ reason: "Unavailable", description: "expected an agent, got none" })
      )
      const first = yield* connect
      yield* server.log.nth("ConnectionEstablished")
      yield* serverDistrusts
      yield* TestClock.adjust("250 millis")
      expect(yield* first.ended).toBe("PeerClosed")
      expect(yield* server.log.nth("ConnectionClosed")).toMatchObject({ reason: "Distrust" })
    })
  )

  it.scoped("and was withdrawn ends what rests on it at a server, which begins no handshake until it is back", () =>
    Effect.gen(function* () {
      const { begun, connect, own, partner, release, server, serverIdentity } = yield* setup
      const [idle, busy] = [yield* connect, yield* connect]
      const response = yield* Effect.fork(execute(busy, held))
      yield* Queue.take(begun)
      yield* serverIdentity.fail(gone)
      yield* TestClock.adjust("500 millis")
      expect(yield* idle.ended).toBe("PeerClosed")
      yield* Deferred.succeed(release, undefined)
      const last = yield* Fiber.join(response)
      expect([last.status, last.headers["connection"]]).toEqual([200, "close"])
      yield* busy.ended
      for (let i = 0; i < 3; i++) expect(yield* failure(connect)).toMatchObject({ reason: "HandshakeReset" })
      yield* TestClock.adjust("10 seconds")
      expect(server.log.all("ConnectionRefused")).toMatchObject([{ error: "IdentityError", reason: "Withdrawn" }])
      expect(server.log.all("ConnectionsRefused")).toMatchObject([{ reason: "IdentityError Withdrawn", count: 2 }])
      yield* serverIdentity.rotate(own.context({ path: "/server", federatesWith: [partner] }))
      yield* TestClock.adjust("250 millis")
      yield* connect
      const closed = server.log.all("ConnectionClosed").map(({ reason }) => reason)
      expect(closed).toEqual(["Withdrawn", "Withdrawn"])
    })
  )
})

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
