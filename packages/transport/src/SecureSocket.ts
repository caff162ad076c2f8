/**
 * Bytes to one named peer, for every protocol that is not HTTP: a verified connection as a `Socket` of `@effect/platform`.
 *
 * @since 0.1.0
 */
import type { InvalidSpiffeIdError } from "@agentweave/spiffe/InvalidSpiffeIdError"
import type * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import type { VerifiedPeer } from "@agentweave/spiffe/PeerVerifier"
import type { SpiffeId } from "@agentweave/spiffe/SpiffeId"
import * as Socket from "@effect/platform/Socket"
import * as Channel from "effect/Channel"
import type * as Chunk from "effect/Chunk"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { AuditError } from "./AuditLog.js"
import { type ConnectOptions, Connector, type StreamConnection } from "./Connector.js"
import type { InvalidConfigError } from "./InvalidConfigError.js"
import { fromOpen, fromOpening, socketError } from "./internal/byteSocket.js"
import { decoder, NumberIn, Text } from "./internal/config.js"
import { matcherOf } from "./internal/peer.js"
import * as TransportConfig from "./TransportConfig.js"
import type { TransportError } from "./TransportError.js"

/**
 * Marks a `SecureSocket`.
 *
 * @since 0.1.0
 * @category symbols
 */
export const TypeId: unique symbol = Symbol.for("@agentweave/transport/SecureSocket")

/**
 * Marks a `SecureSocket`.
 *
 * @since 0.1.0
 * @category symbols
 */
export type TypeId = typeof TypeId

/**
 * A socket over one connection that is open, and what is known of it.
 *
 * @since 0.1.0
 * @category models
 */
export interface SecureSocket extends Socket.Socket {
  readonly [TypeId]: TypeId
  /** The audit log's `connectionId`. */
  readonly connectionId: string
  readonly peer: VerifiedPeer
  /** Our own SPIFFE ID on this connection. */
  readonly mySpiffeId: SpiffeId
  /** The application protocol that was agreed on (ALPN); `undefined` where none was offered. */
  readonly protocol: string | undefined
}

/**
 * Options of a socket. `peer` is required; the rest have defaults.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The SPIFFE ID that must be at the other end, or a matcher that accepts it. */
  readonly peer: string | PeerMatcher.PeerMatcher
  /** Host name or IP address (IPv6 without brackets). */
  readonly host: string
  readonly port: number
  /**
   * The application protocols to offer, the preferred one first (ALPN, RFC 7301): `["h2"]` for HTTP/2. A server that agrees to
   * none of them is refused (`ConnectionError`, reason `Negotiation`); one that names none speaks `http/1.1`. Default: none is offered, and none is needed.
   */
  readonly protocols?: ReadonlyArray<string> | undefined
  /** `connectTimeout`, `maxConnectionAge`, `tlsMinVersion` and `tlsMaxVersion` hold for sockets; the rest is of requests. */
  readonly config?: TransportConfig.Options | undefined
}

const decode = decoder(
  "SecureSocket",
  Schema.Struct({
    peer: Schema.Unknown,
    host: Text,
    port: NumberIn(1, 65_535),
    protocols: Schema.optionalWith(Schema.Array(Text), { default: () => [] }),
    config: Schema.optional(Schema.Unknown)
  })
)

type OptionsError = InvalidSpiffeIdError | InvalidConfigError

/**
 * Reads options into those of `Connector.connectStream`, for authors of transports.
 *
 * @since 0.1.0
 * @category conversions
 */
export const toConnectOptions = (options: Options): Either.Either<ConnectOptions, OptionsError> =>
  Either.gen(function* () {
    const { host, port, protocols } = yield* decode(options)
    const matcher = yield* matcherOf(options.peer)
    const config = yield* TransportConfig.make(options.config ?? {})
    return { matcher, host, port, protocols, config, onClose: () => {} }
  })

/**
 * The socket of a connection that is open, for authors of transports.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Connector, SecureSocket } from "@agentweave/transport"
 * import { Effect } from "effect"
 *
 * const open = (options: SecureSocket.Options) =>
 *   Effect.gen(function* () {
 *     const connector = yield* Connector.Connector
 *     const connection = yield* connector.connectStream(yield* SecureSocket.toConnectOptions(options))
 *     return yield* SecureSocket.fromConnection(connection)
 *   })
 * ```
 */
export const fromConnection = (connection: StreamConnection): Effect.Effect<SecureSocket> =>
  Effect.map(fromOpen(connection), (socket) => ({
    ...socket,
    [TypeId]: TypeId,
    connectionId: connection.id,
    peer: connection.peer,
    mySpiffeId: connection.ownId,
    protocol: connection.protocol
  }))

/**
 * Whether a value is a `SecureSocket`.
 *
 * @since 0.1.0
 * @category guards
 */
export const isSecureSocket = (value: unknown): value is SecureSocket => Predicate.hasProperty(value, TypeId)

