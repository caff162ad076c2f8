import { DevAuthority } from "@agentweave/testkit"
import {
  AuditLog,
  CircuitBreaker,
  CircuitBreakerRegistry,
  ConnectionPool,
  Connector,
  Dialer,
  IdentityMonitor,
  IdentityProvider,
  PeerDirectory,
  PeerMatcher,
  SecureChannel,
  SpiffeId,
  Transport,
  TransportConfig
} from "@agentweave/transport"
import { HttpClient } from "@effect/platform"
import { describe } from "@effect/vitest"
import { Config, Context, Effect, Layer, Logger } from "effect"
import { settled } from "../../spiffe/test/support/settled.js"
import { eachEnds, row } from "../../spiffe/test/support/uninterruptible.js"
import { FakeWire, identity } from "./fakeConnector.js"
import { a } from "./fakePool.js"

class Breaker extends Context.Tag("test/Breaker")<Breaker, CircuitBreaker.CircuitBreaker>() {}

class Billing extends Context.Tag("test/Billing")<Billing, SecureChannel.SecureChannel>() {}

const baseUrl = "https://a.test"
const directory = PeerDirectory.layerTemplate("https://{1}.test")
const events = AuditLog.layerMemory([])

/** What channels and pools rest on; a network of its own for each. */
const world = Effect.sync(() => Layer.mergeAll(new FakeWire().layer, identity, directory))
const over = <A, E>(layer: Layer.Layer<A, E, Layer.Layer.Success<Effect.Effect.Success<typeof world>>>) =>
  Effect.map(world, (services) => Layer.provide(layer, services))

const get = Effect.flatMap(HttpClient.HttpClient, (client) => client.get("/"))
const useTransport = Effect.flatMap(Transport.Transport, (transport) =>
  Effect.flatMap(transport.client(a), (client) => client.get("/"))
)
const usePool = Effect.flatMap(ConnectionPool.ConnectionPool, (pool) =>
  Effect.zipRight(
    pool.client(a).get("/"),
    // A request that waits starts the fiber that watches the limit of its wait, which lasts longer than the pool.
    pool.withChannel(a, () => Effect.zipRight(Effect.forkDaemon(pool.client(a).get("/")), settled))
  )
)
const pool: ConnectionPool.Options = {
  maxConnectionsPerTarget: 1,
  acquireTimeout: "1 hour",
  healthCheck: (channel) => channel.get("/health"),
  healthCheckInterval: "1 millis"
}
const record = Effect.flatMap(AuditLog.AuditLog, (log) =>
  Effect.sync(() => log.unsafeRecord({ _tag: "CircuitStateChanged", time: 0, target: a, from: "Closed", to: "Open" }))
)

const useBreaker = Effect.flatMap(Breaker, (breaker) => breaker.protect(Effect.void))
const realIdentity = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  return IdentityProvider.layerStatic(yield* authority.context({ path: "/api" }))
})
/** An attempt that does not end by itself. */
const connect = Effect.gen(function* () {
  const connector = yield* Connector.Connector
  const config = yield* TransportConfig.make({})
  const matcher = PeerMatcher.exactly(SpiffeId.make(a))
  const attempt = connector.connect({ matcher, host: "a.test", port: 443, config, onClose: () => {} })
  yield* Effect.forkDaemon(Effect.exit(Effect.scoped(attempt)))
  yield* settled
})

describe("every layer of the transport", () => {
  eachEnds(new URL("../src/", import.meta.url), [
    row("AuditLog.layerFromLogger", Effect.succeed(AuditLog.layerFromLogger(Effect.succeed(Logger.none))), record),
    row("AuditLog.layerLogger", Effect.succeed(AuditLog.layerLogger), record),
    row("AuditLog.layerMemory", Effect.succeed(events), record),
    row("AuditLog.layerTee", Effect.succeed(AuditLog.layerTee(events, AuditLog.layerLogger)), record),
    row("CircuitBreaker.layer", Effect.succeed(CircuitBreaker.layer(Breaker, { target: a })), useBreaker),
    row(
      "CircuitBreaker.layerConfig",
      Effect.succeed(CircuitBreaker.layerConfig(Breaker, { target: Config.succeed(a) })),
      useBreaker
    ),
    row(
      "CircuitBreakerRegistry.layer",
      Effect.succeed(CircuitBreakerRegistry.layer({ cleanupInterval: "1 millis" })),
      Effect.flatMap(CircuitBreakerRegistry.CircuitBreakerRegistry, (registry) => registry.get(a))
    ),
    row(
      "CircuitBreakerRegistry.layerConfig",
      Effect.succeed(CircuitBreakerRegistry.layerConfig({ cleanupInterval: Config.succeed("1 millis" as const) })),
      Effect.flatMap(CircuitBreakerRegistry.CircuitBreakerRegistry, (registry) => registry.get(a))
    ),
    row("ConnectionPool.layer", over(ConnectionPool.layer(pool)), usePool),
    row(
      "ConnectionPool.layerConfig",
      over(
        ConnectionPool.layerConfig({
          maxConnectionsPerTarget: Config.succeed(1),
          acquireTimeout: Config.succeed("1 hour" as const)
        })
      ),
      usePool
    ),
    row(
      "Dialer.layer",
      Effect.map(realIdentity, (identity) =>
        Dialer.layer(Effect.succeed({ dial: () => Effect.never })).pipe(Layer.provide([identity, events]))
      ),
      connect
    ),
    row("IdentityProvider.layerStatic", realIdentity),
    row(
      "IdentityMonitor.layer",
      Effect.map(realIdentity, (identity) =>
        IdentityMonitor.layer({ interval: "1 millis" }).pipe(Layer.provide([identity, events]))
      )
    ),
    row("PeerDirectory.layerConfig", Effect.succeed(PeerDirectory.layerConfig({ [a]: Config.succeed(baseUrl) }))),
    row("PeerDirectory.layerStatic", Effect.succeed(PeerDirectory.layerStatic({ [a]: baseUrl }))),
    row("PeerDirectory.layerTemplate", Effect.succeed(directory)),
    row(
      "SecureChannel.layer",
      over(SecureChannel.layer(Billing, { peer: a, baseUrl })),
      Effect.flatMap(Billing, (_) => _.get("/"))
    ),
    row(
      "SecureChannel.layerConfig",
      over(SecureChannel.layerConfig(Billing, { peer: Config.succeed(a), baseUrl: Config.succeed(baseUrl) })),
      Effect.flatMap(Billing, (_) => _.get("/"))
    ),
    row("SecureChannel.layerHttpClient", over(SecureChannel.layerHttpClient({ peer: a, baseUrl })), get),
    row("Transport.layer", over(Transport.layer({ pool })), useTransport),
    row(
      "Transport.layerConfig",
      over(Transport.layerConfig({ breaker: { cleanupInterval: Config.succeed("1 millis" as const) } })),
      useTransport
    ),
    row(
      "Transport.layerServices",
      over(Transport.layerServices().pipe(Layer.provide([ConnectionPool.layer(pool), CircuitBreakerRegistry.layer()]))),
      useTransport
    )
  ])
})
