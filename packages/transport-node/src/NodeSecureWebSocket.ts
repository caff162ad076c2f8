/**
 * WebSockets over verified connections, with the `ws` library.
 *
 * @since 0.1.0
 */
import type { InvalidSpiffeIdError } from "@agentweave/spiffe/InvalidSpiffeIdError"
import { decoder, Text } from "@agentweave/spiffe/OptionsDecoder"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import type { Connector } from "@agentweave/transport/Connector"
import { InvalidConfigError } from "@agentweave/transport/InvalidConfigError"
import * as SecureSocket from "@agentweave/transport/SecureSocket"
import type * as TransportConfig from "@agentweave/transport/TransportConfig"
import { hostOf } from "@agentweave/transport/Wire"
import * as Socket from "@effect/platform/Socket"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Opener from "./internal/socket/opener.js"
import { portOf } from "./internal/socket/urlPort.js"
import { constructorOver, unwrapped } from "./internal/socket/webSocket.js"

/**
 * Which WebSocket to open, and the peer that must be at its other end.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The SPIFFE ID that must be at the other end of every connection, or a matcher that accepts it. */
  readonly peer: string | PeerMatcher.PeerMatcher
  /**
   * The URL of the WebSocket, as `wss://feed.internal/prices`. A plaintext URL is refused. A WebSocket to another origin is not
   * opened: it fails with `ConnectionError` (reason `NoAddress`).
   */
  readonly url: string
  /** `connectTimeout`, `maxConnectionAge`, `tlsMinVersion` and `tlsMaxVersion` hold; the rest is of channels. */
  readonly config?: TransportConfig.Options | undefined
}

const decode = decoder(
  "NodeSecureWebSocket",
  Schema.Struct({ peer: Schema.Unknown, url: Text, config: Schema.optional(Schema.Unknown) })
)

const readUrl = (text: string): Either.Either<URL, InvalidConfigError> => {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url?.protocol === "wss:" && url.username === "" && url.password === "") return Either.right(url)
  const description = `expected a wss: URL such as "wss://feed.internal/prices", got ${JSON.stringify(text)}`
  return Either.left(new InvalidConfigError({ config: "NodeSecureWebSocket", field: "url", description }))
}

const read = (options: Options) =>
  Either.gen(function* () {
    const { url: text } = yield* decode(options)
    const url = yield* readUrl(text)
    const { config, peer } = options
    const address = { host: hostOf(url.hostname), port: portOf(url) }
    const to = yield* SecureSocket.toConnectOptions({ peer, config, ...address, protocols: ["http/1.1"] })
    return { to, url }
  })

/**
 * The constructor of WebSockets, for libraries of Effect that ask for it. Each WebSocket is a verified connection of its own: mutual TLS, the
 * peer's SPIFFE ID matched before a byte is written. It is on record from its start to its end, the request that opens it too, under
 * supervision, and ends with its credentials, with the `ConnectionError` that says why as the `error` of its error event. A server that answers
 * otherwise than with a WebSocket (RFC 6455 section 4.1), also with a redirect, is an error. All end with the scope. Messages
 * are not compressed.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { NodeSecureWebSocket } from "@agentweave/transport-node"
 * import { Socket } from "@effect/platform"
 * import { Layer } from "effect"
 *
 * const Prices = Socket.layerWebSocket("wss://feed.internal/prices").pipe(
 *   Layer.provide(
 *     NodeSecureWebSocket.layerConstructor({ peer: "spiffe://example.org/feed", url: "wss://feed.internal/prices" })
 *   )
 * )
 * ```
 */
export const layerConstructor = (
  options: Options
): Layer.Layer<Socket.WebSocketConstructor, InvalidSpiffeIdError | InvalidConfigError, Connector> =>
  Layer.scoped(
    Socket.WebSocketConstructor,
    Effect.gen(function* () {
      const { to, url } = yield* read(options)
      const open = yield* Opener.make(`${PeerMatcher.describe(to.matcher)} at ${url.host}`)
      return constructorOver(open, to, url.origin)
    })
  )

/**
 * A WebSocket as a `Socket`, opened with each `run`. Where the connection is refused or lost, the cause of the `SocketError` is
 * the typed error.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { NodeSecureWebSocket } from "@agentweave/transport-node"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const socket = yield* NodeSecureWebSocket.make({
 *     peer: "spiffe://example.org/feed",
 *     url: "wss://feed.internal/prices"
 *   })
 *   yield* socket.runRaw((message) => Effect.log(message))
 * }).pipe(Effect.scoped)
 * ```
 */
export const make = (
  options: Options & { readonly closeCodeIsError?: ((code: number) => boolean) | undefined }
): Effect.Effect<Socket.Socket, InvalidSpiffeIdError | InvalidConfigError, Connector | Scope.Scope> =>
  Effect.gen(function* () {
    const { closeCodeIsError, ...rest } = options
    const services = yield* Layer.build(layerConstructor(rest))
    const socket = yield* Effect.provide(
      Socket.makeWebSocket(rest.url, closeCodeIsError === undefined ? {} : { closeCodeIsError }),
      services
    )
    return unwrapped(socket)
  })

/**
 * A WebSocket as the `Socket` of a program: `NodeSocket.layerWebSocket`, verified.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { NodeConnector, NodeSecureWebSocket } from "@agentweave/transport-node"
 * import { Layer } from "effect"
 *
 * const Feed = NodeSecureWebSocket.layer({
 *   peer: "spiffe://example.org/feed",
 *   url: "wss://feed.internal/prices"
 * }).pipe(Layer.provide(NodeConnector.layer))
 * ```
 */
export const layer = (
  options: Options & { readonly closeCodeIsError?: ((code: number) => boolean) | undefined }
): Layer.Layer<Socket.Socket, InvalidSpiffeIdError | InvalidConfigError, Connector> =>
  Layer.scoped(Socket.Socket, make(options))
