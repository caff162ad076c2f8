/** A stream of prices by RPC over a secure socket: made no faster than its reader takes them, and ended with the reader. */
import { PeerMatcher, SpiffeId } from "@agentweave/spiffe"
import { PeerIdentity, SecureSocket } from "@agentweave/transport"
import { NodeSecureSocketServer } from "@agentweave/transport-node"
import { Rpc, RpcClient, RpcGroup, RpcMiddleware, RpcSerialization, RpcServer } from "@effect/rpc"
import { Context, Effect, Layer, Schedule, Schema, Stream } from "effect"

class Caller extends Context.Tag("recipes/Caller")<Caller, SpiffeId.SpiffeId>() {}

/** Every procedure has its verified caller. */
class Authenticated extends RpcMiddleware.Tag<Authenticated>()("recipes/Authenticated", { provides: Caller }) {}

const AuthenticatedLive = Layer.effect(
  Authenticated,
  Effect.map(
    PeerIdentity.PeerIdentity,
    (identity) => () =>
      Effect.map(PeerIdentity.current, ({ spiffeId }) => spiffeId).pipe(
        Effect.provideService(PeerIdentity.PeerIdentity, identity)
      )
  )
)

export class UnknownSymbol extends Schema.TaggedError<UnknownSymbol>()("UnknownSymbol", { symbol: Schema.String }) {}

class Price extends Schema.Class<Price>("Price")({ cents: Schema.Number, for: Schema.String }) {}

class Prices extends RpcGroup.make(
  Rpc.make("Watch", { payload: { symbol: Schema.String }, success: Price, error: UnknownSymbol, stream: true })
).middleware(Authenticated) {}

const PricesLive = Prices.toLayer({
  Watch: ({ symbol }) =>
    symbol === "ACME"
      ? Stream.mapEffect(Stream.range(100, Number.MAX_SAFE_INTEGER), (cents) =>
          Effect.map(Caller, (caller) => new Price({ cents, for: caller }))
        ).pipe(Stream.schedule(Schedule.spaced("1 millis")))
      : Stream.fail(new UnknownSymbol({ symbol }))
})

export const ServerLive = (port: number) =>
  RpcServer.layer(Prices).pipe(
    Layer.provide([PricesLive, AuthenticatedLive, RpcServer.layerProtocolSocketServer]),
    Layer.provide(RpcSerialization.layerNdjson),
    Layer.provideMerge(
      NodeSecureSocketServer.layer({ port, authorize: PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/web")) })
    )
  )

/** Connects again by itself when the connection has ended; a stream that was open then fails with `RpcClientError`. */
const ClientLive = (address: { readonly host: string; readonly port: number }) =>
  RpcClient.layerProtocolSocket().pipe(
    Layer.provide(SecureSocket.layerSocket({ peer: "spiffe://example.org/prices", ...address })),
    Layer.provide(RpcSerialization.layerNdjson)
  )

export const watch = (address: { readonly host: string; readonly port: number }, symbol: string) =>
  Stream.unwrapScoped(Effect.map(RpcClient.make(Prices), (prices) => prices.Watch({ symbol }))).pipe(
    Stream.provideSomeLayer(ClientLive(address))
  )
