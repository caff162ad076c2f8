import { connect as tcpConnect } from "node:net"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as PeerVerifier from "@agentweave/spiffe/PeerVerifier"
import * as CertificateAuthority from "@agentweave/testkit/CertificateAuthority"
import * as Credentials from "@agentweave/testkit/Credentials"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import type * as TransportConfig from "@agentweave/transport/TransportConfig"
import { describe, expect, it } from "@effect/vitest"
import { Clock, Effect, Either, Fiber, TestClock } from "effect"
import { failure, host, hostileClient, hostileServer, realTime, startClient, startServer } from "./fixture.js"

const day = 86_400_000

/**
 * Workloads at a time of the test's clock, which is the gate's; OpenSSL's is always today. All certificates but the peer's
 * are valid on all these days.
 */
const workloadsAt = (daysFromToday: number) =>
  Effect.gen(function* () {
    yield* realTime
    const today = yield* Clock.currentTimeMillis
    const validity = { notBefore: today - 10 * day, notAfter: today + 10 * day }
    const authority = yield* DevAuthority.make({ trustDomain: "example.org", root: { validity } })
    const foreign = yield* DevAuthority.make({ trustDomain: "foreign.test", root: { validity } })
    const peerId = authority.id("/peer")
    const own = yield* authority.context({ path: "/own", validity, federatesWith: [foreign] })
    // Both domains are trusted by TLS, for either may be on the other side.
    const matcher = PeerMatcher.oneOf([peerId, foreign.id("/peer")])
    const client = yield* startClient(own)
    const server = yield* startServer({ identity: own, authorize: matcher })
    yield* TestClock.setTime(today + daysFromToday * day)
    return { authority, bundles: own.bundles, client, foreign, matcher, peerId, server, today, validity }
  })

describe("two verifiers must both accept a peer", () => {
  it.scoped(
    "OpenSSL refuses an expired certificate that the gate, whose clock is behind, accepts; on either side",
    () =>
      Effect.gen(function* () {
        const { authority, bundles, client, matcher, peerId, server, today } = yield* workloadsAt(-5)
        const validity = { notBefore: today - 8 * day, notAfter: today - 2 * day }
        const credentials = yield* authority.issueRaw({ path: "/peer", validity })
        for (const purpose of ["ServerAuth", "ClientAuth"] as const) {
          const now = yield* Clock.currentTimeMillis
          const verified = PeerVerifier.make().verify({
            chain: credentials.certificates,
            bundles,
            matcher,
            purpose,
            now
          })
          expect(Either.map(verified, ({ spiffeId }) => spiffeId)).toEqual(Either.right(peerId))
        }
        const refused = {
          reason: "Expired",
          actualId: null,
          description: expect.stringMatching(/TLS refused .*EXPIRED/)
        }

        const hostile = yield* hostileServer(credentials)
        expect(yield* failure(client.connect({ port: hostile.port, peer: matcher }))).toMatchObject(refused)
        yield* hostile.idle
        expect(hostile.bytes()).toBe(0)

        expect((yield* hostileClient(server.port, credentials)).received).toBe("")
        expect(yield* server.log.nth("ConnectionRefused")).toMatchObject({ ...refused, error: "PeerVerificationError" })
        expect(server.handled()).toBe(0)
      })
  )

  it.scoped(
    "the gate refuses another domain's certificate that OpenSSL, which trusts both domains, accepts; on either side",
    () =>
      Effect.gen(function* () {
        const { client, foreign, matcher, peerId, server, validity } = yield* workloadsAt(0)
        const credentials = yield* foreign.issueRaw({ id: peerId, validity })
        const refused = {
          reason: "UntrustedChain",
          actualId: peerId,
          description: expect.not.stringMatching(/TLS refused/)
        }

        const hostile = yield* hostileServer(credentials)
        expect(yield* failure(client.connect({ port: hostile.port, peer: matcher }))).toMatchObject(refused)
        yield* hostile.idle
        expect(hostile.bytes()).toBe(0)

        expect((yield* hostileClient(server.port, credentials)).received).toBe("")
        expect(yield* server.log.nth("ConnectionRefused")).toMatchObject(refused)
        expect(server.handled()).toBe(0)
      })
  )
})

