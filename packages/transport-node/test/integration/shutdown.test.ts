import { connect as tcpConnect } from "node:net"
import * as IdentityProvider from "@agentweave/spiffe/IdentityProvider"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as NodeSecureServer from "@agentweave/transport-node/NodeSecureServer"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as HttpServer from "@effect/platform/HttpServer"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Deferred, Effect, Exit, Fiber, Layer, Queue, Scope, Stream, TestClock } from "effect"
import { execute } from "./execute.js"
import { failure, host, makeLog, realTime, startClient, startServer } from "./fixture.js"
import { collectGarbage } from "./garbage.js"

const get = HttpClientRequest.get("/")

const workloads = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  return {
    authority,
    serverIdentity: yield* authority.context({ path: "/server" }),
    clientIdentity: yield* authority.context({ path: "/client" }),
    serverId: authority.id("/server"),
    clientId: authority.id("/client")
  }
})

/** A server whose handler tells when it begins and ends when it is told to. */
const held = Effect.gen(function* () {
  yield* realTime
  const { clientId, clientIdentity, serverId, serverIdentity } = yield* workloads
  const begun = yield* Queue.unbounded<void>()
  const release = yield* Deferred.make<void>()
  const interrupted = yield* Deferred.make<void>()
  const server = yield* startServer({
    identity: serverIdentity,
    authorize: clientId,
    gracefulShutdownTimeout: "5 seconds",
    app: Effect.gen(function* () {
      yield* Queue.offer(begun, undefined)
      yield* Deferred.await(release)
      return HttpServerResponse.text("finished")
    }).pipe(Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined)))
  })
  const client = yield* startClient(clientIdentity)
  const connect = client.connect({ port: server.port, peer: serverId })
  return { server, client, connect, begun, release, interrupted }
})

