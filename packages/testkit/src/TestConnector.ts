/**
 * Connections in memory: a `Connector` whose peers are handlers of a test. No socket, no thread, all of it on the test's
 * clock.
 *
 * @since 0.1.0
 */
import {
  type IdentityProvider,
  type InvalidConfigError,
  OptionsDecoder,
  PeerMatcher,
  SpiffeId
} from "@agentweave/spiffe"
import { makeRunFork } from "@agentweave/spiffe/Background"
import { type AuditEvent, type AuditLog, type Connector, TransportError } from "@agentweave/transport"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { Credentials } from "./Credentials.js"
import { end, type Link, layer, type Network } from "./internal/network/network.js"
import type { Handler, StreamHandler } from "./TestMessage.js"

/**
 * One connection that was established, open or closed.
 *
 * @since 0.1.0
 * @category models
 */
export interface TestConnection {
  /** The audit log's `connectionId`. */
  readonly id: string
  /** `host:port`. */
  readonly address: string
  readonly peer: SpiffeId.SpiffeId
  readonly ownId: SpiffeId.SpiffeId
  /** Milliseconds since the epoch, from Effect's `Clock`. */
  readonly openedAt: number
  /** Why and when it ended; `undefined` while it is open. */
  readonly closed: { readonly at: number; readonly reason: AuditEvent.CloseReason } | undefined
  /** Requests started on it. */
  readonly requests: number
}

/**
 * The outcome of opening a connection: the peer that is there, or why nobody can be reached. It may take its time, on
 * Effect's `Clock`.
 *
 * @since 0.1.0
 * @category models
 */
export type OnConnect<R = never> = (
  options: Connector.ConnectOptions
) => Effect.Effect<Answerer, TransportError.TransportError, R>

/**
 * The peer that answers, with a certificate of the authority that the client trusts: an ID, with the instant at which its certificate
 * expires (milliseconds since the epoch, default never). What a connector over sockets refuses is refused here: an ID that
 * the client does not accept with `PeerVerificationError` `UnexpectedPeer`, a certificate that has ended with `Expired`.
 *
 * With `credentials` it presents these certificates instead, right or wrong, and the gate judges them.
 *
 * @since 0.1.0
 * @category models
 */
export type Answerer = (
  | {
      readonly spiffeId: SpiffeId.SpiffeId
      readonly notAfter?: number | undefined
      readonly credentials?: undefined
    }
  | { readonly credentials: Credentials }
) & {
  /** Whether it asks for our certificate; one that does not is refused (`NotMutual`). Default true. */
  readonly asksForCertificate?: boolean | undefined
  /**
   * Which clients it serves: any other is told, as a secure server tells it, that it is not authorised (`IdentityError`,
   * `LocalCertificateRefused`). Default all.
   */
  readonly authorize?: PeerMatcher.PeerMatcher | undefined
}

/**
 * A connector over a network in memory, and the controls of what it meets there.
 *
 * @since 0.1.0
 * @category models
 */
export interface TestConnector {
  /**
   * The connector, with the needs of a real one: own SVID and bundles are judged as they would be, and every connection
   * and request leaves its audit events. It may be built several times, all of it is this one network. As with a real
   * one, the end of its scope closes the connections made through it, and none is opened any more (`ScopeClosedError`).
   */
  readonly layer: Layer.Layer<Connector.Connector, never, IdentityProvider.IdentityProvider | AuditLog.AuditLog>
  /** Sets the peer that answers requests from now on, on live connections too. */
  readonly setHandler: <R>(handler: Handler<R>) => Effect.Effect<void, never, R>
  /** Sets the other end of streams opened from now on (`SecureSocket`). Default: it reads until the client has ended. */
  readonly setStreamHandler: <R>(handler: StreamHandler<R>) => Effect.Effect<void, never, R>
  /** Sets the outcome of connections opened from now on. */
  readonly setOnConnect: <R>(onConnect: OnConnect<R>) => Effect.Effect<void, never, R>
  /** How many connections were asked for, also those that never came to be. */
  readonly attempts: Effect.Effect<number>
  /** Every connection ever established, in order. */
  readonly connections: Effect.Effect<ReadonlyArray<TestConnection>>
  /** How many connections are open now. */
  readonly open: Effect.Effect<number>
  /** The peers close every connection, or those `which` picks. What is in flight fails: its outcome is unknown. */
  readonly closeAll: (which?: (connection: TestConnection) => boolean) => Effect.Effect<void>
}

const describe = ({ closed, connection, openedAt }: Link): TestConnection => ({
  id: connection.id,
  address: connection.address,
  peer: connection.peer.spiffeId,
  ownId: connection.ownId,
  openedAt,
  closed,
  requests: connection.requests
})

/** Workloads that the matcher may accept: those it names, and one of each of its trust domains. */
const acceptable = (matcher: PeerMatcher.PeerMatcher): ReadonlyArray<SpiffeId.SpiffeId> =>
  [
    ...PeerMatcher.ids(matcher),
    ...Array.from(PeerMatcher.trustDomains(matcher), (domain) => SpiffeId.make(`spiffe://${domain}/peer`))
  ].filter((id) => PeerMatcher.matches(matcher, id))

/**
 * The peer that was asked for is there: the default of {@link make}.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { TestConnector } from "@agentweave/testkit"
 *
 * // Billing is down, everybody else is there.
 * const unreachable = TestConnector.unreachable("Refused")
 * const network = TestConnector.make({
 *   onConnect: (options) => (options.host === "billing.internal" ? unreachable(options) : TestConnector.reachable(options))
 * })
 * ```
 */
