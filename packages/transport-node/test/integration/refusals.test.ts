import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import type * as PeerVerificationError from "@agentweave/spiffe/PeerVerificationError"
import * as X509BundleSet from "@agentweave/spiffe/X509BundleSet"
import * as X509Context from "@agentweave/spiffe/X509Context"
import * as CertificateAuthority from "@agentweave/testkit/CertificateAuthority"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as PeerCase from "@agentweave/testkit/PeerCase"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Scope } from "effect"
import { execute } from "./execute.js"
import {
  type Client,
  failure,
  hostileClient,
  hostileServer,
  type RunningServer,
  realTime,
  sharing,
  startClient,
  startServer
} from "./fixture.js"

/**
 * Who refuses: TLS itself, which knows nothing of SPIFFE; the gate on top of it; or we, before a socket opens. The gate's
 * are the ones that TLS alone would let in.
 */
interface Refusal {
  readonly by: "Tls" | "Gate" | "Us"
  readonly error: "PeerVerificationError" | "ConnectionError"
  readonly reason: string
}

type Verdict = "Accepted" | Refusal

const tls = (reason: PeerVerificationError.PeerVerificationReason): Refusal => ({
  by: "Tls",
  error: "PeerVerificationError",
  reason
})
const gate = (reason: PeerVerificationError.PeerVerificationReason): Refusal => ({ ...tls(reason), by: "Gate" })

/** The catalogue's verdict, reached by TLS before the gate is asked. */
const decidedByTls: ReadonlySet<string> = new Set([
  "an expired leaf",
  "a leaf that is not valid yet",
  "a leaf altered after it was signed",
  "a leaf signed with another key",
  "a leaf that states another authority key identifier",
  "a foreign CA that signs our domain",
  "a foreign chain with our real root attached",
  "a fake root with the real one's name and key identifier",
  "an intermediate below a fake root, the real root attached",
  "an intermediate with a wrong signature",
  "an intermediate altered after it was signed",
  "an SVID used as an issuer",
  "a chain without its intermediate",
  "a loop of two CAs without anchor",
  "a loop of eight CAs without anchor",
  "a trust domain whose bundle was emptied",
  // TLS is given the bundle of the expected domain only, on either side.
  "our ID signed by a federated domain's CA",
  "a federated domain's ID signed by our CA",
  "an old root after it is gone",
  "an intermediate with CA=false and keyCertSign",
  "an intermediate without basic constraints",
  "an intermediate without keyCertSign",
  "an intermediate with an unknown critical extension",
  "an intermediate with an RSA-1024 key",
  "an intermediate signed over SHA-1",
  "an expired intermediate",
  "an intermediate that is not valid yet",
  "an intermediate below one with path length 0",
  "a root with CA=false and keyCertSign",
  "a root without keyCertSign",
  "a root with an unknown critical extension",
  "a root with an RSA-1024 key",
  "an intermediate below a root with path length 0",
  "an expired root",
  "a root that is not valid yet",
  "an intermediate permitted another URI host only",
  "an intermediate with our URI host excluded",
  "a leaf with a DNS name its intermediate is not permitted",
  "a leaf with a DNS name excluded for its intermediate",
  "a root permitted another URI host only",
  "a root with our URI host excluded",
  "a root for code signing",
  "an intermediate for code signing",
  "a leaf with an IP address its intermediate is not permitted",
  "a leaf with an email address excluded for its intermediate",
  "a leaf whose subject is excluded for its intermediate"
])

/** Where sockets make a difference to the catalogue's verdict, or the two sides differ. */
const exceptions: Readonly<Record<string, { readonly client: Verdict; readonly server: Verdict }>> = {
  // To TLS these are faults of the chain.
  "a leaf with an unknown critical extension": { client: tls("InvalidChain"), server: tls("InvalidChain") },
  "a leaf with an RSA-1024 key": { client: tls("InvalidChain"), server: tls("InvalidChain") },
  "a leaf signed over SHA-1": { client: tls("InvalidChain"), server: tls("InvalidChain") },
  "a leaf for servers only, as a client": { client: "Accepted", server: tls("InvalidChain") },
  "a leaf for clients only, as a server": { client: tls("InvalidChain"), server: "Accepted" },
  "a leaf for code signing": { client: tls("InvalidChain"), server: tls("InvalidChain") },
  // TLS 1.3 has no signature scheme for this curve: a server cannot sign with it, a client sends no certificate at all.
  "a leaf with a secp256k1 key": {
    client: { by: "Tls", error: "ConnectionError", reason: "Negotiation" },
    server: tls("NoCertificate")
  },
  // A client knows whom it expects. A server's TLS only finds that no CA of any bundle issued this.
  "a trust domain the verifier knows nothing of": {
    client: { ...gate("NoBundle"), by: "Us" },
    server: tls("UntrustedChain")
  },
  "a trust domain whose bundle was removed": {
    client: { ...gate("NoBundle"), by: "Us" },
    server: tls("UntrustedChain")
  },
  // Node hands on those of the certificates that are linked by name, and the rest only where no path is found among them.
  "eleven certificates": { client: "Accepted", server: "Accepted" }
}

