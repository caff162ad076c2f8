import { type AddressInfo, createServer, type Server } from "node:net"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as TestIdentity from "@agentweave/testkit/TestIdentity"
import { Connector } from "@agentweave/transport"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { type ClientAdapter, clientAdapters } from "./clientAdapters.js"
import { failure, host, hostileServer, identityLayer, realTime, startClient } from "./fixture.js"

const setUp = Effect.gen(function* () {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const identity = yield* TestIdentity.make(yield* authority.context({ path: "/client" }))
  const client = yield* startClient(identity)
  const services = Layer.merge(Layer.succeed(Connector.Connector, client.connector), identityLayer(identity))
  return {
    authority,
    identity,
    client,
    log: client.log,
    peer: authority.id("/server"),
    credentials: yield* authority.issueRaw({ path: "/server" }),
    make: (adapter: ClientAdapter, port: number) =>
      Effect.provide(adapter.make({ peer: authority.id("/server"), port }), services),
    ofUrl: (adapter: ClientAdapter, port: number) =>
      Effect.provide(
        adapter.ofUrl?.({ peer: authority.id("/server"), port }) ?? Effect.dieMessage("it takes no URL"),
        services
      )
  }
})

/** The first of our typed errors in an error and its causes. */
const typed = (error: unknown): unknown => {
  for (let at = error; typeof at === "object" && at !== null; ) {
    if ("_tag" in at && "isRetryable" in at) return at
    // The event of a WebSocket has it as its error.
    at = "error" in at ? at.error : "cause" in at ? at.cause : undefined
  }
  return error
}

/** Servers whose peer is not the one that was asked for, and what each is refused with. */
const refusals = {
  "another workload of the same domain": [{ path: "/other" }, "UnexpectedPeer"],
  "a certificate that has expired": [{ path: "/server", validity: "Expired" }, "Expired"],
  "a certificate that is not valid yet": [{ path: "/server", validity: "Future" }, "NotYetValid"]
} as const