export const reachable: OnConnect = ({ matcher }) => {
  const [spiffeId] = acceptable(matcher)
  return spiffeId === undefined
    ? Effect.dieMessage(`expected a matcher some ID passes, got ${PeerMatcher.describe(matcher)}`)
    : Effect.succeed({ spiffeId })
}

/**
 * Somebody else is there, whoever was asked for.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { SpiffeId } from "@agentweave/spiffe"
 * import { TestConnector } from "@agentweave/testkit"
 *
 * // Every attempt fails with a PeerVerificationError.
 * const network = TestConnector.make({
 *   onConnect: TestConnector.impostor(SpiffeId.make("spiffe://example.org/mallory"))
 * })
 * ```
 */
export const impostor =
  (spiffeId: SpiffeId.SpiffeId): OnConnect =>
  () =>
    Effect.succeed({ spiffeId })

/**
 * The connection fails with a `ConnectionError` of this reason, and nothing was sent.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { TestConnector } from "@agentweave/testkit"
 *
 * const network = TestConnector.make({ onConnect: TestConnector.unreachable("Refused") })
 * ```
 */
export const unreachable =
  (reason: TransportError.ConnectionErrorReason = "Refused"): OnConnect =>
  ({ host, port }) =>
    Effect.fail(
      new TransportError.ConnectionError({
        reason,
        outcome: "NotSent",
        address: `${host}:${port}`,
        description: "as the test has it"
      })
    )

const decodeOptions = OptionsDecoder.decoder(
  "TestConnector",
  Schema.Struct({
    handler: Schema.optional(OptionsDecoder.FunctionOf<Handler<unknown>>()),
    onConnect: Schema.optional(OptionsDecoder.FunctionOf<OnConnect<unknown>>()),
    streamHandler: Schema.optional(OptionsDecoder.FunctionOf<StreamHandler<unknown>>())
  })
)

/**
 * A network of its own, where every peer is reachable and answers with 204 until told otherwise. When the scope closes,
 * handlers in flight are interrupted, every connection is closed, and none is opened any more. Fails with an
 * `InvalidConfigError` for an option that is no function, or whose name is not known.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { DevAuthority, TestConnector } from "@agentweave/testkit"
 * import { AuditLog, SecureChannel } from "@agentweave/transport"
 * import { HttpServerResponse } from "@effect/platform"
 * import { Effect, Layer } from "effect"
 *
 * const test = Effect.gen(function* () {
 *   const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
 *   const network = yield* TestConnector.make({
 *     handler: ({ caller, path }) => Effect.succeed(HttpServerResponse.text(`${path} for ${caller.spiffeId}`))
 *   })
 *   const services = network.layer.pipe(
 *     Layer.provideMerge(DevAuthority.layerIdentity(authority, { path: "/api" })),
 *     Layer.provide(AuditLog.layerMemory([]))
 *   )
 *   // Around all of the use: the end of `services` closes their connections.
 *   yield* Effect.gen(function* () {
 *     const billing = yield* SecureChannel.make({
 *       peer: "spiffe://example.org/billing",
 *       baseUrl: "https://billing.internal"
 *     })
 *     const response = yield* billing.get("/invoices")
 *     console.log(yield* response.text) // /invoices for spiffe://example.org/api
 *   }).pipe(Effect.provide(services))
 * }).pipe(Effect.scoped)
 * ```
 */
export const make = Effect.fnUntraced(function* <R1 = never, R2 = never, R3 = never>(
  options: {
    readonly handler?: Handler<R1> | undefined
    readonly onConnect?: OnConnect<R2> | undefined
    readonly streamHandler?: StreamHandler<R3> | undefined
  } = {}
): Effect.fn.Return<TestConnector, InvalidConfigError.InvalidConfigError, R1 | R2 | R3 | Scope.Scope> {
  yield* decodeOptions(options)
  const clock = yield* Effect.clock
  const network: Network = {
    run: yield* makeRunFork,
    now: () => clock.unsafeCurrentTimeMillis(),
    handler: () => Effect.succeed(HttpServerResponse.empty()),
    streamHandler: (socket) => socket.run(() => {}),
    onConnect: reachable,
    attempts: 0,
    links: [],
    end: yield* Deferred.make<void>()
  }
  // After the fibers in this scope, so that it runs before they are interrupted.
  yield* Effect.addFinalizer(() => end(network))
  const setHandler: TestConnector["setHandler"] = <R>(handler: Handler<R>) =>
    Effect.map(Effect.context<R>(), (context) => {
      network.handler = (request) => Effect.provide(handler(request), context)
    })
  const setStreamHandler: TestConnector["setStreamHandler"] = <R>(handler: StreamHandler<R>) =>
    Effect.map(Effect.context<R>(), (context) => {
      network.streamHandler = (socket) => Effect.provide(handler(socket), context)
    })
  const setOnConnect: TestConnector["setOnConnect"] = <R>(onConnect: OnConnect<R>) =>
    Effect.map(Effect.context<R>(), (context) => {
      network.onConnect = (connect) => Effect.provide(onConnect(connect), context)
    })
  if (options.handler !== undefined) yield* setHandler(options.handler)
  if (options.streamHandler !== undefined) yield* setStreamHandler(options.streamHandler)
  if (options.onConnect !== undefined) yield* setOnConnect(options.onConnect)

  const connections = Effect.sync(() => network.links.map(describe))
  return {
    layer: layer(network),
    setHandler,
    setStreamHandler,
    setOnConnect,
    attempts: Effect.sync(() => network.attempts),
    connections,
    open: Effect.map(connections, (all) => all.filter(({ closed }) => closed === undefined).length),
    closeAll: (which = () => true) =>
      Effect.sync(() => {
        for (const { leave } of network.links.filter((link) => which(describe(link)))) leave()
      })
  }
})
