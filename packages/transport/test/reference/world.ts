import { DevAuthority, TestConnector, type TestMessage } from "@agentweave/testkit"
import {
  type AuditEvent,
  AuditLog,
  ConnectionPool,
  IdentityProvider,
  PeerDirectory,
  SecureChannel,
  SpiffeId
} from "@agentweave/transport"
import { HttpServerResponse } from "@effect/platform"
import { expect } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"

export const peer = SpiffeId.make("spiffe://example.com/service")
export const other = SpiffeId.make("spiffe://example.com/other")
export const me = SpiffeId.make("spiffe://example.com/me")

/** The answer of a peer to a request: its method, its path and its body. */
const echo = ({ path, request, text }: TestMessage.TestRequest) =>
  Effect.map(text, (body) =>
    HttpServerResponse.text(`${request.method} ${path} ${body}`.trimEnd(), { headers: request.headers })
  )

/** A network with two peers, an identity, and what was put on record. */
export const world = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.com" })
  const network = yield* TestConnector.make({ handler: (request) => Effect.orDie(echo(request)) })
  const events: Array<AuditEvent.AuditEvent> = []
  const identity = IdentityProvider.layerStatic(yield* authority.context({ path: "/me" }))
  const directory = PeerDirectory.layerStatic({ [peer]: "https://service.test", [other]: "https://other.test" })
  const services = yield* Layer.build(
    Layer.mergeAll(network.layer, directory).pipe(
      Layer.provideMerge(Layer.merge(identity, AuditLog.layerMemory(events)))
    )
  )
  return {
    authority,
    network,
    events,
    services,
    channel: (options: Partial<SecureChannel.Options> = {}) =>
      Effect.provide(SecureChannel.make({ peer, baseUrl: "https://service.test", ...options }), services),
    pool: (options: ConnectionPool.Options = {}) =>
      Effect.map(Layer.build(Layer.provide(ConnectionPool.layer(options), Layer.succeedContext(services))), (context) =>
        Context.get(context, ConnectionPool.ConnectionPool)
      )
  }
})

/** An effect that has to give this value. */
export const gives = <A, E, R>(effect: Effect.Effect<A, E, R>, value: unknown): Effect.Effect<void, E, R> =>
  Effect.map(effect, (result) => expect(result).toEqual(value))

/** An effect that has to fail with an error of these fields. */
export const fails = <A, E, R>(effect: Effect.Effect<A, E, R>, error: object): Effect.Effect<void, A, R> =>
  Effect.map(Effect.flip(effect), (failure) => expect(failure).toMatchObject(error))

/** A configuration that has to be refused for this field. */
export const refuses = <A, E, R>(made: Effect.Effect<A, E, R>, config: string, field: string) =>
  fails(made, { _tag: "InvalidConfigError", config, field })

/** Values of JSON as options of a typed constructor: values that its type would not let through. */
export const untyped = <A>(text: string): A => JSON.parse(text)