for (const adapter of clientAdapters) {
  describe(`a client: ${adapter.name}`, () => {
    it.scoped("reaches the right peer again and again, on record from start to end", () =>
      Effect.gen(function* () {
        const { credentials, log, make } = yield* setUp
        const server = yield* hostileServer(credentials)
        yield* Effect.scoped(
          Effect.gen(function* () {
            const call = yield* make(adapter, server.port)
            expect(yield* call).toContain("200")
            expect(yield* call).toContain("200")
          })
        )
        yield* server.idle
        const established = log.all("ConnectionEstablished")
        expect(established.length).toBeGreaterThan(0)
        expect(log.all("ConnectionClosed")).toHaveLength(established.length)
        expect(log.all("RequestEnded")).toHaveLength(adapter.recordsRequests ? 2 : 0)
      })
    )

    for (const [title, [issue, reason]] of Object.entries(refusals)) {
      it.scoped(`refuses ${title}: nothing is sent, nothing stays open`, () =>
        Effect.gen(function* () {
          const { authority, log, make } = yield* setUp
          const server = yield* hostileServer(yield* authority.issueRaw(issue))
          const call = yield* make(adapter, server.port)
          expect(typed(yield* failure(call))).toMatchObject({ _tag: "PeerVerificationError", reason })
          yield* server.idle
          expect(server.bytes()).toBe(0)
          expect(log.connections()).toEqual(["ConnectionAttempted", "ConnectionRefused"])
        })
      )
    }

    it.scoped("refuses a peer of another trust domain that names itself as ours", () =>
      Effect.gen(function* () {
        const { log, make } = yield* setUp
        const foreign = yield* DevAuthority.make({ trustDomain: "example.org" })
        const server = yield* hostileServer(yield* foreign.issueRaw({ path: "/server" }))
        const call = yield* make(adapter, server.port)
        expect(typed(yield* failure(call))).toMatchObject({ _tag: "PeerVerificationError", reason: "UntrustedChain" })
        yield* server.idle
        expect(server.bytes()).toBe(0)
        expect(log.connections()).toEqual(["ConnectionAttempted", "ConnectionRefused"])
      })
    )

    it.scoped("refuses a peer of a trust domain whose bundle it does not have", () =>
      Effect.gen(function* () {
        const { log, make } = yield* setUp
        const foreign = yield* DevAuthority.make({ trustDomain: "example.com" })
        const server = yield* hostileServer(yield* foreign.issueRaw({ path: "/server" }))
        const call = yield* make(adapter, server.port)
        expect(typed(yield* failure(call))).toMatchObject({ _tag: "PeerVerificationError", reason: "UntrustedChain" })
        yield* server.idle
        expect(server.bytes()).toBe(0)
        expect(log.connections()).toEqual(["ConnectionAttempted", "ConnectionRefused"])
      })
    )

    it.scoped("refuses a peer of a trust domain it federates with, under the same path", () =>
      Effect.gen(function* () {
        const { authority, identity, log, make } = yield* setUp
        const foreign = yield* DevAuthority.make({ trustDomain: "example.com" })
        yield* identity.set(yield* authority.context({ path: "/client", federatesWith: [foreign] }))
        const server = yield* hostileServer(yield* foreign.issueRaw({ path: "/server" }))
        const call = yield* make(adapter, server.port)
        expect(typed(yield* failure(call))).toMatchObject({ _tag: "PeerVerificationError", reason: "UntrustedChain" })
        yield* server.idle
        expect(server.bytes()).toBe(0)
        expect(log.connections()).toEqual(["ConnectionAttempted", "ConnectionRefused"])
      })
    )

    it.scoped("refuses a server that does not ask for our certificate", () =>
      Effect.gen(function* () {
        const { credentials, log, make } = yield* setUp
        const server = yield* hostileServer(credentials, { requestCert: false })
        const call = yield* make(adapter, server.port)
        expect(typed(yield* failure(call))).toMatchObject({ _tag: "PeerVerificationError", reason: "NotMutual" })
        yield* server.idle
        expect(server.bytes()).toBe(0)
        expect(log.connections()).toEqual(["ConnectionAttempted", "ConnectionRefused"])
      })
    )

    it.scoped("refuses a server that speaks no TLS", () =>
      Effect.gen(function* () {
        const { log, make } = yield* setUp
        const server = yield* Effect.acquireRelease(
          Effect.async<Server>((resume) => {
            const server = createServer((socket) => {
              socket.on("error", () => {})
              // Reads to the end, so that the connection closes.
              socket.resume()
              socket.end("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            })
            server.listen(0, host, () => resume(Effect.succeed(server)))
          }),
          (server) => Effect.async<void>((resume) => void server.close(() => resume(Effect.void)))
        )
        const call = yield* make(adapter, (server.address() as AddressInfo).port)
        expect(typed(yield* failure(call))).toMatchObject({ _tag: "ConnectionError", reason: "NotTls" })
        expect(log.connections()).toEqual(["ConnectionAttempted", "ConnectionRefused"])
      })
    )

    it.scoped("opens nothing while its own identity has expired", () =>
      Effect.gen(function* () {
        const { authority, credentials, identity, log, make } = yield* setUp
        const server = yield* hostileServer(credentials)
        const call = yield* make(adapter, server.port)
        yield* identity.set(yield* authority.context({ path: "/client", validity: "Expired" }))
        expect(typed(yield* failure(call))).toMatchObject({ _tag: "IdentityError", reason: "Expired" })
        expect(server.accepted()).toBe(0)
        expect(log.connections()).toEqual(["ConnectionAttempted", "ConnectionRefused"])
      })
    )

    it.scoped("uses no connection any more whose peer's authority was withdrawn", () =>
      Effect.gen(function* () {
        const { authority, credentials, identity, make } = yield* setUp
        const server = yield* hostileServer(credentials)
        const call = yield* make(adapter, server.port)
        expect(yield* call).toContain("200")
        const successor = yield* Effect.flatMap(authority.rotateRoot(), ({ retireOldRoots }) => retireOldRoots)
        yield* identity.set(yield* successor.context({ path: "/client" }))
        const before = server.bytes()
        yield* server.idle
        expect(typed(yield* failure(call))).toMatchObject({ _tag: "PeerVerificationError", reason: "UntrustedChain" })
        yield* server.idle
        expect(server.bytes()).toBe(before)
      })
    )

    if (adapter.ofUrl === undefined) return

    it.scoped("refuses a plaintext URL, another origin, and a redirect to one, before a connection is opened", () =>
      Effect.gen(function* () {
        const { authority, credentials, log, ofUrl } = yield* setUp
        const elsewhere = yield* hostileServer(yield* authority.issueRaw({ path: "/server" }))
        const server = yield* hostileServer(credentials, {
          onRequest: (socket) =>
            void socket.write(
              `HTTP/1.1 302 Found\r\nlocation: https://${host}:${elsewhere.port}/\r\ncontent-length: 0\r\n\r\n`
            )
        })
        const call = yield* ofUrl(adapter, server.port)
        for (const url of [`http://${host}:${server.port}/`, `https://${host}:${elsewhere.port}/`]) {
          yield* failure(Effect.suspend(() => call(url)))
        }
        expect(server.accepted()).toBe(0)
        // Those that follow redirects fail, the others tell of it.
        const redirected = yield* Effect.either(call(`https://${host}:${server.port}/`))
        if (redirected._tag === "Right") expect(redirected.right).toContain("302")
        expect(elsewhere.accepted()).toBe(0)
        expect(log.connections().filter((tag) => tag === "ConnectionEstablished")).toHaveLength(1)
      })
    )
  })
}
