import { IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority, TestIdentity } from "@agentweave/testkit"
import { AuditLog } from "@agentweave/transport"
import { type BundleEndpoint, FederatedBundles } from "@agentweave/transport-node"
import { HttpClientRequest, HttpClientResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Layer, Logger, TestClock } from "effect"
import { make } from "../src/internal/federation/poller.js"
import { answer, document, down, federate, minted, partner, settings, url, Web, web } from "./federatedProvider.js"

describe("federated bundles: one bundle a trust domain", () => {
  it.scoped("no endpoint can be configured for our own trust domain, and none twice", () =>
    Effect.gen(function* () {
      const { first } = yield* minted
      const pages = new Web(answer(document(first)))
      const refused = (endpoints: ReadonlyArray<BundleEndpoint.Options>) =>
        Effect.map(Effect.flip(Effect.scoped(federate(pages, { endpoints }))), (error) => error.message)
      assert.match(yield* refused([{ ...web, trustDomain: "example.org" }]), /foreign trust domains, got example.org/)
      assert.match(
        yield* refused([web, { ...web, url: "https://b.example/" }]),
        /one endpoint .* two for partner.example/
      )
      assert.deepStrictEqual(pages.asked, [])
    })
  )

  it.scoped("an endpoint whose trust domain becomes our own is not believed any more", () =>
    Effect.gen(function* () {
      const { first, foreign, second } = yield* minted
      const { generation, identity } = yield* federate(new Web(answer(document(second))))
      assert.strictEqual(yield* generation, second.generation)
      yield* identity.rotate(foreign.context({ path: "/api" }))
      assert.strictEqual(yield* generation, first.generation)
    })
  )

  it.scoped("a fetched bundle stands in place of the inner provider's, as a whole", () =>
    Effect.gen(function* () {
      const { first, foreign, own, second } = yield* minted
      const identity = yield* TestIdentity.make(yield* own.context({ path: "/api", federatesWith: [foreign] }))
      const pages = new Web(down)
      const { generation, provider } = yield* federate(pages, { identity })
      assert.strictEqual(yield* generation, first.generation)
      const other = yield* DevAuthority.make({ trustDomain: "partner.example" })
      pages.set(answer(document(other.bundle)))
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(yield* generation, other.bundle.generation)
      assert.strictEqual((yield* provider.x509Context).bundles.bundles.get(partner)?.authorities.length, 1)
      assert.notStrictEqual(other.bundle.generation, second.generation)
    })
  )

  it.scoped("a bundle to verify the endpoint with must be there before the first fetch", () =>
    Effect.gen(function* () {
      const { first, foreign, own } = yield* minted
      const pages = new Web(answer(document(first)))
      const endpointId = "spiffe://partner.example/bundles"
      const selfServing = { ...web, profile: "https_spiffe", endpointId } as const
      const error = yield* Effect.flip(Effect.scoped(federate(pages, { endpoints: [selfServing] })))
      assert.match(error.message, /expected a bundle to verify spiffe:\/\/partner.example\/bundles with the first time/)
      yield* federate(pages, { endpoints: [{ ...selfServing, bundle: document(first) }] })
      const identity = yield* TestIdentity.make(yield* own.context({ path: "/api", federatesWith: [foreign] }))
      yield* federate(pages, { endpoints: [selfServing], identity })
      yield* federate(pages, { endpoints: [{ ...selfServing, endpointId: "spiffe://example.org/bundles" }] })
      assert.strictEqual(pages.asked.length, 3)
    })
  )

  it.scoped("an endpoint is asked with the bundles known by then", () =>
    Effect.gen(function* () {
      const { context, first, second } = yield* minted
      const identity = yield* TestIdentity.make(context)
      const known: Array<string | undefined> = []
      const answers = [second, first]
      yield* make(identity.provider, settings([{ ...web, bundle: document(first) }]), (provider) =>
        Effect.succeed((_endpoint, target) =>
          Effect.gen(function* () {
            const { bundles } = yield* Effect.orDie(provider.x509Context)
            known.push(bundles.bundles.get(partner)?.generation)
            const body = document(answers[(known.length - 1) % 2] ?? first)
            return HttpClientResponse.fromWeb(HttpClientRequest.get(target), new Response(body))
          })
        )
      )
      yield* TestClock.adjust("5 minutes")
      assert.deepStrictEqual(known, [first.generation, second.generation])
    })
  )

  it.scoped("an identity that is lost is lost here too", () =>
    Effect.gen(function* () {
      const { first } = yield* minted
      const none = yield* TestIdentity.make()
      const pages = new Web(answer(document(first)))
      const error = yield* Effect.flip(Effect.scoped(federate(pages, { identity: none })))
      assert.strictEqual(error._tag, "IdentityError")
      const { identity, provider } = yield* federate(pages)
      const { IdentityError } = yield* Effect.promise(() => import("@agentweave/spiffe/IdentityError"))
      yield* identity.fail(new IdentityError({ reason: "Withdrawn", description: "gone" }))
      assert.strictEqual((yield* Effect.flip(provider.x509Context)).reason, "Withdrawn")
    })
  )

  it.scoped("a defect in the hook does not stop the polling", () =>
    Effect.gen(function* () {
      const { context, first } = yield* minted
      const pages = new Web(answer(document(first)))
      const identity = yield* TestIdentity.make(context)
      yield* make(
        identity.provider,
        settings([web], () => Effect.dieMessage("the hook")),
        () => Effect.succeed(pages.get)
      )
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual(pages.asked.length, 2)
    })
  )

  it.scoped("reports leave out a URL's query, and every failure is a warning", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const logger = Logger.map(Logger.logfmtLogger, (line) => lines.push(line))
      const secret = `${url}?token=secret`
      const pages = new Web(down)
      yield* Effect.gen(function* () {
        for (const next of [answer("", { status: 500 }), Effect.fail(new Error(`no answer from ${secret}`))]) {
          pages.answers.set(secret, next)
          const { events } = yield* federate(pages, { endpoints: [{ ...web, url: secret }] })
          assert.notInclude(JSON.stringify([lines, events]), "secret")
        }
      }).pipe(Effect.provide(Logger.replace(Logger.defaultLogger, logger)))
      assert.match(lines.join("\n"), /level=WARN .*BundleFetchFailed.*reason=Status/)
      assert.match(lines.join("\n"), /no answer from https:\/\/bundles.partner.example\/bundle.json/)
    })
  )
})

