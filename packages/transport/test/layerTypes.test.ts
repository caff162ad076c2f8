import type { Connector, InvalidConfigError, InvalidSpiffeIdError } from "@agentweave/transport"
import {
  AuditLog,
  CircuitBreakerRegistry,
  ConnectionPool,
  Dialer,
  IdentityMonitor,
  IdentityProvider,
  PeerDirectory,
  PeerMatcher,
  RetryBudget,
  SecureChannel,
  SecureSocket,
  SpiffeId,
  Transport
} from "@agentweave/transport"
import type { HttpClient, Socket } from "@effect/platform"
import type { ConfigError, Scope } from "effect"
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
class Budget extends Context.Tag("test/Budget")<Budget, RetryBudget.RetryBudget>() {}
class Bytes extends Context.Tag("test/Bytes")<Bytes, Socket.Socket>() {}

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

  it("AuditLog", () =>
    types(() => {
      expectTypeOf(AuditLog.layerLogger).toEqualTypeOf<Layer.Layer<AuditLog.AuditLog>>()
      expectTypeOf(AuditLog.layerMemory([])).toEqualTypeOf<Layer.Layer<AuditLog.AuditLog>>()
      expectTypeOf(AuditLog.layerFromLogger<"bad", Scope.Scope | Billing>).returns.toEqualTypeOf<
        Layer.Layer<AuditLog.AuditLog, "bad", Billing>
      >()
      expectTypeOf(AuditLog.layerTee<"left", Billing, "right", Anyone>).returns.toEqualTypeOf<
        Layer.Layer<AuditLog.AuditLog, "left" | "right", Billing | Anyone>
      >()
    }))

  it("Dialer", () =>
    types(() => {
      expectTypeOf(Dialer.layer<"bad", Scope.Scope | Billing>).returns.toEqualTypeOf<
        Layer.Layer<Connector.Connector, "bad", IdentityProvider.IdentityProvider | AuditLog.AuditLog | Billing>
      >()
    }))

  it("RetryBudget", () =>
    types(() => {
      expectTypeOf(RetryBudget.layerConfig(Budget, { ratio: Config.number("RATIO") })).toEqualTypeOf<
        Layer.Layer<Budget, FromConfig | Refused>
      >()
    }))

  it("SecureSocket", () =>
    types(() => {
      type Of<I, E = never> = Layer.Layer<I, E | BadId | Refused, Connector.Connector>
      const options = { peer, host: "billing.internal", port: 8443 }
      expectTypeOf(SecureSocket.layer(Bytes, options)).toEqualTypeOf<Of<Bytes>>()
      expectTypeOf(SecureSocket.layerSocket(options)).toEqualTypeOf<Of<Socket.Socket>>()
      expectTypeOf(SecureSocket.layerConfig(Bytes, Config.succeed(options))).toEqualTypeOf<Of<Bytes, FromConfig>>()
    }))

  it("IdentityProvider", () =>
    types(() => {
      expectTypeOf(IdentityProvider.layerStatic).returns.toEqualTypeOf<Layer.Layer<IdentityProvider.IdentityProvider>>()
    }))

  it("IdentityMonitor", () =>
    types(() => {
      expectTypeOf(IdentityMonitor.layer()).toEqualTypeOf<
        Layer.Layer<IdentityMonitor.IdentityMonitor, Refused, IdentityProvider.IdentityProvider | AuditLog.AuditLog>
      >()
    }))
})
