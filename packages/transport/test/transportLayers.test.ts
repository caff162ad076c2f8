import { IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority, TestConnector } from "@agentweave/testkit"
import {
  AuditLog,
  CircuitBreakerConfig,
  CircuitBreakerRegistry,
  ConnectionPool,
  PeerDirectory,
  PeerMatcher,
  PoolConfig,
  RetryConfig,
  SpiffeId,
  Transport
} from "@agentweave/transport"
import { HttpClient, HttpServerResponse } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Config, ConfigProvider, Context, Effect, Fiber, Layer, Schedule, TestClock } from "effect"

const billing = SpiffeId.make("spiffe://example.org/billing")
const search = SpiffeId.make("spiffe://example.org/search")
const entries = { [billing]: "https://billing.test:8443/v1", [search]: "https://search.test" }

/** A network where every peer says who it is and what it was asked. */
const setup = (directory: Layer.Layer<PeerDirectory.PeerDirectory, unknown> = PeerDirectory.layerStatic(entries)) =>
  Effect.gen(function* () {
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const network = yield* TestConnector.make({
      handler: ({ path, peer }) => Effect.succeed(HttpServerResponse.text(`${peer} ${path}`))
    })
    const services = Layer.mergeAll(network.layer, directory).pipe(
      Layer.provideMerge(
        Layer.merge(IdentityProvider.layerStatic(yield* authority.context({ path: "/web" })), AuditLog.layerMemory([]))
      )
    )
    return { network, context: yield* Layer.build(services) }
  })

const httpClient = (options: Transport.Options, directory?: Layer.Layer<PeerDirectory.PeerDirectory, unknown>) =>
  Effect.gen(function* () {
    const { context, network } = yield* setup(directory)
    const layer = Layer.provideMerge(Transport.layerHttpClient, Transport.layer(options))
    const built = yield* Layer.build(Layer.provide(layer, Layer.succeedContext(context)))
    return { network, context: built, http: Context.get(built, HttpClient.HttpClient) }
  })

const textOf = (http: HttpClient.HttpClient, url: string) => Effect.flatMap(http.get(url), (response) => response.text)

describe("Transport.layerHttpClient", () => {
  it.scoped("sends a request to the peer that the directory has at the origin of its URL", () =>
    Effect.gen(function* () {
      const { http, network } = yield* httpClient({})
      expect(yield* textOf(http, "https://billing.test:8443/v1/invoices/42?page=2")).toBe(
        `${billing} /v1/invoices/42?page=2`
      )
      expect(yield* textOf(http, "https://search.test/")).toBe(`${search} /`)
      expect((yield* network.connections).map(({ address, peer }) => `${address} ${peer}`)).toEqual([
        `billing.test:8443 ${billing}`,
        `search.test:443 ${search}`
      ])
    })
  )

  const elsewhere: Record<string, string> = {
    "a host the directory does not have": "https://evil.test/",
    "another port of a host it has": "https://billing.test/",
    "a plaintext URL": "http://search.test/",
    "user information in the URL": "https://billing@search.test/",
    "a relative URL": "/invoices"
  }
  for (const [what, url] of Object.entries(elsewhere)) {
    it.scoped(`opens no connection for ${what}`, () =>
      Effect.gen(function* () {
        const { http, network } = yield* httpClient({})
        expect(yield* Effect.flip(http.get(url))).toMatchObject({ _tag: "RequestError", reason: "InvalidUrl" })
        expect(yield* network.attempts).toBe(0)
      })
    )
  }

  it.scoped("somebody else at the peer's origin gets no request", () =>
    Effect.gen(function* () {
      const { http, network } = yield* httpClient({})
      yield* network.setOnConnect(TestConnector.impostor(search))
      expect(yield* Effect.flip(http.get("https://billing.test:8443/"))).toMatchObject({
        _tag: "RequestError",
        reason: "InvalidUrl",
        cause: { _tag: "PeerVerificationError", expectedId: billing, actualId: search }
      })
      expect(yield* network.attempts).toBe(1)
    })
  )

  it.scoped("two peers at one origin are refused: neither is taken for the other", () =>
    Effect.gen(function* () {
      const same = PeerDirectory.layerStatic({ [billing]: "https://all.test/b", [search]: "https://all.test/s" })
      const { http, network } = yield* httpClient({}, same)
      const error = yield* Effect.flip(http.get("https://all.test/b/invoices"))
      expect(error).toMatchObject({ _tag: "RequestError", reason: "InvalidUrl" })
      expect(error.message).toContain(`${billing} and ${search}`)
      expect(yield* network.attempts).toBe(0)
    })
  )

  it.scoped("a template names the peers that it is given, and without any there is no origin", () =>
    Effect.gen(function* () {
      const template = "https://{path}.test"
      const named = yield* httpClient({}, PeerDirectory.layerTemplate(template, { peers: [billing] }))
      expect(yield* textOf(named.http, "https://billing.test/x")).toBe(`${billing} /x`)
      const unnamed = yield* httpClient({}, PeerDirectory.layerTemplate(template))
      expect(yield* Effect.flip(unnamed.http.get("https://billing.test/x"))).toMatchObject({ reason: "InvalidUrl" })
    })
  )

  it.scoped("a directory that names no peers is told so", () =>
    Effect.gen(function* () {
      const mute = Layer.succeed(PeerDirectory.PeerDirectory, { resolve: () => Effect.succeed("https://billing.test") })
      const { http } = yield* httpClient({}, mute)
      const error = yield* Effect.flip(http.get("https://billing.test/"))
      expect(error.message).toContain("expected a PeerDirectory that names its peers")
    })
  )

  it.scoped("a peer that has moved is found at its new origin, and not at the old one", () =>
    Effect.gen(function* () {
      let url = "https://old.test"
      const moving = Layer.succeed(PeerDirectory.PeerDirectory, {
        peers: Effect.succeed([billing]),
        resolve: () => Effect.sync(() => url)
      })
      const { http } = yield* httpClient({}, moving)
      expect(yield* textOf(http, "https://old.test/")).toBe(`${billing} /`)
      url = "https://new.test"
      expect(yield* Effect.flip(http.get("https://old.test/"))).toMatchObject({ reason: "InvalidUrl" })
    })
  )

  it.scoped("its requests go through the peer's retries and breaker", () =>
    Effect.gen(function* () {
      const { context, http, network } = yield* httpClient({
        breaker: { failureThreshold: 3 },
        retry: { maxRetries: 1, baseDelay: 0 }
      })
      yield* network.setHandler(() => Effect.succeed(HttpServerResponse.empty({ status: 503 })))
      yield* http.get("https://search.test/")
      yield* Effect.exit(http.get("https://search.test/"))
      const breaker = yield* Context.get(context, CircuitBreakerRegistry.CircuitBreakerRegistry).get(search)
      expect(yield* breaker.metrics).toMatchObject({ state: "Open", totalFailures: 3 })
      expect(yield* Effect.flip(http.get("https://search.test/"))).toMatchObject({
        _tag: "RequestError",
        reason: "Encode",
        cause: { _tag: "CircuitOpenError", target: search }
      })
    })
  )
})

