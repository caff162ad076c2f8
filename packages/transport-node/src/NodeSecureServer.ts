/**
 * An HTTP server that serves verified SPIFFE peers and nobody else.
 *
 * @since 0.1.0
 */
import { createServer, type IncomingMessage, type RequestListener } from "node:http"
import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import type { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import type { PeerMatcher } from "@agentweave/spiffe/PeerMatcher"
import type { VerifiedPeer } from "@agentweave/spiffe/PeerVerifier"
import type { AuditLog } from "@agentweave/transport/AuditLog"
import type { InvalidConfigError } from "@agentweave/transport/InvalidConfigError"
import { PeerIdentity } from "@agentweave/transport/PeerIdentity"
import type * as TransportConfig from "@agentweave/transport/TransportConfig"
import type * as Etag from "@effect/platform/Etag"
import type * as HttpPlatform from "@effect/platform/HttpPlatform"
import * as HttpServer from "@effect/platform/HttpServer"
import type { ServeError } from "@effect/platform/HttpServerError"
import type * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { drain, makeAcceptor } from "./internal/server/acceptPeer.js"
import { guardApp, guardMiddleware, withMaxBodySize } from "./internal/server/body.js"
import { Inbound } from "./internal/server/inbound.js"
import { InboundConnection } from "./internal/server/inboundConnection.js"
import { httpOptions, listenerOptions } from "./internal/server/inboundRequests.js"
import { read, timeLimits } from "./internal/server/serverOptions.js"
import { serveTraced } from "./internal/server/span.js"

/**
 * Options of the server. `authorize` is required; the rest have defaults.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** TCP port; 0 lets the system choose. */
  readonly port: number
  /** Address to listen on. Default `"0.0.0.0"`. */
  readonly host?: string | undefined
  /** Which peers are served. Required: there is no default and no "anyone". */
  readonly authorize: PeerMatcher
  /** Lowest TLS version to speak. Default `"TLSv1.3"`. */
  readonly tlsMinVersion?: TransportConfig.TlsVersion | undefined
  /** Highest TLS version to speak. Default `"TLSv1.3"`. */
  readonly tlsMaxVersion?: TransportConfig.TlsVersion | undefined
  /** Limit for a client to finish its handshake. Default, and at most, 10 seconds. */
  readonly handshakeTimeout?: Duration.DurationInput | undefined
  /**
   * How long an idle connection is kept open, before its first request and after each. Default 65 seconds: longer than a
   * client's pool keeps it.
   */
  readonly keepAliveTimeout?: Duration.DurationInput | undefined
  /** Limit for a client to send the head of a request, once it has begun. Then it is answered with 408. Default 60 seconds. */
  readonly headersTimeout?: Duration.DurationInput | undefined
  /**
   * Limit for a client to send a request to the end of its body, at least `headersTimeout`. `Duration.infinity` is none, for
   * streams that go on. Default 5 minutes.
   */
  readonly requestTimeout?: Duration.DurationInput | undefined
  /**
   * How long a response, or a message of a WebSocket, may wait for a client that takes none of it. Then the connection is cut,
   * after this time and a quarter more at most, and on record with reason `SendTimeout`: a client that never reads would hold
   * it until its certificate ends. What a client takes is seen when the operating system takes more to send: one that reads
   * a few KiB a second can look like one that reads nothing. `Duration.infinity` is none. Default 60 seconds.
   */
  readonly sendTimeout?: Duration.DurationInput | undefined
  /**
   * Life of a connection; the request that comes next, within five seconds, is the last on it. Default: the earliest
   * notAfter on it alone.
   */
  readonly maxConnectionAge?: Duration.DurationInput | undefined
  /**
   * The most bytes of a request's body that is read as a whole (`json`, `text`, `arrayBuffer` and the like, `multipart` in
   * all): a handler that reads a larger one fails with a `RequestError`, and unless it handles that the client gets 413.
   * Streams have no limit. `HttpServerRequest.withMaxBodySize` sets another one for a route or an app. Default 16 MiB.
   */
  readonly maxRequestBodySize?: number | undefined
  /** How long requests in flight may take to end when the server's scope closes. Default 20 seconds. */
  readonly gracefulShutdownTimeout?: Duration.DurationInput | undefined
  /**
   * Connections at a time; further ones are closed at once. What a limit refuses is counted, and put on record as one
   * `ConnectionsRefused` event every ten seconds. Default 10,000.
   */
  readonly maxConnections?: number | undefined
  /** The same for one remote address, behind which there may be many clients. Default 2,000. */
  readonly maxConnectionsPerAddress?: number | undefined
  /** Connections whose TLS handshake has not ended, at a time: each costs some milliseconds of CPU. Default 1,024. */
  readonly maxHandshakes?: number | undefined
  /** The same for one remote address. Default 256. */
  readonly maxHandshakesPerAddress?: number | undefined
}