describe("a secure server whose scope closes", () => {
  it.scoped("lets requests in flight finish, and says that no other is welcome", () =>
    Effect.gen(function* () {
      const { begun, connect, release, server } = yield* held
      const connection = yield* connect
      const idle = yield* connect
      yield* server.log.nth("ConnectionEstablished", 1)
      const request = yield* Effect.fork(execute(connection, get))
      yield* Queue.take(begun)
      const closing = yield* Effect.fork(server.close)
      yield* idle.ended
      expect(yield* failure(connect)).toMatchObject({
        _tag: "ConnectionError",
        reason: "Refused",
        outcome: "NotSent"
      })
      expect(closing.unsafePoll()).toBeNull()
      yield* Deferred.succeed(release, undefined)
      const response = yield* Fiber.join(request)
      expect(yield* response.text).toBe("finished")
      expect(response.headers["connection"]).toBe("close")
      yield* Fiber.join(closing)
      expect(server.log.all("ConnectionClosed")).toMatchObject([
        { reason: "Shutdown", requests: 0 },
        { reason: "Shutdown", requests: 1 }
      ])
      expect(yield* connection.ended).toBe("PeerClosed")
      expect(connection.isUsable()).toBe(false)
    })
  )

  it.scoped("lets a streamed response that has begun run to its end", () =>
    Effect.gen(function* () {
      yield* realTime
      const { clientId, clientIdentity, serverId, serverIdentity } = yield* workloads
      const pieces = yield* Queue.unbounded<Uint8Array>()
      const server = yield* startServer({
        identity: serverIdentity,
        authorize: clientId,
        app: Effect.succeed(HttpServerResponse.stream(Stream.take(Stream.fromQueue(pieces), 2)))
      })
      const client = yield* startClient(clientIdentity)
      const connection = yield* client.connect({ port: server.port, peer: serverId })
      yield* Queue.offer(pieces, new Uint8Array([1]))
      const response = yield* execute(connection, get)
      const idle = yield* client.connect({ port: server.port, peer: serverId })
      yield* server.log.nth("ConnectionEstablished", 1)
      const closing = yield* Effect.fork(server.close)
      yield* idle.ended
      yield* Queue.offer(pieces, new Uint8Array([2]))
      const bytes = yield* Stream.runCollect(response.stream)
      expect(Buffer.concat(Chunk.toReadonlyArray(bytes))).toEqual(Buffer.from([1, 2]))
      yield* Fiber.join(closing)
      expect(server.log.all("ConnectionClosed")).toMatchObject([{ requests: 0 }, { reason: "Shutdown", requests: 1 }])
    })
  )

  it.scoped("closes idle connections at once, those that never carried a request too", () =>
    Effect.gen(function* () {
      const { connect, release, server } = yield* held
      yield* Deferred.succeed(release, undefined)
      const used = yield* connect
      yield* execute(used, get)
      const fresh = yield* connect
      yield* server.log.nth("ConnectionEstablished", 1)
      yield* server.close
      expect(yield* used.ended).toBe("PeerClosed")
      expect(yield* fresh.ended).toBe("PeerClosed")
      expect(server.log.all("ConnectionClosed").map(({ reason }) => reason)).toEqual(["Shutdown", "Shutdown"])
    })
  )

  it.scoped("cuts what is still in flight after gracefulShutdownTimeout", () =>
    Effect.gen(function* () {
      const { begun, connect, interrupted, server } = yield* held
      const connection = yield* connect
      const request = yield* Effect.fork(execute(connection, get))
      const idle = yield* connect
      yield* server.log.nth("ConnectionEstablished", 1)
      yield* Queue.take(begun)
      const closing = yield* Effect.fork(server.close)
      yield* idle.ended
      yield* TestClock.adjust("4999 millis")
      expect(closing.unsafePoll()).toBeNull()
      yield* TestClock.adjust("1 millis")
      expect(yield* failure(Fiber.join(request))).toMatchObject({
        _tag: "ConnectionError",
        reason: "Closed",
        outcome: "Unknown"
      })
      yield* Deferred.await(interrupted)
      yield* Fiber.join(closing)
      expect(server.log.all("ConnectionClosed")).toMatchObject([
        { reason: "Shutdown", requests: 0 },
        { reason: "Shutdown", requests: 1 }
      ])
    })
  )

  it.scoped("does not wait for a client that stays silent in its handshake", () =>
    Effect.gen(function* () {
      const { server } = yield* held
      const gone = yield* Deferred.make<void>()
      yield* Effect.acquireRelease(
        Effect.sync(() =>
          tcpConnect({ host, port: server.port })
            .on("error", () => {})
            .once("close", () => Deferred.unsafeDone(gone, Effect.void))
            .resume()
        ),
        (socket) => Effect.sync(() => socket.destroy())
      )
      yield* server.log.nth("ConnectionAttempted")
      yield* server.close
      yield* Deferred.await(gone)
      expect(server.log.all("ConnectionRefused")).toMatchObject([{ error: "Interrupted", reason: "Interrupted" }])
    })
  )

  it.scoped(
    "ends in both scopes when that of its app and its own close at the same time, with a request in flight",
    () =>
      Effect.gen(function* () {
        yield* realTime
        const { clientId, clientIdentity, serverId, serverIdentity } = yield* workloads
        const log = makeLog()
        const begun = yield* Deferred.make<void>()
        const release = yield* Deferred.make<void>()
        const app = Effect.zipRight(Deferred.succeed(begun, undefined), Deferred.await(release))
        const [ofServer, ofApp] = [yield* Scope.make(), yield* Scope.make()]
        const services = yield* NodeSecureServer.make({ port: 0, host, authorize: PeerMatcher.exactly(clientId) }).pipe(
          Effect.provide(Layer.merge(IdentityProvider.layerStatic(serverIdentity), log.layer)),
          Scope.extend(ofServer)
        )
        const { address, serve } = yield* Effect.provide(HttpServer.HttpServer, services)
        yield* Scope.extend(serve(Effect.as(app, HttpServerResponse.empty())), ofApp)
        const client = yield* startClient(clientIdentity)
        const port = address._tag === "TcpAddress" ? address.port : 0
        const request = yield* Effect.fork(execute(yield* client.connect({ port, peer: serverId }), get))
        yield* Deferred.await(begun)
        const closing = yield* Effect.fork(
          Effect.forEach([ofServer, ofApp], (scope) => Scope.close(scope, Exit.void), { concurrency: "unbounded" })
        )
        yield* Effect.yieldNow()
        yield* Deferred.succeed(release, undefined)
        expect((yield* Fiber.join(request)).status).toBe(204)
        yield* Fiber.join(closing)
        expect(log.all("ConnectionClosed")).toMatchObject([{ reason: "Shutdown", requests: 1 }])
      })
  )

  it.scoped("serves nobody any more, and an app that is attached after its end ends with its own scope", () =>
    Effect.gen(function* () {
      yield* realTime
      const { clientId, clientIdentity, serverId, serverIdentity } = yield* workloads
      const scope = yield* Scope.make()
      const services = yield* NodeSecureServer.make({ port: 0, host, authorize: PeerMatcher.exactly(clientId) }).pipe(
        Effect.provide(Layer.merge(IdentityProvider.layerStatic(serverIdentity), makeLog().layer)),
        Scope.extend(scope)
      )
      const { address, serve } = yield* Effect.provide(HttpServer.HttpServer, services)
      yield* Scope.close(scope, Exit.void)
      yield* Effect.scoped(serve(HttpServerResponse.empty()))
      const client = yield* startClient(clientIdentity)
      const port = address._tag === "TcpAddress" ? address.port : 0
      expect(yield* failure(client.connect({ port, peer: serverId }))).toMatchObject({ reason: "Refused" })
    })
  )

  it.scoped("closes connections even if no app was ever attached", () =>
    Effect.gen(function* () {
      yield* realTime
      const { clientId, clientIdentity, serverId, serverIdentity } = yield* workloads
      const log = makeLog()
      const scope = yield* Scope.make()
      const services = yield* NodeSecureServer.make({ port: 0, host, authorize: PeerMatcher.exactly(clientId) }).pipe(
        Effect.provide(Layer.merge(IdentityProvider.layerStatic(serverIdentity), log.layer)),
        Scope.extend(scope)
      )
      const { address } = yield* Effect.provide(HttpServer.HttpServer, services)
      const client = yield* startClient(clientIdentity)
      const connection = yield* client.connect({
        port: address._tag === "TcpAddress" ? address.port : 0,
        peer: serverId
      })
      yield* log.nth("ConnectionEstablished")
      yield* Scope.close(scope, Exit.void)
      expect(yield* connection.ended).toBe("PeerClosed")
      expect(log.all("ConnectionClosed")).toMatchObject([{ reason: "Shutdown", requests: 0 }])
    })
  )
})