describe("FederatedBundles.layer: options", () => {
  it.effect("what cannot be right is refused with its field", () =>
    Effect.gen(function* () {
      const { context } = yield* minted
      const refused = (options: Partial<FederatedBundles.Options>) =>
        FederatedBundles.layer({ endpoints: [], ...options }).pipe(
          Layer.provide(IdentityProvider.layerStatic(context)),
          Layer.provide(AuditLog.layerMemory([])),
          Layer.build,
          Effect.scoped,
          Effect.exit,
          Effect.map((exit) => (Exit.isFailure(exit) ? String(exit.cause) : "accepted"))
        )
      const spiffe = { ...web, profile: "https_spiffe", endpointId: "spiffe://partner.example/b" } as const
      const cases: ReadonlyArray<readonly [Partial<FederatedBundles.Options>, RegExp]> = [
        [{ endpoints: [{ ...web, url: "http://partner.example/" }] }, /BundleEndpoint.url: expected an https: URL/],
        [{ endpoints: [{ ...web, url: "https://u@partner.example/" }] }, /BundleEndpoint.url: .*user information/],
        [{ endpoints: [{ ...web, url: "partner.example" }] }, /BundleEndpoint.url: expected an https: URL/],
        [{ endpoints: [{ ...web, trustDomain: "Partner.example" }] }, /BundleEndpoint.trustDomain: /],
        [{ endpoints: [{ ...spiffe, endpointId: "partner.example" }] }, /BundleEndpoint.endpointId: /],
        [{ endpoints: [{ ...web, bundle: "garbage" }] }, /BundleEndpoint.bundle: /],
        [{ maxBytes: 0 }, /FederatedBundles.maxBytes: /],
        [{ minRefreshInterval: 0 }, /FederatedBundles.minRefreshInterval: /],
        [{ minRefreshInterval: "2 hours" }, /FederatedBundles.maxRefreshInterval: .*at least minRefreshInterval 2h/],
        [{ refreshInterval: Duration.infinity }, /FederatedBundles.refreshInterval: /],
        [{ retryBaseDelay: 0 }, /FederatedBundles.retryBaseDelay: /],
        [{ timeout: 0 }, /FederatedBundles.timeout: /],
        [{ initialWait: -1 }, /FederatedBundles.initialWait: expected a duration that is not negative, got -1/],
        [{ initialWait: 0 }, /accepted/],
        [{}, /accepted/]
      ]
      for (const [options, expected] of cases) assert.match(yield* refused(options), expected, JSON.stringify(options))
    })
  )
})
