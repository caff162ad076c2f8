import { IdentityProvider, PeerMatcher, X509BundleSet, X509Context } from "@agentweave/spiffe"
import { DevAuthority, PeerCase, TestConnector } from "@agentweave/testkit"
import {
  type AuditEvent,
  AuditLog,
  CircuitBreaker,
  Connector,
  SecureChannel,
  TransportConfig
} from "@agentweave/transport"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Either, Layer } from "effect"

const config = Either.getOrThrow(TransportConfig.make({}))
const ours = Effect.runSync(Effect.cached(DevAuthority.make({ trustDomain: "us.test" })))
const theirs = Effect.runSync(Effect.cached(DevAuthority.make({ trustDomain: "example.org" })))

/** Asks the network for the peer of a case, and tells how it went. */
const meet = (peer: PeerCase.PeerCase) =>
  Effect.gen(function* () {
    const { bundles, credentials, expects } = yield* peer.arrange(yield* theirs)
    const own = yield* ours
    const { svid } = yield* own.context({ path: "/us" })
    const all = yield* X509BundleSet.make([...Array.from(bundles.bundles.values()), own.bundle])
    const network = yield* TestConnector.make({ onConnect: () => Effect.succeed({ credentials }) })
    const services = network.layer.pipe(
      Layer.provide(IdentityProvider.layerStatic(X509Context.make({ svid, bundles: all }))),
      Layer.provide(AuditLog.layerMemory([]))
    )
    const attempt = Effect.flatMap(Connector.Connector, ({ connect }) =>
      connect({ matcher: PeerMatcher.exactly(expects), host: "peer", port: 443, config, onClose: () => {} })
    )
    const result = yield* Effect.either(Effect.provide(attempt, services))
    if (Either.isRight(result)) return "Accepted"
    return result.left._tag === "PeerVerificationError" ? result.left.reason : result.left._tag
  })

describe("a peer of the test kit's network that presents certificates has the gate's verdict:", () => {
  for (const peer of PeerCase.all.filter(({ purpose }) => purpose !== "ClientAuth")) {
    it.scoped(`${peer.verdict}: ${peer.name}`, () =>
      Effect.gen(function* () {
        expect(yield* meet(peer)).toBe(peer.verdict)
      })
    )
  }
})

describe("a server of the test kit's network", () => {
  const setup = (answerer: Partial<TestConnector.Answerer>) =>
    Effect.gen(function* () {
      const authority = yield* theirs
      const events: Array<AuditEvent.AuditEvent> = []
      const peer = authority.id("/billing")
      let handled = 0
      const network = yield* TestConnector.make({
        handler: () => {
          handled++
          return Effect.dieMessage("expected no request")
        },
        onConnect: () => Effect.succeed({ spiffeId: peer, ...answerer, credentials: undefined })
      })
      const services = yield* network.layer.pipe(
        Layer.provideMerge(DevAuthority.layerIdentity(authority, { path: "/us" })),
        Layer.provide(AuditLog.layerMemory(events)),
        Layer.build
      )
      const channel = yield* SecureChannel.make({
        peer,
        baseUrl: "https://billing",
        config: { retry: { maxRetries: 3 } }
      }).pipe(Effect.provide(services))
      return { authority, channel, events, handled: () => handled }
    })

  it.scoped("that does not ask for our certificate is refused before a request is sent", () =>
    Effect.gen(function* () {
      const { channel, events, handled } = yield* setup({ asksForCertificate: false })
      expect(yield* Effect.flip(channel.get("/"))).toMatchObject({ _tag: "PeerVerificationError", reason: "NotMutual" })
      expect(events.map(({ _tag }) => _tag)).toEqual(["ConnectionAttempted", "ConnectionRefused"])
      expect(handled()).toBe(0)
    })
  )

  it.scoped("that does not authorise us says so once: no retry, no breaker counts it, no handler runs", () =>
    Effect.gen(function* () {
      const { authority } = yield* setup({})
      const authorize = PeerMatcher.exactly(authority.id("/another"))
      const { channel, events, handled } = yield* setup({ authorize })
      const breaker = yield* CircuitBreaker.make({ target: "test", failureThreshold: 1 })
      expect(yield* Effect.flip(breaker.protect(channel.get("/")))).toMatchObject({
        _tag: "IdentityError",
        reason: "LocalCertificateRefused"
      })
      expect(yield* breaker.state).toBe("Closed")
      expect(handled()).toBe(0)
      expect(events.map(({ _tag }) => _tag)).toEqual([
        "ConnectionAttempted",
        "ConnectionEstablished",
        "RequestStarted",
        "RequestEnded",
        "ConnectionClosed"
      ])
      expect(events[3]).toMatchObject({ status: 403, error: "IdentityError" })
    })
  )
})
