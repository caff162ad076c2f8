import * as IdentityError from "@agentweave/spiffe/IdentityError"
import * as X509BundleSet from "@agentweave/spiffe/X509BundleSet"
import * as X509Context from "@agentweave/spiffe/X509Context"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Queue, TestClock } from "effect"
import { execute } from "./execute.js"
import { failure, hostileServer } from "./fixture.js"
import { caOf } from "./roots.js"
import { get, held, lost, rawConnection, setup, streaming } from "./rotationPeers.js"

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
