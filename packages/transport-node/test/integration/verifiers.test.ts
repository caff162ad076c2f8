import { connect as tcpConnect } from "node:net"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as PeerVerifier from "@agentweave/spiffe/PeerVerifier"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
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

describe("a client's chain", () => {
  it.scoped("is seen whole by the server, also with intermediates that it has not met", () =>
    Effect.gen(function* () {
      yield* realTime
      const authority = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 3 })
      const identity = yield* authority.context({ path: "/server" })
      const server = yield* startServer({ identity, authorize: authority.id("/client") })
      const credentials = yield* authority.issueRaw({ path: "/client" })
      expect(credentials.certificates.length).toBe(4)
      expect((yield* hostileClient(server.port, credentials)).received).toMatch(/^HTTP\/1.1 200/)
      expect(server.log.all("ConnectionRefused")).toEqual([])
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