const versions: ReadonlyArray<TransportConfig.TlsVersion> = ["TLSv1.2", "TLSv1.3"]

describe("a chain with intermediates that the other side has not met", () => {
  const orders = {
    "in order": (above: ReadonlyArray<Uint8Array>) => above,
    "in the opposite order": (above: ReadonlyArray<Uint8Array>) => above.toReversed()
  }
  for (const version of versions) {
    for (const [order, arrange] of Object.entries(orders)) {
      it.scoped(`is seen whole on either side when its certificates come ${order}, ${version}`, () =>
        Effect.gen(function* () {
          yield* realTime
          const authority = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 3 })
          const issued = yield* authority.issueRaw({ path: "/peer" })
          const credentials = Credentials.withChain(issued, arrange(issued.certificates.slice(1)))
          // Credentials of their own know nothing of the intermediates.
          const own = yield* DevAuthority.make({ trustDomain: "own.test" })
          const identity = yield* own.context({ path: "/own", federatesWith: [authority] })
          const config = { tlsMinVersion: version, tlsMaxVersion: version }

          const server = yield* startServer({ identity, authorize: authority.id("/peer"), ...config })
          expect((yield* hostileClient(server.port, credentials)).received).toMatch(/^HTTP\/1.1 200/)
          expect(server.log.all("ConnectionRefused")).toEqual([])

          const client = yield* startClient(identity)
          const hostile = yield* hostileServer(credentials)
          const connection = yield* client.connect({ port: hostile.port, peer: authority.id("/peer"), config })
          expect(connection.peer.spiffeId).toBe(authority.id("/peer"))
        })
      )
    }
  }

  it.scoped("is accepted on either side where the expired certificate of a CA comes before its renewed one", () =>
    Effect.gen(function* () {
      yield* realTime
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const [root] = authority.roots
      const renewed = yield* CertificateAuthority.makeIntermediate(root, { subject: "CN=issuing" })
      const expired = yield* CertificateAuthority.crossSign(root, renewed, { validity: "Expired" })
      const issued = yield* CertificateAuthority.issue(renewed, { uris: [authority.id("/peer")] })
      const credentials = Credentials.withChain(issued, [expired.certificate, renewed.certificate])
      const own = yield* DevAuthority.make({ trustDomain: "own.test" })
      const identity = yield* own.context({ path: "/own", federatesWith: [authority] })

      const server = yield* startServer({ identity, authorize: authority.id("/peer") })
      expect((yield* hostileClient(server.port, credentials)).received).toMatch(/^HTTP\/1.1 200/)

      const client = yield* startClient(identity)
      const hostile = yield* hostileServer(credentials)
      const connection = yield* client.connect({ port: hostile.port, peer: authority.id("/peer") })
      expect(connection.peer.spiffeId).toBe(authority.id("/peer"))
    })
  )
})

describe("bytes that are no TLS", () => {
  it.scoped("end the connection when they come after the handshake, although the client keeps it open", () =>
    Effect.gen(function* () {
      const { authority, server, validity } = yield* workloadsAt(0)
      const tcp = tcpConnect({ host, port: server.port })
      const credentials = yield* authority.issueRaw({ path: "/peer", validity })
      const attempting = yield* Effect.fork(hostileClient(server.port, credentials, { socket: tcp, request: "" }))
      yield* server.log.nth("ConnectionEstablished")
      tcp.write(Buffer.alloc(64, 0xa7))
      const attempt = yield* Fiber.join(attempting)
      expect(attempt).toMatchObject({ secured: true, received: "" })
      expect(yield* server.log.nth("ConnectionClosed")).toMatchObject({ reason: "Error", requests: 0 })
    })
  )
})
