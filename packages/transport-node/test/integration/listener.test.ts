import { createServer, IncomingMessage, type RequestListener } from "node:http"
import type { TLSSocket } from "node:tls"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as TestIdentity from "@agentweave/testkit/TestIdentity"
import * as NodeSecureServer from "@agentweave/transport-node/NodeSecureServer"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, type Duration, Effect, Exit, Fiber, Layer, Option, Scope, TestClock } from "effect"
import { failure, host, hostileClient, identityLayer, makeLog, realTime, startClient } from "./fixture.js"

const setUp = Effect.fnUntraced(function* (
  listener: RequestListener,
  gracefulShutdownTimeout: Duration.DurationInput = "10 millis"
) {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const identity = yield* TestIdentity.make(yield* authority.context({ path: "/server" }))
  const log = makeLog()
  let handled = 0
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
  const address = yield* NodeSecureServer.makeListener(
    (request, response) => {
      handled++
      listener(request, response)
    },
    { port: 0, host, authorize: PeerMatcher.exactly(authority.id("/client")), gracefulShutdownTimeout }
  ).pipe(Effect.provide(Layer.merge(identityLayer(identity), log.layer)), Scope.extend(scope))
  if (address._tag !== "TcpAddress") return yield* Effect.dieMessage("expected a TCP address")
  const { port } = address
  return { authority, identity, log, port, handled: () => handled, close: Scope.close(scope, Exit.void) }
})

const whoami: RequestListener = (request, response) => {
  response.end(Option.match(NodeSecureServer.callerOf(request), { onNone: () => "", onSome: (peer) => peer.spiffeId }))
}

/** More than what sockets hold of their own. */
const size = 32 * 1024 * 1024

/** Clients that are not served, whatever they send. */
const strangers = {
  "another workload of the same domain": { path: "/other" },
  "a certificate that has expired": { path: "/client", validity: "Expired" },
  "a certificate that is not valid yet": { path: "/client", validity: "Future" }
} as const

