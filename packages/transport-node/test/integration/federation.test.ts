import { IdentityProvider, TrustDomain, X509Bundle } from "@agentweave/spiffe"
import { DevAuthority, TestIdentity } from "@agentweave/testkit"
import type { AuditEvent } from "@agentweave/transport"
import { AuditLog, IdentityMonitor } from "@agentweave/transport"
import { type BundleEndpoint, type BundleEndpointEvent, FederatedBundles } from "@agentweave/transport-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger, Queue, type Scope, TestClock } from "effect"
import { realTime } from "./fixture.js"
import { document, startPublisher } from "./publisher.js"

const partner = TrustDomain.make("partner.example")

/** A test whose clock begins at the real time and moves when told, without the log. */
const quiet = <A, E>(name: string, test: () => Effect.Effect<A, E, Scope.Scope>) =>
  it.scoped(name, () => realTime.pipe(Effect.zipRight(test()), Effect.provide(Logger.remove(Logger.defaultLogger))))

const federate = Effect.fnUntraced(function* (
  endpoint: BundleEndpoint.Options,
  options: Partial<FederatedBundles.Options> = {}
) {
  const own = yield* DevAuthority.make({ trustDomain: "example.org" })
  const identity = yield* TestIdentity.make(yield* own.context({ path: "/api" }))
  const events = yield* Queue.unbounded<BundleEndpointEvent.BundleEndpointEvent>()
  const audit: Array<AuditEvent.AuditEvent> = []
  const services = yield* FederatedBundles.layer({
    endpoints: [endpoint],
    initialWait: 0,
    // An attempt begins up to a tenth of the interval early: `refresh` is not to pass its limit while it waits for a socket.
    timeout: "5 minutes",
    onEvent: (event) => Queue.offer(events, event),
    ...options
  }).pipe(Layer.provide(identity.layer), Layer.provide(AuditLog.layerMemory(audit)), Layer.build)
  const provider = yield* Effect.provide(IdentityProvider.IdentityProvider, services)
  yield* IdentityMonitor.make().pipe(Effect.provide(services), Effect.provide(AuditLog.layerMemory(audit)))
  const generation = Effect.map(provider.x509Context, ({ bundles }) => bundles.bundles.get(partner)?.generation)
  /** What the next attempt came to, as one text. */
  const outcome = Effect.map(Queue.take(events), (event) =>
    event._tag === "BundleFetched" ? `fetched ${event.sequence}` : `${event.reason}: ${event.description}`
  )
  return { generation, outcome, audit, refresh: Effect.zipRight(TestClock.adjust("5 minutes"), outcome) }
})

describe("https_web", () => {
  /** An authority of the web, and its certificate for `localhost`. */
  const setting = Effect.gen(function* () {
    const web = yield* DevAuthority.make({ trustDomain: "web" })
    const foreign = yield* DevAuthority.make({ trustDomain: "partner.example" })
    const credentials = yield* web.issueRaw({ uris: [], dnsNames: ["localhost"] })
    const publisher = yield* startPublisher(credentials, document(foreign.bundle, 1n), "localhost")
    const endpoint = { profile: "https_web", trustDomain: "partner.example", url: publisher.url } as const
    return { web, foreign, publisher, endpoint, webAuthorities: X509Bundle.toPem(web.bundle) }
  })

  quiet("a bundle from an endpoint whose certificate is the host's", () =>
    Effect.gen(function* () {
      const { endpoint, foreign, publisher, webAuthorities } = yield* setting
      const { audit, generation, outcome, refresh } = yield* federate(endpoint, { webAuthorities })
      assert.strictEqual(yield* outcome, "fetched 1")
      assert.strictEqual(yield* generation, foreign.bundle.generation)
      const rotated = yield* foreign.rotateRoot()
      publisher.publish(document(rotated.bundle, 2n))
      assert.strictEqual(yield* refresh, "fetched 2")
      assert.strictEqual(yield* generation, rotated.bundle.generation)
      publisher.publish(document(foreign.bundle, 1n))
      assert.match(yield* refresh, /^SequenceRegressed/)
      assert.strictEqual(yield* generation, rotated.bundle.generation)
      publisher.publish("garbage")
      assert.match(yield* refresh, /^Malformed/)
      assert.match(yield* refresh, /^Malformed/)
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(
        audit.flatMap((event) => (event._tag === "IdentityProblem" ? [`${event.problem} ${event.reason}`] : [])),
        ["Discarded SequenceRegressed", "Discarded Malformed"]
      )
      const [request] = publisher.requests
      assert.strictEqual(request?.headers.accept, "application/json")
      assert.isUndefined(request?.headers["traceparent"])
      assert.isFalse(request?.clientCertificate)
    })
  )

  quiet("a certificate of another authority is refused, whatever the environment says", () =>
    Effect.gen(function* () {
      const { endpoint, publisher } = yield* setting
      const before = process.env["NODE_TLS_REJECT_UNAUTHORIZED"]
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          process.env["NODE_TLS_REJECT_UNAUTHORIZED"] = "0"
        }),
        () =>
          Effect.sync(() => {
            if (before === undefined) delete process.env["NODE_TLS_REJECT_UNAUTHORIZED"]
            else process.env["NODE_TLS_REJECT_UNAUTHORIZED"] = before
          })
      )
      const { generation, outcome } = yield* federate(endpoint)
      assert.match(yield* outcome, /^Unauthenticated: /)
      assert.isUndefined(yield* generation)
      assert.deepStrictEqual(publisher.requests, [])
    })
  )

  quiet("a certificate of another host is refused", () =>
    Effect.gen(function* () {
      const { endpoint, publisher, webAuthorities } = yield* setting
      const url = endpoint.url.replace("localhost", "127.0.0.1")
      const { outcome } = yield* federate({ ...endpoint, url }, { webAuthorities })
      assert.match(yield* outcome, /^Unauthenticated: .*IP: 127.0.0.1/)
      assert.deepStrictEqual(publisher.requests, [])
    })
  )

  quiet("each fetch is a handshake of its own: a certificate that became wrong is noticed", () =>
    Effect.gen(function* () {
      const { endpoint, publisher, web, webAuthorities } = yield* setting
      const { outcome, refresh } = yield* federate(endpoint, { webAuthorities })
      assert.strictEqual(yield* outcome, "fetched 1")
      publisher.present(yield* web.issueRaw({ uris: [], dnsNames: ["elsewhere.example"] }))
      assert.match(yield* refresh, /^Unauthenticated: /)
    })
  )

  quiet("nobody there", () =>
    Effect.gen(function* () {
      const { endpoint, publisher, webAuthorities } = yield* setting
      yield* Effect.async<void>((resume) => {
        publisher.server.close(() => resume(Effect.void))
      })
      const { outcome } = yield* federate(endpoint, { webAuthorities })
      assert.match(yield* outcome, /^Unreachable: .*ECONNREFUSED/)
    })
  )
})

