import { createServer, type IncomingMessage, type RequestListener } from "node:http"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as TestIdentity from "@agentweave/testkit/TestIdentity"
import * as NodeSecureServer from "@agentweave/transport-node/NodeSecureServer"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Layer, Option, Scope, TestClock } from "effect"
import { failure, host, hostileClient, identityLayer, makeLog, realTime, startClient } from "./fixture.js"

const setUp = Effect.fnUntraced(function* (listener: RequestListener) {
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
    { port: 0, host, authorize: PeerMatcher.exactly(authority.id("/client")), gracefulShutdownTimeout: "10 millis" }
  ).pipe(Effect.provide(Layer.merge(identityLayer(identity), log.layer)), Scope.extend(scope))
  if (address._tag !== "TcpAddress") return yield* Effect.dieMessage("expected a TCP address")
  const { port } = address
  return { authority, identity, log, port, handled: () => handled, close: Scope.close(scope, Exit.void) }
})

const whoami: RequestListener = (request, response) => {
  response.end(Option.match(NodeSecureServer.callerOf(request), { onNone: () => "", onSome: (peer) => peer.spiffeId }))
}

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
