/**
 * An HTTP server that serves verified SPIFFE peers and nobody else.
 *
 * @since 0.1.0
 */
import { createServer, type Server } from "node:http"
import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import { forEachChange, IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import type { PeerMatcher } from "@agentweave/spiffe/PeerMatcher"
import * as PeerVerifier from "@agentweave/spiffe/PeerVerifier"
import * as X509Context from "@agentweave/spiffe/X509Context"
import * as X509Svid from "@agentweave/spiffe/X509Svid"
import type { AuditEvent } from "@agentweave/transport/AuditEvent"
import { type AuditLog, recorder } from "@agentweave/transport/AuditLog"
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
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import { PCGRandom } from "effect/Utils"
import { forkScoped } from "./internal/background.js"
import { Inbound } from "./internal/inbound.js"
import { guardApp, guardMiddleware, withMaxBodySize } from "./internal/inboundBody.js"
import { httpOptions } from "./internal/inboundRequests.js"
import { serveTraced } from "./internal/inboundSpan.js"
import { type ServerContext, ServerContexts } from "./internal/serverContext.js"
import { read as readOptions, timeLimits } from "./internal/serverOptions.js"
import * as Sweeper from "./internal/sweeper.js"

/**
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
}

/**
 * Whether credentials may serve: our own SVID passes the gate its peers will put it through, and OpenSSL loads it all. It
 * is found out on the side, so that bad ones never reach the listener.
 */
const usable = (
  context: X509Context.X509Context,
  contexts: ServerContexts,
  verifier: PeerVerifier.PeerVerifier
): Effect.Effect<ServerContext, IdentityError> =>
  Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    yield* X509Svid.validate(context.svid, { bundles: context.bundles, now, verifier, purposes: ["ServerAuth"] })
    return yield* contexts.make(context)
  })

/**
 * Ends what is served: no new connections, requests in flight run out, and the sweeper cuts the stragglers. Uninterruptible
 * as a finalizer, so the limit is not an `Effect.timeout`.
 */
const drain = (server: Server, inbound: Inbound): Effect.Effect<void> =>
  Effect.async<void>((resume) => {
    server.close()
    inbound.shutdown(() => resume(Effect.void))
  })

/**
 * Starts listening in the scope. Handlers attached through the `HttpServer` run unchanged; who calls them is
 * `PeerIdentity.caller`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: (
  options: Options
) => Effect.Effect<
  Context.Context<HttpServer.HttpServer | PeerIdentity>,
  ServeError | IdentityError | InvalidConfigError,
  IdentityProvider | AuditLog | Scope.Scope
> = Effect.fnUntraced(function* (options: Options) {
  const { settings, tls } = yield* readOptions(options)
  const { handshakeTimeout, maxConnectionAge } = settings
  const identity = yield* IdentityProvider
  const record = yield* recorder
  const sweeper = yield* Sweeper.make
  const random = new PCGRandom(yield* Random.nextInt)

  let context = yield* identity.x509Context
  const verifier = PeerVerifier.make()
  const contexts = new ServerContexts(settings.authorize, tls)
  let serverContext = yield* usable(context, contexts, verifier)

  const inbound = new Inbound({
    authorize: settings.authorize,
    verifier,
    sweeper,
    record,
    context: () => context,
    secureContext: () => serverContext.secureContext,
    handshakeTimeoutMillis: Duration.toMillis(handshakeTimeout),
    maxAgeMillis: maxConnectionAge === undefined ? Number.POSITIVE_INFINITY : Duration.toMillis(maxConnectionAge),
    idleMillis: Duration.toMillis(settings.keepAliveTimeout),
    graceMillis: Duration.toMillis(settings.gracefulShutdownTimeout),
    random: () => random.number()
  })

  const server = createServer({
    ...httpOptions,
    ...timeLimits(settings),
    keepAliveTimeout: Duration.toMillis(settings.keepAliveTimeout)
  })
  inbound.attach(server)

  const inner = yield* NodeHttpServer.make(() => server, { port: settings.port, host: settings.host })
  // Connections come as soon as it listens, with or without an app.
  yield* Effect.addFinalizer(() => drain(server, inbound))

  /** It serves well otherwise: what cannot be put on record either does not stop it. */
  const recordProblems = (problems: (time: number) => ReadonlyArray<AuditEvent>) =>
    Effect.flatMap(Clock.currentTimeMillis, (time) =>
      Effect.forEach(problems(time), (problem) => Effect.ignore(record(problem) ?? Effect.void), { discard: true })
    )

  const adopt = (next: X509Context.X509Context, nextServerContext: ServerContext) =>
    Effect.zipRight(
      Effect.sync(() => {
        context = next
        serverContext = nextServerContext
        inbound.reverify()
      }),
      recordProblems((time) => contexts.problemsOf(nextServerContext, time))
    )

  const discarded = ({ message, reason }: IdentityError, what: string) =>
    recordProblems((time) => [
      { _tag: "IdentityProblem", time, problem: "Discarded", reason, description: `${what}: ${message}` }
    ])

  /**
   * What is delivered is taken into use, and what of it cannot be used is not: with an SVID that may not serve, the last
   * good one goes on, under the new bundles. A withdrawn authority is distrusted at once, whatever becomes of our own SVID.
   */
  const rotate = (next: X509Context.X509Context) =>
    usable(next, contexts, verifier).pipe(
      Effect.flatMap((serverContext) => adopt(next, serverContext)),
      Effect.catchAll((error) => {
        const lastGood = X509Context.make({ svid: context.svid, bundles: next.bundles })
        return Effect.zipRight(
          discarded(error, "our new SVID cannot serve, the last good one goes on"),
          Effect.flatMap(contexts.make(lastGood), (serverContext) => adopt(lastGood, serverContext))
        )
      }),
      Effect.catchAll((error) => discarded(error, "a rotated identity cannot be used at all"))
    )

  yield* recordProblems((time) => contexts.problemsOf(serverContext, time))
  // The first one is what the server began with.
  const onChange = (next: X509Context.X509Context) => (next === context ? Effect.void : rotate(next))
  yield* forkScoped(forEachChange(identity, onChange))

  const secure = HttpServer.make({
    address: inner.address,
    serve: (httpApp, middleware) =>
      Effect.zipRight(
        serveTraced(inbound, middleware && guardMiddleware(middleware), (outermost) =>
          outermost === undefined ? inner.serve(guardApp(httpApp)) : inner.serve(guardApp(httpApp), outermost)
        ).pipe(withMaxBodySize(settings.maxRequestBodySize)),
        // Added after the handler, so that it runs before the handler is taken away.
        Effect.addFinalizer(() => drain(server, inbound))
      )
  })
  return Context.make(HttpServer.HttpServer, secure).pipe(
    Context.add(PeerIdentity, {
      of: (request) =>
        Option.fromNullable(inbound.connections.get(NodeHttpServerRequest.toIncomingMessage(request).socket)?.peer)
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
 */
export const layer = (
  options: Options
): Layer.Layer<
  HttpServer.HttpServer | PeerIdentity | HttpPlatform.HttpPlatform | Etag.Generator | NodeContext.NodeContext,
  ServeError | IdentityError | InvalidConfigError,
  IdentityProvider | AuditLog
> => Layer.merge(Layer.scopedContext(make(options)), NodeHttpServer.layerContext)