/**
 * Opens one connection, verifies its peer, and gives its socket. It is for programs that want the typed error of the attempt,
 * or to know the peer; what asks for a `Socket` and connects again takes {@link make}.
 *
 * The connection ends with the scope, after what was written is sent, for which it has a second. It ends at once, whatever
 * is under way, before a certificate on it expires, at `maxConnectionAge`, and when the peer's authority or our own identity
 * is not trusted any more: `run` and writes then fail with a `SocketError` whose cause is a `ConnectionError` (reason
 * `Lost`). The peer's end is the end of `run`; the socket can still be written to. Whoever controls the network can
 * pretend that end, so that a protocol must know by itself when a message is whole.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { SecureSocket } from "@agentweave/transport"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const socket = yield* SecureSocket.connect({ peer: "spiffe://example.org/cache", host: "cache.internal", port: 6380 })
 *   const write = yield* socket.writer
 *   yield* write("PING\r\n")
 *   yield* socket.run((bytes) => Effect.log(new TextDecoder().decode(bytes)))
 * }).pipe(Effect.scoped)
 * ```
 */
export const connect = (
  options: Options
): Effect.Effect<SecureSocket, TransportError | AuditError | OptionsError, Connector | Scope.Scope> =>
  Effect.flatMap(toConnectOptions(options), (to) =>
    Effect.flatMap(Connector, (connector) => Effect.flatMap(connector.connectStream(to), fromConnection))
  )

/**
 * A `Socket` that opens a connection each time it is run, as those of `@effect/platform-node` do, and ends it with the run.
 * A failure of {@link connect} is the cause of a `SocketError` with reason `Open`. Writes wait while no run is open.
 *
 * While the handlers of a run are busy with more than 64 KiB, no more is read of the peer. A write is done when its bytes
 * were handed to the operating system.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { SecureSocket } from "@agentweave/transport"
 * import { Socket } from "@effect/platform"
 * import { Effect, Stream } from "effect"
 *
 * const lines = Effect.gen(function* () {
 *   const socket = yield* SecureSocket.make({ peer: "spiffe://example.org/feed", host: "feed.internal", port: 7000 })
 *   return Stream.never.pipe(Stream.pipeThroughChannel(Socket.toChannel(socket)), Stream.decodeText(), Stream.splitLines)
 * })
 * ```
 */
export const make = (options: Options): Effect.Effect<Socket.Socket, OptionsError, Connector> =>
  Effect.flatMap(toConnectOptions(options), (to) =>
    Effect.map(Connector, (connector) =>
      fromOpening(Effect.mapError(connector.connectStream(to), (error) => socketError("Open", error)))
    )
  )

/**
 * {@link make} as a `Channel`: what goes in is written, what comes is what the peer sent.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { SecureSocket } from "@agentweave/transport"
 * import { Stream } from "effect"
 *
 * const lines = Stream.make(new TextEncoder().encode("SUBSCRIBE prices\r\n")).pipe(
 *   Stream.pipeThroughChannel(
 *     SecureSocket.makeChannel({ peer: "spiffe://example.org/feed", host: "feed.internal", port: 7000 })
 *   ),
 *   Stream.decodeText(),
 *   Stream.splitLines
 * )
 * ```
 */
export const makeChannel = <IE = never>(
  options: Options
): Channel.Channel<
  Chunk.Chunk<Uint8Array>,
  Chunk.Chunk<Uint8Array | string | Socket.CloseEvent>,
  Socket.SocketError | OptionsError | IE,
  IE,
  void,
  unknown,
  Connector
> => Channel.unwrap(Effect.map(make(options), Socket.toChannelWith<IE>()))

/**
 * A socket as a service of its own tag: an application has as many as it has peers.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { SecureSocket } from "@agentweave/transport"
 * import type { Socket } from "@effect/platform"
 * import { Context } from "effect"
 *
 * class Feed extends Context.Tag("app/Feed")<Feed, Socket.Socket>() {}
 *
 * const FeedLive = SecureSocket.layer(Feed, { peer: "spiffe://example.org/feed", host: "feed.internal", port: 7000 })
 * ```
 */
export const layer = <I>(
  tag: Context.Tag<I, Socket.Socket>,
  options: Options
): Layer.Layer<I, OptionsError, Connector> => Layer.effect(tag, make(options))

/**
 * {@link layer} with options from `Config`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { SecureSocket } from "@agentweave/transport"
 * import type { Socket } from "@effect/platform"
 * import { Config, Context } from "effect"
 *
 * class Feed extends Context.Tag("app/Feed")<Feed, Socket.Socket>() {}
 *
 * const FeedLive = SecureSocket.layerConfig(Feed, {
 *   peer: Config.string("FEED_ID"),
 *   host: Config.string("FEED_HOST"),
 *   port: Config.integer("FEED_PORT")
 * })
 * ```
 */
export const layerConfig = <I>(
  tag: Context.Tag<I, Socket.Socket>,
  options: Config.Config.Wrap<Options>
): Layer.Layer<I, ConfigError | OptionsError, Connector> =>
  Layer.effect(
    tag,
    Effect.flatMap(Config.unwrap(options), (read: Options) => make(read))
  )

/**
 * A socket as *the* `Socket.Socket`, for libraries that ask for nothing but a socket: `RpcClient.layerProtocolSocket`, or
 * everything that takes `NodeSocket.layerNet` without TLS.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { SecureSocket } from "@agentweave/transport"
 *
 * const SocketLive = SecureSocket.layerSocket({ peer: "spiffe://example.org/rpc", host: "rpc.internal", port: 9000 })
 * ```
 */
export const layerSocket = (options: Options): Layer.Layer<Socket.Socket, OptionsError, Connector> =>
  layer(Socket.Socket, options)
