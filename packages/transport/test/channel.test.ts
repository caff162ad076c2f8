import { SecureChannel, TransportConfig } from "@agentweave/transport"
import { HttpClient, HttpClientError, HttpClientRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Context, Effect, Exit, Layer, Scope, TestClock } from "effect"
import { settled } from "../../spiffe/test/support/settled.js"
import { type Behaviour, type FakeExchange, FakeWire, identity, refused } from "./fakeConnector.js"
import { peek, tag } from "./fakePool.js"

const peer = "spiffe://example.org/billing"
const baseUrl = "https://billing.internal:8443/v1"

/** A fake world and a channel into it, in a scope of its own. */
const setup = (options: Partial<SecureChannel.Options> = {}, behaviour: Partial<Behaviour> = {}) =>
  Effect.gen(function* () {
    const wire = new FakeWire()
    wire.behaviour = { ...wire.behaviour, ...behaviour }
    const scope = yield* Scope.make()
    const channel = yield* SecureChannel.make({ peer, baseUrl, ...options }).pipe(
      Scope.extend(scope),
      Effect.provide(Layer.merge(wire.layer, identity))
    )
    return { wire, channel, close: Scope.close(scope, Exit.void) }
  })

describe("SecureChannel", () => {
  it.effect("is an HttpClient: requests go to its base URL, over a connection that is used again", () =>
    Effect.gen(function* () {
      const { channel, wire } = yield* setup()
      const first = yield* channel.get("/invoices", { urlParams: { page: 2 } })
      const second = yield* channel.request("DELETE", "invoices/1")
      const third = yield* channel.pipe(HttpClient.mapRequest(HttpClientRequest.prependUrl("/api"))).head("/x")
      assert.strictEqual(yield* first.text, "/v1/invoices?page=2")
      assert.strictEqual(yield* second.text, "/v1/invoices/1")
      assert.strictEqual(yield* third.text, "/v1/api/x")
      assert.deepStrictEqual(wire.attempts, ["billing.internal"])
      assert.deepStrictEqual(
        wire.exchanges.map((_) => _.exchange.request.method),
        ["GET", "DELETE", "HEAD"]
      )
      assert.strictEqual(channel.peerSpiffeId, peer)
      assert.strictEqual(yield* channel.mySpiffeId, "spiffe://example.org/me")
    })
  )

  it.effect("demands exactly its peer at the address of the URL", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const { channel } = yield* setup(
        { baseUrl: undefined, config: { timeout: "3 seconds" } },
        {
          connect: ({ config, host, matcher, port }) =>
            Effect.sync(() => seen.push({ host, matcher, port, timeout: config.timeout }))
        }
      )
      yield* channel.get("https://one.test/a")
      yield* channel.get("https://[::1]:9443/b")
      const { timeout } = yield* TransportConfig.make({ timeout: "3 seconds" })
      const matcher = { _tag: "Exactly", id: peer }
      assert.deepStrictEqual(seen, [
        { host: "one.test", matcher, port: 443, timeout },
        { host: "::1", matcher, port: 9443, timeout }
      ])
    })
  )

  it.effect("refuses what is not https, names a user or leaves its origin, before a connection is opened", () =>
    Effect.gen(function* () {
      const { channel, wire } = yield* setup()
      for (const url of [
        "http://billing.internal:8443/",
        "https://other.test/",
        "https://u@billing.internal:8443/",
        "//x/"
      ]) {
        assert.deepInclude(yield* Effect.flip(channel.get(url)), { _tag: "RequestError", reason: "InvalidUrl" }, url)
      }
      const free = yield* setup({ baseUrl: undefined })
      for (const url of ["/relative", "http://plain.test/"]) {
        assert.deepInclude(
          yield* Effect.flip(free.channel.get(url)),
          { _tag: "RequestError", reason: "InvalidUrl" },
          url
        )
      }
      assert.deepStrictEqual([...wire.attempts, ...free.wire.attempts], [])
    })
  )

  it.effect("names a response's request by its whole URL, the base's path included", () =>
    Effect.gen(function* () {
      const { channel } = yield* setup({}, { serve: (exchange) => exchange.respond() })
      for (const [url, whole] of [
        ["/a?b=c", "https://billing.internal:8443/v1/a?b=c"],
        ["a", "https://billing.internal:8443/v1/a"],
        ["https://billing.internal:8443/a", "https://billing.internal:8443/a"]
      ] as const) {
        assert.strictEqual((yield* channel.get(url)).request.url, whole)
      }
    })
  )

  it.effect("followRedirects follows within its origin and never leaves it", () =>
    Effect.gen(function* () {
      const locations = new Map([
        ["/v1/moved", "https://billing.internal:8443/v1/here"],
        ["/v1/away", "https://evil.test/"],
        ["/v1/plain", "http://billing.internal:8443/v1/here"]
      ])
      const { channel, wire } = yield* setup(
        {},
        {
          serve: (exchange) => {
            const location = locations.get(exchange.path)
            exchange.respond("", location === undefined ? 200 : 302, location === undefined ? {} : { location })
          }
        }
      )
      const client = HttpClient.followRedirects(channel)
      assert.strictEqual((yield* client.get("/moved")).status, 200)
      for (const path of ["/away", "/plain"]) {
        assert.deepInclude(yield* Effect.flip(client.get(path)), { _tag: "RequestError", reason: "InvalidUrl" }, path)
      }
      assert.strictEqual((yield* channel.get("/away")).status, 302)
      assert.deepStrictEqual(wire.attempts, ["billing.internal"])
    })
  )

  it.effect("keeps up to config.connections connections to an origin; the next requests wait their turn", () =>
    Effect.gen(function* () {
      const exchanges: Array<FakeExchange> = []
      const { channel, wire } = yield* setup(
        { config: { connections: 2, timeout: "5 seconds" } },
        { serve: (exchange) => void exchanges.push(exchange) }
      )
      const fibers = yield* Effect.forEach([1, 2, 3, 4], (n) => Effect.fork(channel.get(`/${n}`)))
      yield* settled
      assert.deepStrictEqual(
        exchanges.map((_) => _.path),
        ["/v1/1", "/v1/2"]
      )
      yield* TestClock.adjust("4 seconds")
      exchanges[1]?.respond()
      yield* settled
      assert.deepStrictEqual(
        exchanges.map((_) => _.path),
        ["/v1/1", "/v1/2", "/v1/3"]
      )
      yield* TestClock.adjust("1 second")
      const error = yield* peek(fibers[3] as never)
      assert.deepInclude(error, { _tag: "TimeoutError", phase: "Acquire", outcome: "NotSent" })
      assert.strictEqual(
        (error as unknown as Error).message,
        `Acquire: expected a free connection within 5s, all 2 connections of the channel to ${peer} are in use: 1 by GET https://billing.internal:8443/v1/1, 1 by GET https://billing.internal:8443/v1/3; request not sent`
      )
      assert.strictEqual(wire.peak, 2)
    })
  )

  it.effect("bounds each origin for itself", () =>
    Effect.gen(function* () {
      const { channel, wire } = yield* setup({ baseUrl: undefined, config: { connections: 1 } }, { serve: () => {} })
      yield* Effect.fork(channel.get("https://one.test/"))
      yield* Effect.fork(channel.get("https://one.test/"))
      yield* Effect.fork(channel.get("https://two.test/"))
      yield* settled
      assert.deepStrictEqual(wire.attempts, ["one.test", "two.test"])
    })
  )

  it.effect("a failed attempt to connect is the request's failure", () =>
    Effect.gen(function* () {
      const { channel } = yield* setup({}, { connect: () => Effect.fail(refused()) })
      assert.deepInclude(yield* Effect.flip(channel.get("/")), { _tag: "ConnectionError", reason: "Refused" })
    })
  )

  it.effect("when its scope ends requests in flight fail, none starts any more, and connections are closed", () =>
    Effect.gen(function* () {
      const { channel, close, wire } = yield* setup({ config: { connections: 1 } }, { serve: () => {} })
      const running = yield* Effect.fork(channel.get("/1"))
      const waiting = yield* Effect.fork(channel.get("/2"))
      yield* settled
      yield* close
      assert.deepInclude(yield* peek(running), { _tag: "ConnectionError", outcome: "Unknown" })
      assert.deepInclude(yield* peek(waiting), { _tag: "ScopeClosedError", reason: "Channel" })
      const error = yield* Effect.flip(channel.get("/3"))
      assert.deepInclude(error, {
        _tag: "ScopeClosedError",
        reason: "Channel",
        target: `${peer} at https://billing.internal:8443`
      })
      assert.strictEqual(
        error.message,
        `Channel: expected an open channel, its scope has ended: use a channel within the scope it was made in; peer ${peer} at https://billing.internal:8443, request not sent`
      )
      assert.deepStrictEqual(
        wire.connections.map((_) => _.closed),
        ["Shutdown"]
      )
    })
  )

  it.effect("refuses a bad peer, base URL or configuration with a typed error", () =>
    Effect.gen(function* () {
      assert.strictEqual(tag(yield* Effect.flip(setup({ peer: "https://x" }))), "InvalidSpiffeIdError")
      assert.deepInclude(yield* Effect.flip(setup({ baseUrl: "http://plain.test" })), {
        _tag: "InvalidConfigError",
        config: "SecureChannel",
        field: "baseUrl"
      })
      assert.deepInclude(yield* Effect.flip(setup({ config: { connections: 0 } })), {
        _tag: "InvalidConfigError",
        config: "TransportConfig",
        field: "connections"
      })
    })
  )
})

