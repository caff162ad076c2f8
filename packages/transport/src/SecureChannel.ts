/**
 * A verified HTTP channel to one named peer.
 *
 * @since 0.1.0
 */
import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import type { InvalidSpiffeIdError } from "@agentweave/spiffe/InvalidSpiffeIdError"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import type * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import type { HttpMethod } from "@effect/platform/HttpMethod"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { Connector, type ExchangeError } from "./Connector.js"
import { InvalidConfigError } from "./InvalidConfigError.js"
import * as internal from "./internal/channel.js"
import { decoder } from "./internal/config.js"
import { execute } from "./internal/http/exchange.js"
import { toHttpClientError } from "./internal/http/httpError.js"
import { absolute, type BaseUrl, parseBase, resolve } from "./internal/http/url.js"
import { matcherOf } from "./internal/peer.js"
import * as Pool from "./internal/pool/pool.js"
import { Policy } from "./internal/retry/policy.js"
import * as TransportConfig from "./TransportConfig.js"
import { ScopeClosedError, TimeoutError } from "./TransportError.js"

/**
 * Marks a `SecureChannel`.
 *
 * @since 0.1.0
 * @category symbols
 */
export const TypeId: typeof internal.TypeId = internal.TypeId

/**
 * Marks a `SecureChannel`.
 *
 * @since 0.1.0
 * @category symbols
 */
export type TypeId = typeof TypeId

/**
 * An `HttpClient` whose every connection is mutual TLS to exactly `peerSpiffeId`, or to a peer that the matcher of its
 * options accepts. Its life is a `Scope`.
 *
 * @since 0.1.0
 * @category models
 */
export interface SecureChannel<out Peer extends SpiffeId.SpiffeId | undefined = SpiffeId.SpiffeId>
  extends HttpClient.HttpClient.With<ExchangeError> {
  readonly [TypeId]: TypeId
  /** The peer. `undefined` for a channel of its own whose matcher accepts more than one. */
  readonly peerSpiffeId: Peer
  /** Our own SPIFFE ID; it can rotate, so it is read when asked for. */
  readonly mySpiffeId: Effect.Effect<SpiffeId.SpiffeId, IdentityError>
  readonly request: (
    method: HttpMethod,
    url: string | URL,
    options?: HttpClientRequest.Options.NoUrl
  ) => Effect.Effect<HttpClientResponse, ExchangeError>
}

/**
 * Options of a channel. `peer` is required; the rest have defaults.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options<out Peer extends string | PeerMatcher.PeerMatcher = string> {
  /** The SPIFFE ID that must be at the other end of every connection, or a matcher that accepts it. */
  readonly peer: Peer
  /**
   * The URL that relative URLs are appended to, and the only origin this channel talks to. Without it a request names an
   * absolute `https:` URL; the peer's identity is required wherever that leads.
   */
  readonly baseUrl?: string | URL | undefined
  readonly config?: TransportConfig.Options | undefined
}

type AnyPeer = string | PeerMatcher.PeerMatcher

/**
 * The ID of the peer that options name: one with a SPIFFE ID, perhaps none with a matcher.
 *
 * @since 0.1.0
 * @category models
 */
export type PeerIdOf<Peer> = Peer extends string ? SpiffeId.SpiffeId : SpiffeId.SpiffeId | undefined

/** A text was made the matcher of exactly one ID. */
const peerIdOf = <Peer>(matcher: PeerMatcher.PeerMatcher): PeerIdOf<Peer> =>
  (matcher._tag === "Exactly" ? matcher.id : undefined) as PeerIdOf<Peer>

/** The fields are read one by one. */
const decode = decoder(
  "SecureChannel",
  Schema.Struct({
    peer: Schema.Unknown,
    baseUrl: Schema.optional(Schema.Unknown),
    config: Schema.optional(Schema.Unknown)
  })
)

const base = (url: string | URL | undefined): Either.Either<BaseUrl | undefined, InvalidConfigError> =>
  url === undefined
    ? Either.right(undefined)
    : Either.mapLeft(
        parseBase(url),
        (description) => new InvalidConfigError({ config: "SecureChannel", field: "baseUrl", description })
      )

/**
 * A channel of its own, with up to `config.connections` connections to an origin. They are opened when requests need
 * them. A request that finds all of them in use waits its turn, first come first, for at most `config.timeout`; then it
 * fails with `TimeoutError` (phase `Acquire`, outcome `NotSent`).
 *
 * When the scope ends no request starts any more (`ScopeClosedError`, reason `Channel`), requests in flight fail, and all
 * connections are closed. The same happens, with reason `Connector`, when the scope of the `Connector`'s layer ends: provide
 * that layer around the whole use of the channel. Redirects are not followed; with a base URL `HttpClient.followRedirects`
 * follows them within its origin only.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { SecureChannel } from "@agentweave/transport"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const channel = yield* SecureChannel.make({
 *     peer: "spiffe://example.org/billing",
 *     baseUrl: "https://billing.internal:8443",
 *     config: { timeout: "5 seconds" }
 *   })
 *   const response = yield* channel.get("/invoices/42")
 *   return yield* response.json
 * })
 * ```
 */
export const make: <Peer extends AnyPeer>(
  options: Options<Peer>
) => Effect.Effect<
  SecureChannel<PeerIdOf<Peer>>,
  InvalidSpiffeIdError | InvalidConfigError,
  Scope.Scope | IdentityProvider | Connector