/** A server of Node's that listens in the scope, behind the gate. */
const listen = Effect.fnUntraced(function* (options: Options, listener?: RequestListener) {
  const { settings, tls } = yield* read(options)
  const keepAliveMillis = Duration.toMillis(settings.keepAliveTimeout)
  const acceptor = yield* makeAcceptor(settings, tls, {
    graceMillis: Duration.toMillis(settings.gracefulShutdownTimeout),
    firstRequestMillis: keepAliveMillis,
    sendMillis: Duration.toMillis(settings.sendTimeout)
  })
  const inbound = new Inbound({
    acceptor,
    authorize: settings.authorize,
    protocols: ["http/1.1"],
    // A client that names no protocol speaks HTTP/1.1 (RFC 9110 section 4.2.2).
    requiresProtocol: false
  })
  const server = createServer({
    ...(listener === undefined ? httpOptions : listenerOptions),
    ...timeLimits(settings),
    keepAliveTimeout: keepAliveMillis
  })
  inbound.attach(server)
  if (listener !== undefined) server.on("request", listener)

  const inner = yield* NodeHttpServer.make(() => server, { port: settings.port, host: settings.host })
  const drained = drain(server, acceptor)
  // Connections come as soon as it listens, with or without an app.
  yield* Effect.addFinalizer(() => drained)
  return { drained, inbound, inner, settings }
})

/**
 * Starts listening in the scope. Handlers attached through the `HttpServer` run unchanged; who calls them is
 * `PeerIdentity.caller`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { PeerMatcher, SpiffeId } from "@agentweave/spiffe"
 * import { NodeSecureServer } from "@agentweave/transport-node"
 * import { HttpServer, HttpServerResponse } from "@effect/platform"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const authorize = PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/web"))
 *   const services = yield* NodeSecureServer.make({ port: 8443, authorize })
 *   yield* HttpServer.serveEffect(HttpServerResponse.text("hello")).pipe(Effect.provide(services))
 *   return yield* Effect.never
 * }).pipe(Effect.scoped)
 * ```
 */
export const make: (
  options: Options
) => Effect.Effect<
  Context.Context<HttpServer.HttpServer | PeerIdentity>,
  ServeError | IdentityError | InvalidConfigError,
  IdentityProvider | AuditLog | Scope.Scope
> = Effect.fnUntraced(function* (options: Options) {
  const { drained, inbound, inner, settings } = yield* listen(options)
  const secure = HttpServer.make({
    address: inner.address,
    serve: (httpApp, middleware) =>
      Effect.zipRight(
        serveTraced(inbound, middleware && guardMiddleware(middleware), (outermost) =>
          outermost === undefined ? inner.serve(guardApp(httpApp)) : inner.serve(guardApp(httpApp), outermost)
        ).pipe(withMaxBodySize(settings.maxRequestBodySize)),
        // Added after the handler, so that it runs before the handler is taken away.
        Effect.addFinalizer(() => drained)
      )
  })
  return Context.make(HttpServer.HttpServer, secure).pipe(
    Context.add(PeerIdentity, {
      of: (request) =>
        Option.fromNullable(
          inbound.connections.get(NodeHttpServerRequest.toIncomingMessage(request).socket)?.accepted?.peer
        ),
      ofSocket: () => Option.none()
    })
  )
})

