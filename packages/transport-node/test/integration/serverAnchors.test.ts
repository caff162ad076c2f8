import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as X509Bundle from "@agentweave/spiffe/X509Bundle"
import * as X509BundleSet from "@agentweave/spiffe/X509BundleSet"
import * as X509Context from "@agentweave/spiffe/X509Context"
import * as CertificateAuthority from "@agentweave/testkit/CertificateAuthority"
import type * as Credentials from "@agentweave/testkit/Credentials"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as TestIdentity from "@agentweave/testkit/TestIdentity"
import type * as TransportConfig from "@agentweave/transport/TransportConfig"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { hostileClient, realTime, startServer } from "./fixture.js"

const versions: ReadonlyArray<TransportConfig.TlsVersion> = ["TLSv1.2", "TLSv1.3"]

/** A name of about 3,150 bytes. */
const longName = (index: number): string =>
  [`CN=root ${index}`, ...Array.from({ length: 44 }, () => `OU=${"x".repeat(60)}`)].join(",")

/** An authority whose bundle has many more roots with long names. */
const withRoots = Effect.fnUntraced(function* (authority: DevAuthority.DevAuthority, count: number) {
  const [{ keyPair }] = authority.roots
  const { trustDomain } = authority
  const roots = yield* Effect.forEach(
    Array.from({ length: count }, (_, index) => index),
    (index) => CertificateAuthority.makeRoot({ trustDomain, keyPair, subject: longName(index) })
  )
  const all = [...authority.roots, ...roots].map(({ certificate }) => certificate)
  return yield* X509Bundle.fromDer(trustDomain, all)
})

const setUp = Effect.gen(function* () {
  yield* realTime
  const own = yield* DevAuthority.make({ trustDomain: "own.test" })
  const partner = yield* DevAuthority.make({ trustDomain: "partner.test" })
  const large = yield* DevAuthority.make({ trustDomain: "large.test" })
  const svid = yield* own.issue({ path: "/server" })
  const largeBundle = yield* withRoots(large, 21)
  // There is no room for these names in a request for a certificate.
  expect(X509Bundle.subjectsLength(largeBundle)).toBeGreaterThan(65_535)
  const contextWith = (bundle: X509Bundle.X509Bundle, ofPartner = partner.bundle) =>
    Effect.map(X509BundleSet.make([own.bundle, ofPartner, bundle]), (bundles) => X509Context.make({ svid, bundles }))
  return {
    contextWith,
    large,
    largeBundle,
    partner,
    ownClient: yield* own.issueRaw({ path: "/client" }),
    partnerClient: yield* partner.issueRaw({ path: "/client" }),
    largeClient: yield* large.issueRaw({ path: "/client" }),
    ofOwn: own.id("/client"),
    ofAll: PeerMatcher.oneOf([own.id("/client"), partner.id("/client"), large.id("/client")])
  }
})

describe("a federated trust domain with more authorities than a server can name to its clients", () => {
  for (const version of versions) {
    const only = { tlsMinVersion: version, tlsMaxVersion: version }

    it.scoped(`does not keep other clients out where none of its own is acceptable, ${version}`, () =>
      Effect.gen(function* () {
        const { contextWith, largeBundle, ofOwn, ownClient } = yield* setUp
        const server = yield* startServer({ identity: yield* contextWith(largeBundle), authorize: ofOwn, ...only })
        expect((yield* hostileClient(server.port, ownClient)).received).toMatch(/^HTTP\/1.1 200/)
        expect(server.log.all("IdentityProblem")).toEqual([])
      })
    )

    it.scoped(`keeps its own clients out and no others where it is acceptable, and is on record, ${version}`, () =>
      Effect.gen(function* () {
        const { contextWith, largeBundle, largeClient, ofAll, ownClient, partnerClient } = yield* setUp
        const server = yield* startServer({ identity: yield* contextWith(largeBundle), authorize: ofAll, ...only })
        for (const credentials of [ownClient, partnerClient]) {
          expect((yield* hostileClient(server.port, credentials)).received).toMatch(/^HTTP\/1.1 200/)
        }
        expect((yield* hostileClient(server.port, largeClient)).received).toBe("")
        expect(yield* server.log.nth("ConnectionRefused")).toMatchObject({ reason: "UntrustedChain" })
        expect(server.log.all("IdentityProblem")).toMatchObject([
          {
            problem: "Discarded",
            reason: "LimitExceeded",
            description: expect.stringMatching(/large\.test.*64000 bytes.*22 authorities/)
          }
        ])
      })
    )

    it.scoped(`is served as long as there is room for their names, ${version}`, () =>
      Effect.gen(function* () {
        const { contextWith, large, largeClient, ofAll, ownClient } = yield* setUp
        const fitting = yield* withRoots(large, 20)
        expect(X509Bundle.subjectsLength(fitting)).toBeGreaterThan(62_000)
        const server = yield* startServer({ identity: yield* contextWith(fitting), authorize: ofAll, ...only })
        for (const credentials of [ownClient, largeClient]) {
          expect((yield* hostileClient(server.port, credentials)).received).toMatch(/^HTTP\/1.1 200/)
        }
        expect(server.log.all("IdentityProblem")).toEqual([])
      })
    )
  }

  it.scoped("is told of once, and served again when its bundle has become smaller", () =>
    Effect.gen(function* () {
      const { contextWith, large, largeBundle, largeClient, ofAll, partner } = yield* setUp
      const identity = yield* TestIdentity.make(yield* contextWith(largeBundle))
      const server = yield* startServer({ identity, authorize: ofAll })
      const untilServed = (credentials: Credentials.Credentials) =>
        Effect.repeat(hostileClient(server.port, credentials), { until: ({ received }) => received !== "" })

      // Another bundle changes, and the same one is still too large.
      const partnerAnew = yield* partner.rotateRoot()
      yield* identity.set(yield* contextWith(largeBundle, partnerAnew.bundle))
      yield* untilServed(yield* partnerAnew.issueRaw({ path: "/client" }))
      expect((yield* hostileClient(server.port, largeClient)).received).toBe("")
      expect(server.log.all("IdentityProblem").length).toBe(1)

      yield* identity.set(yield* contextWith(large.bundle))
      yield* untilServed(largeClient)
      expect(server.log.all("IdentityProblem").length).toBe(1)
    })
  )
})
