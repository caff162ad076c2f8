import type { IdentityProvider, InvalidSpiffeIdError } from "@agentweave/spiffe"
import type { AuditLog, Connector, InvalidConfigError, TransportError } from "@agentweave/transport"
import { ConnectionPool, PeerDirectory, SecureChannel } from "@agentweave/transport"
import type { HttpClient, HttpClientError } from "@effect/platform"
import type { ConfigError, Layer, Scope } from "effect"
import { type Context, Effect } from "effect"
import { describe, expectTypeOf, it } from "vitest"

interface Boom {
  readonly _tag: "Boom"
}
interface Needs {
  readonly needs: true
}

// Only their types are looked at: `tsc` is what fails here.
declare const pool: ConnectionPool.ConnectionPool["Type"]
declare const use: (channel: SecureChannel.SecureChannel) => Effect.Effect<number, Boom, Needs>
declare const tag: Context.Tag<Needs, SecureChannel.SecureChannel>

type Pool = TransportError.PoolExhaustedError | TransportError.PoolClosedError
type Transport = TransportError.TransportError | AuditLog.AuditError
type Request = Transport | HttpClientError.HttpClientError
type Needed = IdentityProvider.IdentityProvider | Connector.Connector
type Invalid = InvalidConfigError.InvalidConfigError

const types = (_: () => unknown) => {}

describe("the pool's types", () => {
  it("acquire can fail for the pool, the peer and the audit log, and needs a Scope", () =>
    types(() => {
      expectTypeOf(pool.acquire("")).toEqualTypeOf<
        Effect.Effect<SecureChannel.SecureChannel, Pool | Transport, Scope.Scope>
      >()
      expectTypeOf(
        pool.acquire("").pipe(Effect.catchTag("PoolExhaustedError", () => Effect.succeed(undefined)))
      ).toEqualTypeOf<
        Effect.Effect<SecureChannel.SecureChannel | undefined, TransportError.PoolClosedError | Transport, Scope.Scope>
      >()
    }))

  it("withChannel adds exactly what acquire fails with, and needs what its body needs", () =>
    types(() => {
      expectTypeOf(pool.withChannel("", use)).toEqualTypeOf<Effect.Effect<number, Boom | Pool | Transport, Needs>>()
      expectTypeOf(
        pool.withChannel("", use).pipe(
          Effect.catchTag("PoolExhaustedError", () => Effect.succeed(0)),
          Effect.catchTag("PoolClosedError", () => Effect.succeed(0))
        )
      ).toEqualTypeOf<Effect.Effect<number, Boom | Transport, Needs>>()
    }))

  it("a pool's client fails as a channel does, and for the pool", () =>
    types(() => {
      expectTypeOf(pool.client("")).toEqualTypeOf<HttpClient.HttpClient.With<Request | Pool>>()
      const channel = expectTypeOf<SecureChannel.SecureChannel>()
      channel.toExtend<HttpClient.HttpClient.With<Request>>()
      channel.not.toExtend<HttpClient.HttpClient.With<Transport>>()
    }))

  it("layers fail for their configuration and need what they are made of", () =>
    types(() => {
      expectTypeOf(ConnectionPool.layer()).toEqualTypeOf<
        Layer.Layer<ConnectionPool.ConnectionPool, Invalid, Needed | PeerDirectory.PeerDirectory>
      >()
      expectTypeOf(ConnectionPool.layerConfig({})).toEqualTypeOf<
        Layer.Layer<
          ConnectionPool.ConnectionPool,
          Invalid | ConfigError.ConfigError,
          Needed | PeerDirectory.PeerDirectory
        >
      >()
      expectTypeOf(PeerDirectory.layerTemplate("")).toEqualTypeOf<Layer.Layer<PeerDirectory.PeerDirectory, Invalid>>()
      expectTypeOf(SecureChannel.layer(tag, { peer: "" })).toEqualTypeOf<
        Layer.Layer<Needs, Invalid | InvalidSpiffeIdError.InvalidSpiffeIdError, Needed>
      >()
      expectTypeOf(SecureChannel.layerHttpClient({ peer: "" })).toExtend<
        Layer.Layer<HttpClient.HttpClient, unknown, Needed>
      >()
      // @ts-expect-error a channel has no option that weakens verification
      SecureChannel.make({ peer: "", config: { verifyPeer: false } })
      // @ts-expect-error nobody in particular is not a peer
      SecureChannel.make({ baseUrl: "https://x" })
    }))
})