const verdictOf = (peer: PeerCase.PeerCase, side: "client" | "server"): Verdict => {
  const exception = exceptions[peer.name]?.[side]
  if (exception !== undefined) return exception
  if (peer.verdict === "Accepted") return "Accepted"
  return decidedByTls.has(peer.name) ? tls(peer.verdict) : gate(peer.verdict)
}

/** A rule's name ends what the gate says; TLS says that it was TLS. */
const saidBy = (refusal: Refusal): RegExp =>
  refusal.by === "Gate"
    ? /\[[a-z-]+\]/
    : refusal.error === "ConnectionError"
      ? /got: /
      : /TLS refused|expected a bundle/

const cases: ReadonlyArray<PeerCase.PeerCase> = [
  ...PeerCase.all,
  {
    name: "eleven certificates, each the issuer of the one before",
    verdict: "LimitExceeded",
    purpose: undefined,
    arrange: Effect.fnUntraced(function* (authority) {
      let issuer = authority.roots[0]
      for (let depth = 0; depth < 10; depth++) issuer = yield* CertificateAuthority.makeIntermediate(issuer)
      const expects = authority.id("/peer")
      return {
        credentials: yield* CertificateAuthority.issue(issuer, { uris: [expects] }),
        bundles: X509BundleSet.of(authority.bundle),
        expects
      }
    })
  }
]

interface Workloads {
  readonly client: Client
  readonly server: RunningServer
}

/** One authority for all cases, and one client and one server for all cases that trust and expect the same. */
class Shared extends Context.Tag("Shared")<
  Shared,
  {
    /** Mints the peer of a case, once for both sides. */
    readonly arrange: (peer: PeerCase.PeerCase) => Effect.Effect<PeerCase.Arranged, PeerCase.ArrangeError>
    readonly workloads: (arranged: PeerCase.Arranged) => Effect.Effect<Workloads>
  }
>() {}

const shared = Layer.scoped(
  Shared,
  Effect.gen(function* () {
    yield* realTime
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    // Our own SVID is another domain's, so that a case can do with the peer's bundle what it likes.
    const own = yield* DevAuthority.make({ trustDomain: "own.test" })
    const svid = yield* own.issue({ path: "/own" })
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const known = new Map<string, Workloads>()
    const arranged = new Map<PeerCase.PeerCase, PeerCase.Arranged>()
    return {
      arrange: (peer) => {
        const before = arranged.get(peer)
        return before === undefined
          ? Effect.tap(peer.arrange(authority), (made) => Effect.sync(() => arranged.set(peer, made)))
          : Effect.succeed(before)
      },
      workloads: ({ bundles, expects }) =>
        Effect.gen(function* () {
          const key = `${bundles.generation} ${expects}`
          const before = known.get(key)
          if (before !== undefined) return before
          const all = yield* X509BundleSet.make([...bundles.bundles.values(), own.bundle])
          const identity = X509Context.make({ svid, bundles: all })
          const client = yield* startClient(identity)
          const server = yield* startServer({ identity, authorize: expects })
          known.set(key, { client, server })
          return { client, server }
        }).pipe(Effect.orDie, Scope.extend(scope))
    }
  })
)

const { scoped } = sharing(shared)