describe("https_spiffe", () => {
  const endpointId = "spiffe://partner.example/bundles"

  /** A self-serving endpoint. */
  const setting = Effect.gen(function* () {
    const foreign = yield* DevAuthority.make({ trustDomain: "partner.example" })
    const credentials = yield* foreign.issueRaw({ path: "/bundles" })
    const publisher = yield* startPublisher(credentials, document(foreign.bundle, 1n), "127.0.0.1")
    const endpoint = {
      profile: "https_spiffe",
      trustDomain: "partner.example",
      url: publisher.url,
      endpointId,
      bundle: document(foreign.bundle, 1n)
    } as const
    return { foreign, publisher, endpoint }
  })

  quiet("a self-serving endpoint is verified with the bundle fetched last, through a roll-over of its root", () =>
    Effect.gen(function* () {
      const { endpoint, foreign, publisher } = yield* setting
      // Minted before the test's clock runs ahead of the system's, by which OpenSSL judges.
      const rotated = yield* foreign.rotateRoot()
      const retired = yield* rotated.retireOldRoots
      const [renewed, outdated] = yield* Effect.all([
        rotated.issueRaw({ path: "/bundles" }),
        foreign.issueRaw({ path: "/bundles" })
      ])
      const { audit, generation, outcome, refresh } = yield* federate(endpoint)
      assert.strictEqual(yield* outcome, "fetched 1")
      publisher.publish(document(rotated.bundle, 2n))
      assert.strictEqual(yield* refresh, "fetched 2")
      publisher.present(renewed)
      publisher.publish(document(retired.bundle, 3n))
      assert.strictEqual(yield* refresh, "fetched 3")
      assert.strictEqual(yield* generation, retired.bundle.generation)
      publisher.present(outdated)
      assert.match(yield* refresh, /^Unauthenticated: /)
      assert.strictEqual(yield* generation, retired.bundle.generation)
      assert.strictEqual(publisher.requests.length, 3)
      assert.isTrue(publisher.requests.every(({ clientCertificate }) => !clientCertificate))
      const peers = audit.flatMap((event) => (event._tag === "ConnectionEstablished" ? [event.peerId] : []))
      assert.deepStrictEqual(peers, [endpointId, endpointId, endpointId])
    })
  )

  quiet("another SPIFFE ID, another authority, or a certificate of the web is refused", () =>
    Effect.gen(function* () {
      const { endpoint, foreign, publisher } = yield* setting
      const { outcome, refresh } = yield* federate(endpoint)
      assert.strictEqual(yield* outcome, "fetched 1")
      const impostor = yield* DevAuthority.make({ trustDomain: "partner.example" })
      const wrong = [
        [yield* foreign.issueRaw({ path: "/other" }), /UnexpectedPeer/],
        [yield* impostor.issueRaw({ path: "/bundles" }), /UntrustedChain/],
        [
          yield* foreign.issueRaw({ uris: [], dnsNames: ["localhost"], ipAddresses: ["127.0.0.1"] }),
          /InvalidLeaf|InvalidSpiffeId/
        ]
      ] as const
      for (const [credentials, reason] of wrong) {
        publisher.present(credentials)
        const first = yield* refresh
        // The connection that the publisher has just given up may be met at its end: that is no verdict.
        const refused = first.startsWith("Unreachable: ") ? yield* refresh : first
        assert.match(refused, /^Unauthenticated: /)
        assert.match(refused, reason)
      }
      assert.strictEqual(publisher.requests.length, 1)
    })
  )

  quiet("an endpoint of a trust domain without a bundle is refused", () =>
    Effect.gen(function* () {
      const { endpoint } = yield* setting
      const { outcome } = yield* federate({ ...endpoint, endpointId: "spiffe://elsewhere.example/bundles" })
      assert.match(yield* outcome, /^Unauthenticated: .*NoBundle/)
    })
  )
})
