import { IdentityError, IdentityProvider, PeerMatcher, TrustDomain, X509Bundle } from "@agentweave/spiffe"
import { DevAuthority, TestIdentity } from "@agentweave/testkit"
import { AuditLog } from "@agentweave/transport"
import { type BundleEndpointEvent, FederatedBundles } from "@agentweave/transport-node"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Logger, Queue, TestClock } from "effect"
import { execute } from "./execute.js"
import { failure, type Identity, realTime, startClient, startServer } from "./fixture.js"
import { document, startPublisher } from "./publisher.js"

const partner = TrustDomain.make("partner.example")
const get = HttpClientRequest.get("/")
const gone = new IdentityError.IdentityError({ reason: "Withdrawn", description: "expected an identity, got none" })

/** Long enough for a server to wait for a request that may be on its way, and to look whether an identity is back. */
const aWhile = TestClock.adjust("1 second")

/** Our server is of example.org and authorises partner.example; its identity is held by the test. */
const serve = Effect.fnUntraced(function* (own: DevAuthority.DevAuthority, identity: Identity) {
  const server = yield* startServer({ identity, authorize: PeerMatcher.memberOf(partner), keepAliveTimeout: "2 hours" })
  return {
    server,
    /** A connection of a client with this identity. */
    connect: (identity: Identity) =>
      Effect.flatMap(startClient(identity), (client) => client.connect({ port: server.port, peer: own.id("/server") }))
  }
})

describe("a server that fetches the bundle of a foreign trust domain", () => {
  it.scoped("serves nobody while its own identity is withdrawn, and comes back with that bundle as it is by then", () =>
    Effect.gen(function* () {
      yield* realTime
      const web = yield* DevAuthority.make({ trustDomain: "web" })
      const own = yield* DevAuthority.make({ trustDomain: "example.org" })
      const foreign = yield* DevAuthority.make({ trustDomain: partner })
      const successor = yield* Effect.flatMap(foreign.rotateRoot(), ({ retireOldRoots }) => retireOldRoots)
      const of = (authority: DevAuthority.DevAuthority) => authority.context({ path: "/client", federatesWith: [own] })
      const [before, after] = [yield* of(foreign), yield* of(successor)]
      const context = yield* own.context({ path: "/server" })
      const publisher = yield* startPublisher(
        yield* web.issueRaw({ uris: [], dnsNames: ["localhost"] }),
        document(foreign.bundle, 1n),
        "localhost"
      )
      const identity = yield* TestIdentity.make(context)
      const events = yield* Queue.unbounded<BundleEndpointEvent.BundleEndpointEvent>()
      const services = yield* FederatedBundles.layer({
        endpoints: [{ profile: "https_web", trustDomain: partner, url: publisher.url }],
        webAuthorities: X509Bundle.toPem(web.bundle),
        refreshInterval: "10 seconds",
        minRefreshInterval: "10 seconds",
        initialWait: 0,
        timeout: "5 minutes",
        onEvent: (event) => Queue.offer(events, event)
      }).pipe(Layer.provide(identity.layer), Layer.provide(AuditLog.layerMemory([])), Layer.build)
      const provider = yield* Effect.provide(IdentityProvider.IdentityProvider, services)
      const layer = Layer.succeed(IdentityProvider.IdentityProvider, provider)
      expect(yield* Queue.take(events)).toMatchObject({ _tag: "BundleFetched", sequence: "1" })
      const { connect, server } = yield* serve(own, { ...identity, provider, layer })
      const first = yield* connect(before)
      expect((yield* execute(first, get)).status).toBe(200)

      yield* identity.fail(gone)
      yield* aWhile
      expect(yield* first.ended).toBe("PeerClosed")
      expect(yield* server.log.nth("ConnectionClosed")).toMatchObject({ reason: "Withdrawn" })
      expect(yield* failure(connect(before))).toMatchObject({ reason: "HandshakeReset" })

      // The endpoint is asked on, so that nobody is trusted at the return that has lost this trust meanwhile.
      publisher.publish(document(successor.bundle, 2n))
      yield* TestClock.adjust("10 seconds")
      expect(yield* Queue.take(events)).toMatchObject({ _tag: "BundleFetched", sequence: "2" })
      expect(yield* failure(connect(after))).toMatchObject({ reason: "HandshakeReset" })

      yield* identity.set(context)
      yield* aWhile
      expect((yield* execute(yield* connect(after), get)).status).toBe(200)
      yield* failure(Effect.flatMap(connect(before), (late) => execute(late, get)))
      expect(yield* server.log.nth("ConnectionRefused", 1)).toMatchObject({ reason: "UntrustedChain" })
      expect(server.handled()).toBe(2)
    }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger)))
  )
})

describe("a foreign bundle that an identity brings", () => {
  /** Both sides hold an identity with and without the bundle of the other's trust domain. */
  const setup = Effect.gen(function* () {
    yield* realTime
    const own = yield* DevAuthority.make({ trustDomain: "example.org" })
    const foreign = yield* DevAuthority.make({ trustDomain: partner })
    const [serverWith, serverWithout] = [
      yield* own.context({ path: "/server", federatesWith: [foreign] }),
      yield* own.context({ path: "/server" })
    ]
    const [clientWith, clientWithout] = [
      yield* foreign.context({ path: "/client", federatesWith: [own] }),
      yield* foreign.context({ path: "/client" })
    ]
    const serverIdentity = yield* TestIdentity.make(serverWith)
    const clientIdentity = yield* TestIdentity.make(clientWith)
    const { connect, server } = yield* serve(own, serverIdentity)
    return {
      server,
      /** Each by a client of its own. */
      connect: connect(clientIdentity),
      serverIdentity,
      clientIdentity,
      serverWith,
      serverWithout,
      clientWith,
      clientWithout
    }
  })

  it.scoped("takes its trust domain away from a server with it, and gives it back", () =>
    Effect.gen(function* () {
      const { connect, server, serverIdentity, serverWith, serverWithout } = yield* setup
      for (const round of [0, 1]) {
        const connection = yield* connect
        expect((yield* execute(connection, get)).status).toBe(200)
        yield* serverIdentity.set(serverWithout)
        yield* aWhile
        expect(yield* connection.ended).toBe("PeerClosed")
        expect(yield* server.log.nth("ConnectionClosed", round)).toMatchObject({ reason: "Distrust" })
        yield* failure(Effect.flatMap(connect, (late) => execute(late, get)))
        expect(yield* server.log.nth("ConnectionRefused", round)).toMatchObject({ reason: "UntrustedChain" })
        yield* serverIdentity.set(serverWith)
      }
      expect((yield* execute(yield* connect, get)).status).toBe(200)
      expect(server.handled()).toBe(3)
    })
  )

  it.scoped("takes its trust domain away from a client with it, and gives it back", () =>
    Effect.gen(function* () {
      const { clientIdentity, clientWith, clientWithout, connect, server } = yield* setup
      for (let round = 0; round < 2; round++) {
        const connection = yield* connect
        expect((yield* execute(connection, get)).status).toBe(200)
        yield* clientIdentity.set(clientWithout)
        expect(yield* connection.ended).toBe("Distrust")
        expect(yield* failure(connect)).toMatchObject({ _tag: "PeerVerificationError", reason: "NoBundle" })
        yield* clientIdentity.set(clientWith)
      }
      expect((yield* execute(yield* connect, get)).status).toBe(200)
      expect(server.handled()).toBe(3)
    })
  )
})