/**
 * A secure server as a layer: `HttpServer` for `HttpRouter`, `HttpApi` and `RpcServer` apps, `PeerIdentity` for their
 * handlers, and the platform services `NodeHttpServer.layer` provides.
 *
 * - Every connection is mutual TLS; the client's SVID is verified and matched with `authorize` before the HTTP parser
 *   sees a byte. A refused connection never reaches a handler.
 * - TLS is given the bundles of the trust domains that `authorize` can accept, and no others. A server sends the names of
 *   all their authorities to anybody who connects, in at most 64,000 bytes; where they need more, the largest bundles are left
 *   out, with an `IdentityProblem` event for each, and clients of these trust domains are refused.
 * - A rotated SVID or bundle is used from the next handshake on. Live connections are verified again when a bundle
 *   changes and end at the earliest notAfter on them. A connection that must end serves the request that is on its way,
 *   if it comes within half a second and before that notAfter, and says in its response that it was the last.
 * - Every request is on record with its start and its end, whatever it turns into, and is not served where its start cannot
 *   be recorded. A WebSocket (`HttpServerRequest.upgrade`) is a request that ends with its connection; any other `Upgrade` is
 *   ignored (RFC 9110 section 7.8). A target in absolute form is served, traced and recorded as its path and query.
 * - A response whose body fails after it began, or is not of its declared length, is cut, and its connection with it: the
 *   client sees an incomplete message (RFC 9112 section 8).
 * - With a tracer each request is one span, a child of its caller's (`traceparent`, B3), with OpenTelemetry's attributes for
 *   HTTP servers and TLS, the SPIFFE IDs of both sides and the connection; handlers run inside it. It holds neither the
 *   query nor a header that `CapturedHeaders` does not list. The platform's own span of a request, which does, is off;
 *   `HttpMiddleware.withTracerDisabledWhen` turns off this one too. `HttpMiddleware.logger` logs the query.
 * - When the scope closes, requests in flight are given `gracefulShutdownTimeout` to end.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { PeerMatcher, SpiffeId } from "@agentweave/spiffe"
 * import { PeerIdentity } from "@agentweave/transport"
 * import { NodeSecureServer } from "@agentweave/transport-node"
 * import { HttpServer, HttpServerResponse } from "@effect/platform"
 * import { Effect, Layer } from "effect"
 *
 * const hello = Effect.map(PeerIdentity.caller, ({ spiffeId }) => HttpServerResponse.unsafeJson({ hello: spiffeId }))
 *
 * const Api = HttpServer.serve(hello).pipe(
 *   Layer.provide(
 *     NodeSecureServer.layer({
 *       port: 8443,
 *       authorize: PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/web"))
 *     })
 *   )
 * )
 * ```
 */
export const layer = (
  options: Options
): Layer.Layer<
  HttpServer.HttpServer | PeerIdentity | HttpPlatform.HttpPlatform | Etag.Generator | NodeContext.NodeContext,
  ServeError | IdentityError | InvalidConfigError,
  IdentityProvider | AuditLog
> => Layer.merge(Layer.scopedContext(make(options)), NodeHttpServer.layerContext)

/**
 * The options of a server whose handler is not Effect's: it reads bodies, and bounds them, by itself.
 *
 * @since 0.1.0
 * @category models
 */
export interface ListenerOptions extends Omit<Options, "maxRequestBodySize"> {}

/**
 * Serves by a request listener of Node's, such as an Express app, until the scope closes. Gives the address it listens on.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { PeerMatcher, SpiffeId } from "@agentweave/spiffe"
 * import { NodeSecureServer } from "@agentweave/transport-node"
 * import { Effect } from "effect"
 * import type { RequestListener } from "node:http"
 *
 * const serve = (listener: RequestListener) =>
 *   NodeSecureServer.makeListener(listener, {
 *     port: 0,
 *     authorize: PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/web"))
 *   }).pipe(Effect.tap((address) => Effect.log("listening", address)))
 * ```
 */
export const makeListener = (
  listener: RequestListener,
  options: ListenerOptions
): Effect.Effect<
  HttpServer.Address,
  ServeError | IdentityError | InvalidConfigError,
  IdentityProvider | AuditLog | Scope.Scope
> => Effect.map(listen(options, listener), ({ inner }) => inner.address)

/**
 * A secure server for handlers of another framework: Express, Fastify, Hono, or a plain function of `node:http`. It is behind
 * the same gate as {@link layer}, with the same limits, record and supervision; {@link callerOf} is the caller of a request.
 * The size of bodies is the framework's to bound, and there are no spans. `Upgrade` is ignored (RFC 9110 section 7.8).
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { PeerMatcher, SpiffeId } from "@agentweave/spiffe"
 * import { NodeSecureServer } from "@agentweave/transport-node"
 * import { Option } from "effect"
 *
 * const Legacy = NodeSecureServer.layerListener(
 *   (request, response) => {
 *     const caller = NodeSecureServer.callerOf(request)
 *     response.end(Option.isSome(caller) ? caller.value.spiffeId : "nobody")
 *   },
 *   { port: 8443, authorize: PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/web")) }
 * )
 * ```
 */
export const layerListener = (
  listener: RequestListener,
  options: ListenerOptions
): Layer.Layer<never, ServeError | IdentityError | InvalidConfigError, IdentityProvider | AuditLog> =>
  Layer.scopedDiscard(makeListener(listener, options))

/**
 * The verified peer that sent a request of Node's; `None` for a request of a server that is not secure, and once its connection
 * is gone.
 *
 * @since 0.1.0
 * @category getters
 */
export const callerOf = (request: IncomingMessage): Option.Option<VerifiedPeer> => {
  // The carrier is the request's own field: a framework may have given the request another prototype.
  const carrier = "carrier" in request ? request.carrier : undefined
  return carrier instanceof InboundConnection && !carrier.socket.destroyed
    ? Option.fromNullable(carrier.accepted?.peer)
    : Option.none()
}