/** What keeps the event loop busy: handles, requests and timers; and what listens for the end of the process. */
const resources = Effect.async<ReadonlyArray<string>>((resume) => {
  // They are opened when they are first asked for: by a log perhaps, or the platform's terminal.
  expect([process.stdin.fd, process.stdout.fd, process.stderr.fd]).toEqual([0, 1, 2])
  // One turn of the loop: what was closed is only then off it.
  setImmediate(() => {
    const listeners = process
      .eventNames()
      .flatMap((name) => Array<string>(process.listenerCount(name)).fill(`listener of ${String(name)}`))
    resume(Effect.succeed([...process.getActiveResourcesInfo(), ...listeners]))
  })
})

/** What is there now and was not before. */
const left = (before: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<string>> =>
  Effect.map(resources, (now) => {
    const known = [...before]
    return now.filter((name) => {
      const at = known.indexOf(name)
      if (at >= 0) known.splice(at, 1)
      return at < 0
    })
  })

/** The next turn of the event loop. */
const turn = Effect.async<void>((resume) => {
  const immediate = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(immediate))
})

/** What is still left when all that ends by itself has ended: undici has a timer for the process, and stops it when it next fires. */
const leftAtLast = (before: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<string>> =>
  left(before).pipe(
    // A turn later the timer of the delay itself is none any more.
    Effect.tap((now) => (now.length === 0 ? Effect.void : Effect.zipRight(Effect.sleep("50 millis"), turn))),
    Effect.repeat({ until: (now) => now.length === 0, times: 200 })
  )

describe("nothing is left", () => {
  // On the real clock, where a fiber that sleeps is a timer that counts.
  it.scopedLive("after 200 channels were opened, used and closed, on either side", () =>
    Effect.gen(function* () {
      const { clientId, clientIdentity, serverId, serverIdentity } = yield* workloads
      const beginning = yield* resources
      const scope = yield* Scope.make()
      const server = yield* startServer({ identity: serverIdentity, authorize: clientId }).pipe(Scope.extend(scope))
      const client = yield* startClient(clientIdentity).pipe(Scope.extend(scope))
      const before = yield* resources
      const once = Effect.scoped(
        Effect.gen(function* () {
          const connection = yield* client.connect({ port: server.port, peer: serverId })
          expect((yield* execute(connection, get)).status).toBe(200)
        })
      )
      yield* Effect.replicateEffect(once, 200, { concurrency: 8, discard: true })
      expect(client.log.all("ConnectionClosed").map(({ reason }) => reason)).toEqual(Array(200).fill("Shutdown"))
      yield* server.log.nth("ConnectionClosed", 199)
      expect(yield* leftAtLast(before)).toEqual([])
      expect(server.handled()).toBe(200)
      yield* Scope.close(scope, Exit.void)
      expect(yield* leftAtLast(beginning)).toEqual([])
    })
  )

  it.scoped("of a closed connection in the memory of its connector", () =>
    Effect.gen(function* () {
      yield* realTime
      const { clientId, clientIdentity, serverId, serverIdentity } = yield* workloads
      const server = yield* startServer({ identity: serverIdentity, authorize: clientId })
      const client = yield* startClient(clientIdentity)
      const opened = yield* Effect.scoped(
        Effect.gen(function* () {
          const connection = yield* client.connect({ port: server.port, peer: serverId })
          yield* execute(connection, get)
          return new WeakRef(connection)
        })
      )
      yield* client.log.nth("ConnectionClosed")
      yield* collectGarbage
      expect(opened.deref()).toBeUndefined()
    })
  )
})
