import type {
  AuditLog,
  Connector,
  IdentityProvider,
  InvalidConfigError,
  InvalidSpiffeIdError
} from "@agentweave/transport"
import {
  CircuitBreakerRegistry,
  ConnectionPool,
  IdentityMonitor,
  PeerDirectory,
  PeerMatcher,
  SecureChannel,
  SpiffeId,
  Transport
} from "@agentweave/transport"
import type { HttpClient } from "@effect/platform"
import type { ConfigError } from "effect"
import { Config, Context, type Layer } from "effect"
import { describe, expectTypeOf, it } from "vitest"

type Refused = InvalidConfigError.InvalidConfigError
type BadId = InvalidSpiffeIdError.InvalidSpiffeIdError
type FromConfig = ConfigError.ConfigError
type Wire = Connector.Connector | IdentityProvider.IdentityProvider
type PoolNeeds = Wire | PeerDirectory.PeerDirectory
type Composition = Transport.Transport | ConnectionPool.ConnectionPool | CircuitBreakerRegistry.CircuitBreakerRegistry

const peer = "spiffe://example.org/billing"

class Billing extends Context.Tag("test/Billing")<Billing, SecureChannel.SecureChannel>() {}
class Anyone extends Context.Tag("test/Anyone")<Anyone, SecureChannel.SecureChannel<SpiffeId.SpiffeId | undefined>>() {}

// Only their types are looked at: `tsc` is what fails here.
const types = (_: () => unknown) => {}

describe("the layers provide, refuse and need exactly what they say", () => {
  it("SecureChannel", () =>
    types(() => {
      type Of<I, E = never> = Layer.Layer<I, E | BadId | Refused, Wire>
      expectTypeOf(SecureChannel.layer(Billing, { peer })).toEqualTypeOf<Of<Billing>>()
      expectTypeOf(SecureChannel.layerConfig(Billing, { peer: Config.string("ID") })).toEqualTypeOf<
        Of<Billing, FromConfig>
      >()
      expectTypeOf(SecureChannel.layerHttpClient({ peer })).toEqualTypeOf<Of<HttpClient.HttpClient>>()
      const matcher = PeerMatcher.exactly(SpiffeId.make(peer))
      expectTypeOf(SecureChannel.layer(Anyone, { peer: matcher })).toEqualTypeOf<Of<Anyone>>()
      // @ts-expect-error a matcher may accept more than one, so that its channel may name none
      SecureChannel.layer(Billing, { peer: matcher })
      expectTypeOf(SecureChannel.layerConfig(Anyone, { peer: Config.succeed(matcher) })).toEqualTypeOf<
        Of<Anyone, FromConfig>
      >()
      // @ts-expect-error the same with options from Config
      SecureChannel.layerConfig(Billing, { peer: Config.succeed(matcher) })
    }))

  it("ConnectionPool", () =>
    types(() => {
      expectTypeOf(ConnectionPool.layer()).toEqualTypeOf<
        Layer.Layer<ConnectionPool.ConnectionPool, Refused, PoolNeeds>
      >()
      expectTypeOf(ConnectionPool.layerConfig({ maxWaiting: Config.integer("WAITING") })).toEqualTypeOf<
        Layer.Layer<ConnectionPool.ConnectionPool, FromConfig | Refused, PoolNeeds>
      >()
    }))

  it("CircuitBreakerRegistry", () =>
    types(() => {
      expectTypeOf(CircuitBreakerRegistry.layer()).toEqualTypeOf<
        Layer.Layer<CircuitBreakerRegistry.CircuitBreakerRegistry, Refused>
      >()
      expectTypeOf(CircuitBreakerRegistry.layerConfig({ failureThreshold: Config.integer("N") })).toEqualTypeOf<
        Layer.Layer<CircuitBreakerRegistry.CircuitBreakerRegistry, FromConfig | Refused>
      >()
    }))

  it("Transport", () =>
    types(() => {
      expectTypeOf(Transport.layer()).toEqualTypeOf<Layer.Layer<Composition, Refused, PoolNeeds>>()
      expectTypeOf(Transport.layerConfig({})).toEqualTypeOf<Layer.Layer<Composition, FromConfig | Refused, PoolNeeds>>()
      expectTypeOf(Transport.layerServices()).toEqualTypeOf<
        Layer.Layer<
          Transport.Transport,
          Refused,
          ConnectionPool.ConnectionPool | CircuitBreakerRegistry.CircuitBreakerRegistry
        >
      >()
      expectTypeOf(Transport.layerHttpClient).toEqualTypeOf<
        Layer.Layer<HttpClient.HttpClient, never, Transport.Transport | PeerDirectory.PeerDirectory>
      >()
    }))

  it("PeerDirectory", () =>
    types(() => {
      expectTypeOf(PeerDirectory.layerStatic({})).toEqualTypeOf<
        Layer.Layer<PeerDirectory.PeerDirectory, BadId | Refused>
      >()
      expectTypeOf(PeerDirectory.layerConfig({})).toEqualTypeOf<
        Layer.Layer<PeerDirectory.PeerDirectory, FromConfig | BadId | Refused>
      >()
      expectTypeOf(PeerDirectory.layerTemplate("https://{path}.test")).toEqualTypeOf<
        Layer.Layer<PeerDirectory.PeerDirectory, Refused>
      >()
    }))

  it("IdentityMonitor", () =>
    types(() => {
      expectTypeOf(IdentityMonitor.layer()).toEqualTypeOf<
        Layer.Layer<IdentityMonitor.IdentityMonitor, Refused, IdentityProvider.IdentityProvider | AuditLog.AuditLog>
      >()
    }))
})