class Billing extends Context.Tag("test/Billing")<Billing, SecureChannel.SecureChannel>() {}

describe("SecureChannel's layers", () => {
  it.effect("layer provides a channel under the application's tag, for as long as the layer lives", () =>
    Effect.gen(function* () {
      const wire = new FakeWire()
      const layer = SecureChannel.layer(Billing, { peer, baseUrl }).pipe(
        Layer.provide(Layer.merge(wire.layer, identity))
      )
      const text = yield* Effect.flatMap(Billing, (billing) => billing.get("/x")).pipe(
        Effect.flatMap((response) => response.text),
        Effect.provide(layer)
      )
      assert.strictEqual(text, "/v1/x")
      assert.strictEqual(wire.connections[0]?.closed, "Shutdown")
    })
  )

  it.effect("layerConfig reads its options from Config", () =>
    Effect.gen(function* () {
      const wire = new FakeWire()
      const layer = SecureChannel.layerConfig(Billing, {
        peer: Config.string("PEER"),
        baseUrl: Config.string("URL"),
        config: TransportConfig.config
      }).pipe(
        Layer.provide(Layer.merge(wire.layer, identity)),
        Layer.provide(
          Layer.setConfigProvider(
            ConfigProvider.fromMap(
              new Map([
                ["PEER", peer],
                ["URL", "https://from.config"],
                ["connections", "1"]
              ])
            )
          )
        )
      )
      yield* Effect.provide(
        Effect.flatMap(Billing, (billing) => billing.get("/x")),
        layer
      )
      assert.deepStrictEqual(wire.attempts, ["from.config"])
    })
  )

  it.effect("layerHttpClient is the HttpClient itself; a typed error is the cause of a RequestError", () =>
    Effect.gen(function* () {
      const wire = new FakeWire()
      const layer = SecureChannel.layerHttpClient({ peer, baseUrl }).pipe(
        Layer.provide(Layer.merge(wire.layer, identity))
      )
      const get = Effect.flatMap(HttpClient.HttpClient, (client) => client.get("/x"))
      assert.strictEqual(yield* Effect.flatMap(get, (_) => _.text).pipe(Effect.provide(layer)), "/v1/x")
      wire.behaviour.connect = () => Effect.fail(refused())
      const error = yield* Effect.flip(Effect.provide(get, layer))
      assert.deepInclude(error, { _tag: "RequestError", reason: "Transport" })
      assert.isTrue(HttpClientError.isHttpClientError(error))
      assert.strictEqual(tag((error as HttpClientError.RequestError).cause), "ConnectionError")
      const invalid = yield* Effect.flip(
        Effect.provide(
          Effect.flatMap(HttpClient.HttpClient, (client) => client.get("http://plain.test")),
          layer
        )
      )
      assert.deepInclude(invalid, { _tag: "RequestError", reason: "InvalidUrl" })
    })
  )
})