describe("Transport", () => {
  it.scoped("fibers that ask for a peer at once get one client", () =>
    Effect.gen(function* () {
      const { context } = yield* setup()
      const slow = Layer.map(CircuitBreakerRegistry.layer(), (registries) => {
        const registry = Context.get(registries, CircuitBreakerRegistry.CircuitBreakerRegistry)
        return Context.make(CircuitBreakerRegistry.CircuitBreakerRegistry, {
          ...registry,
          metrics: registry.metrics,
          resetAll: registry.resetAll,
          get: (target: string) => Effect.zipRight(Effect.sleep("1 second"), registry.get(target))
        })
      })
      const layer = Transport.layerServices().pipe(Layer.provide(Layer.merge(ConnectionPool.layer(), slow)))
      const built = yield* Layer.build(Layer.provide(layer, Layer.succeedContext(context)))
      const transport = Context.get(built, Transport.Transport)
      const asking = yield* Effect.fork(
        Effect.all(
          [billing, PeerMatcher.exactly(billing), billing].map((peer) => transport.client(peer)),
          { concurrency: "unbounded" }
        )
      )
      yield* TestClock.adjust("1 second")
      expect(new Set(yield* Fiber.join(asking)).size).toBe(1)
    })
  )

  it.scoped("a client of a matcher talks to whom it accepts, under a breaker of its own", () =>
    Effect.gen(function* () {
      const { context, network } = yield* setup()
      const built = yield* Layer.build(Layer.provide(Transport.layer(), Layer.succeedContext(context)))
      const either = PeerMatcher.oneOf([billing, search])
      const client = yield* Context.get(built, Transport.Transport).client(either)
      yield* network.setOnConnect(TestConnector.impostor(search))
      expect(yield* Effect.flatMap(client.get("/x"), (response) => response.text)).toBe(`${search} /v1/x`)
      const metrics = yield* Context.get(built, CircuitBreakerRegistry.CircuitBreakerRegistry).metrics
      expect(Array.from(metrics.keys())).toEqual([PeerMatcher.describe(either)])
    })
  )

  it.scoped("a Schedule of the caller's takes the place of the numbers of its retries", () =>
    Effect.gen(function* () {
      const { context, network } = yield* setup()
      yield* network.setHandler(() => Effect.succeed(HttpServerResponse.empty({ status: 503 })))
      const retry = Schedule.intersect(Schedule.spaced("3 seconds"), Schedule.recurs(2))
      const built = yield* Layer.build(Layer.provide(Transport.layer({ retry }), Layer.succeedContext(context)))
      const client = yield* Context.get(built, Transport.Transport).client(billing)
      const fiber = yield* Effect.fork(client.get("/"))
      yield* TestClock.adjust("6 seconds")
      expect((yield* Fiber.join(fiber)).status).toBe(503)
      const stats = yield* Context.get(built, ConnectionPool.ConnectionPool).stats
      expect(stats.totalAcquisitions).toBe(3)
    })
  )

  it.scoped("layerConfig reads pool, breaker and retries from Config", () =>
    Effect.gen(function* () {
      const { context, network } = yield* setup()
      const layer = Transport.layerConfig({
        pool: Config.nested(PoolConfig.config, "POOL"),
        breaker: Config.nested(CircuitBreakerConfig.config, "BREAKER"),
        retry: Config.nested(RetryConfig.config, "RETRY")
      })
      const build = (values: Record<string, string>) =>
        Effect.withConfigProvider(
          Layer.build(Layer.provide(layer, Layer.succeedContext(context))),
          ConfigProvider.fromMap(new Map(Object.entries(values)))
        )
      const built = yield* build({
        "BREAKER.failureThreshold": "2",
        "RETRY.maxRetries": "5",
        "RETRY.baseDelay": "0 millis"
      })
      yield* network.setHandler(() => Effect.succeed(HttpServerResponse.empty({ status: 503 })))
      const client = yield* Context.get(built, Transport.Transport).client(billing)
      expect(yield* Effect.flip(client.get("/"))).toMatchObject({ _tag: "CircuitOpenError" })
      expect((yield* network.connections)[0]?.requests).toBe(2)
      expect(yield* Effect.flip(build({ "POOL.maxTotalConnections": "0" }))).toBeDefined()
    })
  )
})
