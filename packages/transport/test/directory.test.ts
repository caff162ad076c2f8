import { SpiffeId } from "@agentweave/spiffe"
import { PeerDirectory } from "@agentweave/transport"
import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect, type Layer } from "effect"
import { tag } from "./fakePool.js"

const resolve = <E>(layer: Layer.Layer<PeerDirectory.PeerDirectory, E>, peer: string) =>
  Effect.flatMap(PeerDirectory.PeerDirectory, (directory) => directory.resolve(SpiffeId.make(peer))).pipe(
    Effect.provide(layer)
  )

const billing = "spiffe://example.org/billing"

describe("PeerDirectory.layerStatic", () => {
  it.effect("finds the peers of a record or a Map", () =>
    Effect.gen(function* () {
      const record = PeerDirectory.layerStatic({ [billing]: "https://billing.test/v1" })
      const map = PeerDirectory.layerStatic(new Map([[billing, new URL("https://billing.test:8443")]]))
      assert.strictEqual(yield* resolve(record, billing), "https://billing.test/v1")
      assert.strictEqual(yield* resolve(map, billing), "https://billing.test:8443/")
    })
  )

  it.effect("has no address for anybody else", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(resolve(PeerDirectory.layerStatic({}), billing))
      assert.deepInclude(error, { _tag: "ConnectionError", reason: "NoAddress", outcome: "NotSent", address: billing })
      assert.isFalse("isRetryable" in error && error.isRetryable)
    })
  )

  it.effect("refuses bad IDs and URLs when it is built", () =>
    Effect.gen(function* () {
      const bad = (entries: PeerDirectory.Entries) => Effect.flip(resolve(PeerDirectory.layerStatic(entries), billing))
      assert.strictEqual(tag(yield* bad({ "https://billing": "https://billing.test" })), "InvalidSpiffeIdError")
      for (const url of ["http://billing.test", "billing", "https://u@billing.test", "https://billing.test?x"]) {
        assert.deepInclude(yield* bad({ [billing]: url }), { _tag: "InvalidConfigError", field: billing }, url)
      }
    })
  )
})

describe("PeerDirectory.layerConfig", () => {
  it.effect("reads the addresses from Config", () =>
    Effect.gen(function* () {
      const layer = PeerDirectory.layerConfig({ [billing]: Config.string("BILLING_URL") })
      const provider = ConfigProvider.fromMap(new Map([["BILLING_URL", "https://billing.test"]]))
      assert.strictEqual(yield* Effect.withConfigProvider(resolve(layer, billing), provider), "https://billing.test")
      const missing = Effect.withConfigProvider(resolve(layer, billing), ConfigProvider.fromMap(new Map()))
      assert.include(String(yield* Effect.flip(missing)), "BILLING_URL")
    })
  )
})

describe("PeerDirectory.layerTemplate", () => {
  const found = (template: string, peer: string) => resolve(PeerDirectory.layerTemplate(template), peer)

  it.effect("puts the trust domain and the path's segments into the host", () =>
    Effect.gen(function* () {
      const peer = "spiffe://example.org/ns/prod/sa/billing"
      const rows: ReadonlyArray<readonly [string, string]> = [
        ["https://{4}.{2}.svc.cluster.local:8443", "https://billing.prod.svc.cluster.local:8443"],
        ["https://{path}.internal", "https://ns.prod.sa.billing.internal"],
        ["https://{4}-{2}.{trustDomain}/base", "https://billing-prod.example.org/base"],
        ["https://x{4}", "https://xbilling"]
      ]
      for (const [template, url] of rows) assert.strictEqual(yield* found(template, peer), url)
    })
  )

  it.effect("has no address for an ID that does not fit a host name as it is", () =>
    Effect.gen(function* () {
      const rows: ReadonlyArray<readonly [string, string, string]> = [
        ["https://{1}.test", "spiffe://example.org/Billing", '"Billing"'],
        ["https://{1}.test", "spiffe://example.org/a.b", '"a.b"'],
        ["https://{1}.test", "spiffe://example.org/a_b", '"a_b"'],
        ["https://{1}.test", "spiffe://example.org/-a", '"-a"'],
        ["https://{1}.test", "spiffe://example.org/a-", '"a-"'],
        ["https://{1}.test", `spiffe://example.org/${"a".repeat(64)}`, "at most 63"],
        ["https://{2}.test", "spiffe://example.org/a", "at least 2 path segments"],
        ["https://{1}.{trustDomain}", "spiffe://my_domain/a", '"my_domain"'],
        ["https://{path}", "spiffe://example.org/1/2/3/4", "reads as an IP address"],
        ["https://{path}", "spiffe://example.org/0x7f", "reads as 0.0.0.127"],
        ["https://{path}", "spiffe://example.org/127", "reads as 0.0.0.127"],
        ["https://{path}.test", `spiffe://example.org${"/abcdefghi".repeat(26)}`, "at most 253"],
        ["https://{1}.test", "spiffe://example.org/xn--a", '"xn--a"'],
        ["https://{path}.test", "spiffe://example.org/xn--mnchen-3ya", '"xn--mnchen-3ya"']
      ]
      for (const [template, peer, description] of rows) {
        const error = yield* Effect.flip(found(template, peer))
        assert.deepInclude(error, { _tag: "ConnectionError", reason: "NoAddress", outcome: "NotSent", address: peer })
        assert.include(error.message, description)
      }
      assert.strictEqual(
        yield* found("https://{1}.test", `spiffe://example.org/${"a".repeat(63)}`),
        `https://${"a".repeat(63)}.test`
      )
    })
  )

  it.effect("refuses options that are no list of SPIFFE IDs, and fields of other names", () =>
    Effect.gen(function* () {
      const template = "https://{1}.test"
      const refusals: ReadonlyArray<readonly [options: object, field: string]> = [
        [{ peers: billing }, "peers"],
        [{ peers: 7 }, "peers"],
        [{ peers: [7] }, "peers"],
        [{ peers: ["https://billing.test"] }, "peers"],
        [{ peer: [billing] }, "peer"]
      ]
      for (const [options, field] of refusals) {
        const error = yield* Effect.flip(resolve(PeerDirectory.layerTemplate(template, options), billing))
        assert.deepInclude(error, { _tag: "InvalidConfigError", config: "PeerDirectory", field })
      }
      const error = yield* Effect.flip(resolve(PeerDirectory.layerTemplate(""), billing))
      assert.deepInclude(error, { _tag: "InvalidConfigError", field: "template" })
    })
  )

  it.effect("refuses a template that is not an https URL with placeholders in its host", () =>
    Effect.gen(function* () {
      for (const template of [
        "http://{1}.test",
        "https://fixed.test",
        "https://{name}.test",
        "https://{0}.test",
        "https://{1}.test/{2}",
        "https://user@{1}.test",
        "https://{1}.test?x={2}",
        "https://{1}.test?x",
        "https://{1.test",
        "https://{1}.test/}",
        "https://a b{1}",
        "{1}"
      ]) {
        const error = yield* Effect.flip(found(template, billing))
        assert.deepInclude(error, { _tag: "InvalidConfigError", config: "PeerDirectory", field: "template" }, template)
      }
    })
  )
})