describe("a server presents", () => {
  for (const peer of cases.filter(({ purpose }) => purpose !== "ClientAuth")) {
    const verdict = verdictOf(peer, "client")
    const title = verdict === "Accepted" ? "accepted" : `${verdict.reason}, refused by ${verdict.by}`
    scoped(`${peer.name}: ${title}`, () =>
      Effect.gen(function* () {
        const { arrange, workloads } = yield* Shared
        const arranged = yield* arrange(peer)
        const { client } = yield* workloads(arranged)
        const server = yield* hostileServer(arranged.credentials)
        const since = client.log.events.length
        const result = yield* Effect.either(client.connect({ port: server.port, peer: arranged.expects }))
        const events = client.log.events.slice(since)
        if (verdict === "Accepted") {
          if (result._tag === "Left") return yield* result.left
          expect(result.right.peer.spiffeId).toBe(arranged.expects)
          expect((yield* execute(result.right, HttpClientRequest.get("/"))).status).toBe(200)
          expect(events.map(({ _tag }) => _tag)).toEqual(["ConnectionAttempted", "ConnectionEstablished"])
          expect(server.reused).toEqual([false])
          return
        }
        expect(result).toMatchObject({ _tag: "Left", left: { _tag: verdict.error, reason: verdict.reason } })
        if (result._tag === "Left") expect(result.left.message).toMatch(saidBy(verdict))
        expect(events).toMatchObject([
          { _tag: "ConnectionAttempted", side: "Client", expectedId: arranged.expects },
          { _tag: "ConnectionRefused", side: "Client", error: verdict.error, reason: verdict.reason }
        ])
        yield* server.idle
        expect(server.bytes()).toBe(0)
        if (verdict.by === "Us") expect([...server.reused, ...server.failures]).toEqual([])
      })
    )
  }
})

describe("a client presents", () => {
  for (const peer of cases.filter(({ purpose }) => purpose !== "ServerAuth")) {
    const verdict = verdictOf(peer, "server")
    const title = verdict === "Accepted" ? "accepted" : `${verdict.reason}, refused by ${verdict.by}`
    scoped(`${peer.name}: ${title}`, () =>
      Effect.gen(function* () {
        const { arrange, workloads } = yield* Shared
        const arranged = yield* arrange(peer)
        const { server } = yield* workloads(arranged)
        const since = server.log.events.length
        const handled = server.handled()
        const refusals = server.log.all("ConnectionRefused").length
        const attempt = yield* hostileClient(server.port, arranged.credentials)
        if (verdict === "Accepted") {
          expect(attempt.received).toMatch(/^HTTP\/1.1 200 OK/)
          expect(server.handled()).toBe(handled + 1)
          const closed = yield* server.log.nth("ConnectionClosed", server.log.all("ConnectionEstablished").length - 1)
          expect(closed).toMatchObject({ peerId: arranged.expects, requests: 1 })
          return
        }
        const { connectionId, description } = yield* server.log.nth("ConnectionRefused", refusals)
        expect(server.log.events.slice(since)).toMatchObject([
          { _tag: "ConnectionAttempted", side: "Server", connectionId, expectedId: arranged.expects },
          { _tag: "ConnectionRefused", side: "Server", connectionId, error: verdict.error, reason: verdict.reason }
        ])
        expect(description).toMatch(saidBy(verdict))
        // A peer that has proven who it is is told why it is not served.
        expect(attempt.received).toMatch(verdict.reason === "UnexpectedPeer" ? /^HTTP\/1\.1 403 Forbidden/ : /^$/)
        expect(server.handled()).toBe(handled)
      })
    )
  }
})

const federation = Effect.gen(function* () {
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
      const { a, b, ofA, ofB } = yield* federation
      for (const [server, client, serverDomain, clientDomain] of [
        [ofA, ofB, a, b],
        [ofB, ofA, b, a]
      ] as const) {
        const running = yield* startServer({ identity: server, authorize: client.svid.spiffeId })
        const calling = yield* startClient(client)
        const connection = yield* calling.connect({ port: running.port, peer: server.svid.spiffeId })
        expect((yield* execute(connection, HttpClientRequest.get("/"))).status).toBe(200)
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
      const { a, b, ofA, ofB } = yield* federation
      const alone = X509Context.make({ svid: ofA.svid, bundles: X509BundleSet.of(a.bundle) })
      const server = yield* startServer({ identity: alone, authorize: ofB.svid.spiffeId })
      const client = yield* startClient(ofB)
      const connection = yield* client.connect({ port: server.port, peer: ofA.svid.spiffeId })
      expect(yield* failure(execute(connection, HttpClientRequest.get("/")))).toMatchObject({
        _tag: "ConnectionError",
        reason: "Closed"
      })
      expect(yield* server.log.nth("ConnectionRefused")).toMatchObject({ reason: "UntrustedChain" })
      expect(server.handled()).toBe(0)
      const lonely = yield* startClient(alone)
      expect(yield* failure(lonely.connect({ port: server.port, peer: b.id("/y") }))).toMatchObject({
        _tag: "PeerVerificationError",
        reason: "NoBundle"
      })
    })
  )

  // TLS is handed all bundles here, by client and server, and most of this is fine with it: the gate must know better.
  it.scoped("cannot speak for one another, though TLS trusts both", () =>
    Effect.gen(function* () {
      const { a, b, ofA } = yield* federation
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
        expect(yield* failure(client.connect({ port: hostile.port, peer: eitherOf }))).toMatchObject(refused)
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
