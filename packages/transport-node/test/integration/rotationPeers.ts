import { connect as tlsConnect } from "node:tls"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as X509BundleSet from "@agentweave/spiffe/X509BundleSet"
import * as X509Context from "@agentweave/spiffe/X509Context"
import * as X509Svid from "@agentweave/spiffe/X509Svid"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as TestIdentity from "@agentweave/testkit/TestIdentity"
import type * as Connector from "@agentweave/transport/Connector"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { Deferred, Effect, Queue, Random, Redacted, Stream } from "effect"
import { execute } from "./execute.js"
import { host, realTime, startClient, startServer } from "./fixture.js"

export const get = HttpClientRequest.get("/")

/** Our server is of example.org, the client of partner.test, and each trusts the other's domain until told otherwise. */
export const setup = Effect.gen(function* () {
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

export const held = HttpClientRequest.get("/held")

/** Reads a response to `/stream` piece by piece. */
export const streaming = Effect.fnUntraced(function* (connection: Connector.Connection) {
  const arrived = yield* Queue.unbounded<string>()
  const response = yield* execute(connection, HttpClientRequest.get("/stream"))
  const reading = yield* Effect.fork(
    Stream.runForEach(response.stream, (chunk) => Queue.offer(arrived, Buffer.from(chunk).toString()))
  )
  return { reading, next: Queue.take(arrived) }
})

export const lost = { _tag: "ResponseError", cause: { _tag: "ConnectionError", reason: "Lost" } }

/** A raw client that keeps its connection for as long as the server lets it. */
export const rawConnection = Effect.fnUntraced(function* (port: number, context: X509Context.X509Context, ca: string) {
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