> = Effect.fnUntraced(function* <Peer extends AnyPeer>(options: Options<Peer>) {
  yield* decode(options)
  const matcher = yield* matcherOf(options.peer)
  const peer = PeerMatcher.describe(matcher)
  const own = yield* base(options.baseUrl)
  const config = yield* TransportConfig.make(options.config ?? {})
  const identity = yield* IdentityProvider
  const connector = yield* Connector
  const pool: Pool.Pool<ExchangeError> = yield* Pool.make<ExchangeError>({
    limits: {
      maxPerTarget: config.connections,
      maxTotal: Number.POSITIVE_INFINITY,
      maxWaiting: Number.POSITIVE_INFINITY
    },
    acquireTimeout: Duration.toMillis(config.timeout),
    idleTimeout: Number.POSITIVE_INFINITY,
    maxLifetime: Number.POSITIVE_INFINITY,
    leakThreshold: Number.POSITIVE_INFINITY,
    wireTimeout: Duration.toMillis(config.connectTimeout),
    address: (origin) => Either.getOrElse(Either.map(parseBase(origin), Effect.succeed), Effect.dieMessage),
    connect: (_origin, { host, port }, onClose) => connector.connect({ matcher, host, port, config, onClose }),
    exhausted: (origin) =>
      new TimeoutError({
        phase: "Acquire",
        outcome: "NotSent",
        limit: config.timeout,
        target: `${peer} at ${origin}`,
        description: `all ${config.connections} connections of the channel to ${peer} are in use: ${pool.uses(origin)}`
      }),
    closed: (origin) => new ScopeClosedError({ reason: "Channel", target: `${peer} at ${origin}` })
  })
  // A channel with a base URL has one origin.
  const ownSource = own && pool.sourceOf(own.origin)
  const once: SecureChannel["execute"] = (request) => {
    const target = resolve(own, request)
    if (Either.isLeft(target)) return Effect.fail(target.left)
    const { base, path } = target.right
    // The pool knows the origin only: with the base's path the request's URL is made here.
    const named = base.prefix === "" ? request : HttpClientRequest.setUrl(request, absolute(base, request.url))
    return execute(ownSource ?? pool.sourceOf(base.origin), named, path)
  }
  const policy = config.retry === undefined ? undefined : new Policy<"Timeout">(config.retry, undefined, undefined)
  return internal.make({
    peer: peerIdOf<Peer>(matcher),
    mySpiffeId: Effect.map(identity.x509Context, ({ svid }) => svid.spiffeId),
    execute: policy === undefined ? once : (request) => policy.retryRequest(once(request), request)
  })
})

/**
 * A channel as a service of its own tag: an application has as many as it has peers.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { SecureChannel } from "@agentweave/transport"
 * import { Context, Effect } from "effect"
 *
 * class Billing extends Context.Tag("app/Billing")<Billing, SecureChannel.SecureChannel>() {}
 *
 * const BillingLive = SecureChannel.layer(Billing, {
 *   peer: "spiffe://example.org/billing",
 *   baseUrl: "https://billing.internal:8443"
 * })
 *
 * const invoice = Effect.flatMap(Billing, (billing) => billing.get("/invoices/42"))
 * ```
 */
export const layer = <I, Peer extends AnyPeer>(
  tag: Context.Tag<I, SecureChannel<PeerIdOf<Peer>>>,
  options: Options<Peer>
): Layer.Layer<I, InvalidSpiffeIdError | InvalidConfigError, IdentityProvider | Connector> =>
  Layer.scoped(tag, make(options))

/**
 * {@link layer} with options from `Config`. A peer by policy is a `Config` of a matcher, as one made of a list of IDs.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { SecureChannel, TransportConfig } from "@agentweave/transport"
 * import { Config, Context } from "effect"
 *
 * class Billing extends Context.Tag("app/Billing")<Billing, SecureChannel.SecureChannel>() {}
 *
 * const BillingLive = SecureChannel.layerConfig(Billing, {
 *   peer: Config.string("BILLING_ID"),
 *   baseUrl: Config.string("BILLING_URL"),
 *   config: Config.nested(TransportConfig.config, "BILLING")
 * })
 * ```
 */
export const layerConfig = <I, Peer extends AnyPeer = string>(
  tag: Context.Tag<I, SecureChannel<PeerIdOf<Peer>>>,
  options: Config.Config.Wrap<Options<Peer>>
): Layer.Layer<I, ConfigError | InvalidSpiffeIdError | InvalidConfigError, IdentityProvider | Connector> =>
  Layer.scoped(
    tag,
    Effect.flatMap(Config.unwrap(options), (read: Options<Peer>) => make(read))
  )

/**
 * A channel as *the* `HttpClient.HttpClient`, for programs that know one peer only and libraries that ask for nothing
 * but a client. What is not an `HttpClientError` already becomes a `RequestError` with the typed error as its cause. Its
 * reason is `Transport` for a `ConnectionError` or a `TimeoutError`, so that `HttpClient.retryTransient` retries these and
 * nothing else; `InvalidUrl` when somebody else than the peer is at the URL (`PeerVerificationError`); `Encode` when the
 * request cannot be made on this side (`IdentityError`, `AuditError`).
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { SecureChannel } from "@agentweave/transport"
 * import { HttpClient } from "@effect/platform"
 * import { Effect } from "effect"
 *
 * const BillingHttp = SecureChannel.layerHttpClient({
 *   peer: "spiffe://example.org/billing",
 *   baseUrl: "https://billing.internal:8443"
 * })
 *
 * const invoice = HttpClient.get("/invoices/42").pipe(Effect.provide(BillingHttp))
 * ```
 */
export const layerHttpClient = (
  options: Options<AnyPeer>
): Layer.Layer<HttpClient.HttpClient, InvalidSpiffeIdError | InvalidConfigError, IdentityProvider | Connector> =>
  Layer.scoped(
    HttpClient.HttpClient,
    Effect.map(make(options), (channel) =>
      internal.makeClient((request) =>
        Effect.mapError(channel.execute(request), (error) => toHttpClientError(request, error))
      )
    )
  )