describe("a request listener of another framework, behind the gate", () => {
  it.scoped("serves an authorised peer, knows its caller, and has each request on record", () =>
    Effect.gen(function* () {
      const { authority, log, port } = yield* setUp(whoami)
      const client = yield* startClient(yield* authority.context({ path: "/client" }))
      const channel = yield* client.channel({ port, peer: authority.id("/server") })
      const response = yield* channel.get("/path?query=secret")
      expect(yield* response.text).toBe(authority.id("/client"))
      expect(yield* log.nth("RequestEnded")).toMatchObject({
        path: "/path",
        status: 200,
        peerId: authority.id("/client")
      })
    })
  )

  it.scoped(
    "ends a connection after an Upgrade that nobody uses, behind which Node loses a request: its body is served as none",
    () =>
      Effect.gen(function* () {
        const paths: Array<string | undefined> = []
        const { authority, port } = yield* setUp((request, response) => {
          paths.push(request.url)
          response.end()
        })
        const next = "GET /smuggled HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        const sockets: Array<TLSSocket> = []
        yield* hostileClient(port, yield* authority.issueRaw({ path: "/client" }), {
          request:
            "GET /feed HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n" +
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n" +
            `POST /lost HTTP/1.1\r\nhost: x\r\ncontent-length: ${next.length}\r\n\r\n`,
          onSecure: (socket) => void sockets.push(socket),
          onData: () => sockets[0]?.write(next)
        })
        expect(paths).toEqual(["/feed"])
      })
  )

  it.scoped(
    "knows the caller of a request that a framework has given another prototype, and of none that is gone",
    () =>
      Effect.gen(function* () {
        const seen: Array<boolean> = []
        const { authority, log, port } = yield* setUp((request, response) => {
          Object.setPrototypeOf(request, Object.create(IncomingMessage.prototype))
          seen.push(Option.isSome(NodeSecureServer.callerOf(request)))
          request.socket.destroy()
          seen.push(Option.isSome(NodeSecureServer.callerOf(request)))
          response.end()
        })
        yield* hostileClient(port, yield* authority.issueRaw({ path: "/client" }))
        yield* log.nth("ConnectionClosed")
        expect(seen).toEqual([true, false])
      })
  )

  it.scoped(
    "sends the response that is on its way to its end when its scope ends, to a client that is slow to read",
    () =>
      Effect.gen(function* () {
        const { authority, close, port } = yield* setUp((_, response) => response.end(Buffer.alloc(size)), "30 seconds")
        const paused = yield* Deferred.make<TLSSocket>()
        const sockets: Array<TLSSocket> = []
        const client = yield* hostileClient(port, yield* authority.issueRaw({ path: "/client" }), {
          onSecure: (socket) => void sockets.push(socket),
          onData: () => {
            const socket = sockets.pop()
            if (socket !== undefined) Deferred.unsafeDone(paused, Effect.succeed(socket.pause()))
          }
        }).pipe(Effect.fork)
        const socket = yield* Deferred.await(paused)
        const closing = yield* Effect.fork(close)
        yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
        socket.resume()
        expect((yield* Fiber.join(client)).received.length).toBeGreaterThan(size)
        yield* Fiber.join(closing)
      })
  )

  for (const [title, issue] of Object.entries(strangers)) {
    it.scoped(`does not serve ${title}`, () =>
      Effect.gen(function* () {
        const { authority, handled, log, port } = yield* setUp(whoami)
        yield* hostileClient(port, yield* authority.issueRaw(issue))
        yield* log.nth("ConnectionRefused")
        expect(handled()).toBe(0)
        expect(log.connections()).toEqual(["ConnectionAttempted", "ConnectionRefused"])
      })
    )
  }

  it.scoped("does not serve a peer of another trust domain, one without a certificate, and plaintext", () =>
    Effect.gen(function* () {
      const { handled, log, port } = yield* setUp(whoami)
      const foreign = yield* DevAuthority.make({ trustDomain: "example.com" })
      yield* hostileClient(port, yield* foreign.issueRaw({ path: "/client" }))
      yield* log.nth("ConnectionRefused", 0)
      yield* hostileClient(port, undefined)
      yield* log.nth("ConnectionRefused", 1)
      yield* failure(Effect.tryPromise(() => fetch(`http://${host}:${port}/`)))
      yield* log.nth("ConnectionRefused", 2)
      expect(handled()).toBe(0)
      expect(log.all("ConnectionEstablished")).toEqual([])
    })
  )

  it.scoped("ends a connection whose client's authority was withdrawn, in the middle of an answer", () =>
    Effect.gen(function* () {
      const { authority, identity, log, port } = yield* setUp((_, response) => void response.write("begun"))
      const client = yield* startClient(yield* authority.context({ path: "/client" }))
      const channel = yield* client.channel({ port, peer: authority.id("/server") })
      const body = yield* Effect.fork(failure(Effect.flatMap(channel.get("/"), (response) => response.text)))
      yield* log.nth("RequestStarted")
      const successor = yield* Effect.flatMap(authority.rotateRoot(), ({ retireOldRoots }) => retireOldRoots)
      yield* identity.set(yield* successor.context({ path: "/server" }))
      // The answer under way is given its time, which passes with the test's clock.
      yield* Effect.repeat(TestClock.adjust("100 millis"), { until: () => log.all("ConnectionClosed").length > 0 })
      yield* Effect.fromFiber(body)
      expect(log.all("RequestEnded")).toMatchObject([{ error: "Interrupted" }])
    })
  )

  it.scoped("serves nobody once its scope has ended", () =>
    Effect.gen(function* () {
      const { authority, close, handled, port } = yield* setUp(whoami)
      yield* close
      const client = yield* startClient(yield* authority.context({ path: "/client" }))
      const channel = yield* client.channel({ port, peer: authority.id("/server") })
      expect(yield* failure(channel.get("/"))).toMatchObject({ _tag: "ConnectionError", reason: "Refused" })
      expect(handled()).toBe(0)
    })
  )

  it.scoped("knows no caller of a request that came to an insecure server", () =>
    Effect.gen(function* () {
      const request = yield* Effect.async<IncomingMessage>((resume) => {
        const server = createServer((request, response) => {
          response.end()
          server.close(() => resume(Effect.succeed(request)))
          server.closeAllConnections()
        })
        server.listen(0, host, () => {
          const address = server.address()
          void fetch(`http://${host}:${typeof address === "object" ? address?.port : ""}/`).catch(() => {})
        })
      })
      expect(NodeSecureServer.callerOf(request)).toEqual(Option.none())
    })
  )
})
