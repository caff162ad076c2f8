import { PeerMatcher, X509BundleSet, X509Context } from "@agentweave/spiffe"
import { CertificateAuthority, DevAuthority } from "@agentweave/testkit"
import { HttpClientRequest } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { execute, hostileClient, hostileServer, realTime, startClient, startServer } from "./fixture.js"

const get = HttpClientRequest.get("/")

const setup = Effect.gen(function* () {
  yield* realTime
  const a = yield* DevAuthority.make({ trustDomain: "a.test" })
  const b = yield* DevAuthority.make({ trustDomain: "b.test", intermediates: 1 })
  return {
    a,
    b,
    ofA: yield* a.context({ path: "/x", federatesWith: [b] }),
    ofB: yield* b.context({ path: "/y", federatesWith: [a] })
  }
})

describe("two federated trust domains", () => {
  it.scoped("call each other, and each is accepted under its own bundle", () =>
    Effect.gen(function* () {
      const { a, b, ofA, ofB } = yield* setup
      for (const [server, client, serverDomain, clientDomain] of [
        [ofA, ofB, a, b],
        [ofB, ofA, b, a]
      ] as const) {
        const running = yield* startServer({ identity: server, authorize: client.svid.spiffeId })
        const calling = yield* startClient(client)
        const connection = yield* calling.connect({ port: running.port, peer: server.svid.spiffeId })
        expect((yield* execute(connection, get)).status).toBe(200)
        expect(calling.log.all("ConnectionEstablished")).toMatchObject([
          { peerId: server.svid.spiffeId, bundleGeneration: serverDomain.bundle.generation }
        ])
        expect(running.log.all("ConnectionEstablished")).toMatchObject([
          { peerId: client.svid.spiffeId, bundleGeneration: clientDomain.bundle.generation }
        ])
      }
    })
  )

  it.scoped("are strangers where one does not federate: refused by the side that does not", () =>
    Effect.gen(function* () {
      const { a, b, ofA, ofB } = yield* setup
      const alone = X509Context.make({ svid: ofA.svid, bundles: X509BundleSet.of(a.bundle) })
      const server = yield* startServer({ identity: alone, authorize: ofB.svid.spiffeId })
      const client = yield* startClient(ofB)
      const connection = yield* client.connect({ port: server.port, peer: ofA.svid.spiffeId })
      expect(yield* Effect.flip(execute(connection, get))).toMatchObject({ _tag: "ConnectionError", reason: "Closed" })
      expect(yield* server.log.nth("ConnectionRefused")).toMatchObject({ reason: "UntrustedChain" })
      expect(server.handled()).toBe(0)
      const lonely = yield* startClient(alone)
      expect(yield* Effect.flip(lonely.connect({ port: server.port, peer: b.id("/y") }))).toMatchObject({
        _tag: "PeerVerificationError",
        reason: "NoBundle"
      })
    })
  )

  // TLS is handed all bundles here, by client and server, and most of this is fine with it: the gate must know better.
  it.scoped("cannot speak for one another, though TLS trusts both", () =>
    Effect.gen(function* () {
      const { a, b, ofA } = yield* setup
      const eitherOf = PeerMatcher.oneOf([a.id("/x"), b.id("/y")])
      const client = yield* startClient(ofA)
      const server = yield* startServer({ identity: ofA, authorize: eitherOf })
      const [rootA] = a.roots
      const [rootB] = b.roots
      const forged = { uris: [b.id("/y")] }
      // Authorities of A's that go by the name of B's root, one with its key identifier too.
      const namesake = yield* CertificateAuthority.makeIntermediate(rootA, { subject: rootB.subject, uris: [] })
      const double = yield* CertificateAuthority.makeIntermediate(rootA, {
        subject: rootB.subject,
        subjectKeyIdentifier: rootB.keyIdentifier,
        uris: []
      })
      const withRootB = CertificateAuthority.withChain(namesake, [...namesake.chain, rootB.certificate])
      const forgeries = [
        { by: "Gate", credentials: yield* a.issueRaw({ id: b.id("/y") }) },
        { by: "Gate", credentials: yield* CertificateAuthority.issue(namesake, forged) },
        { by: "Gate", credentials: yield* CertificateAuthority.issue(withRootB, forged) },
        {
          by: "Gate",
          credentials: yield* CertificateAuthority.issue(CertificateAuthority.withChain(rootA, b.issuer.chain), forged)
        },
        { by: "Tls", credentials: yield* CertificateAuthority.issue(double, forged) }
      ] as const
      for (const [index, { by, credentials }] of forgeries.entries()) {
        const refused = {
          reason: "UntrustedChain",
          actualId: by === "Gate" ? b.id("/y") : null,
          description: expect.stringMatching(by === "Gate" ? /\[[a-z-]+\]/ : /TLS refused/)
        }
        const hostile = yield* hostileServer(credentials)
        expect(yield* Effect.flip(client.connect({ port: hostile.port, peer: eitherOf }))).toMatchObject(refused)
        yield* hostile.idle
        expect(hostile.bytes()).toBe(0)
        expect((yield* hostileClient(server.port, credentials)).received).toBe("")
        expect(yield* server.log.nth("ConnectionRefused", index)).toMatchObject(refused)
      }
      expect(server.handled()).toBe(0)
      // The real one is welcome.
      expect((yield* hostileClient(server.port, yield* b.issueRaw({ path: "/y" }))).received).toMatch(/^HTTP\/1.1 200/)
    })
  )
})
