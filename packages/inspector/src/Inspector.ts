/**
 * Shows the state of one process as a page, as JSON and as a stream of events: to the processes of this machine, or to verified peers.
 *
 * @since 0.1.0
 */
import type { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import { DurationIn, decoder, Flag, NumberIn, OneOf } from "@agentweave/spiffe/OptionsDecoder"
import type { AuditLog } from "@agentweave/transport/AuditLog"
import { CircuitBreakerRegistry } from "@agentweave/transport/CircuitBreakerRegistry"
import { ConnectionPool } from "@agentweave/transport/ConnectionPool"
import type { InvalidConfigError } from "@agentweave/transport/InvalidConfigError"
import type { PeerIdentity } from "@agentweave/transport/PeerIdentity"
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServer from "@effect/platform/HttpServer"
import type { ServeError } from "@effect/platform/HttpServerError"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { Activity } from "./Activity.js"
import { byVerifiedPeers, onLoopback } from "./internal/access.js"
import { follow } from "./internal/identityFollower.js"
import * as loopback from "./internal/loopbackServer.js"
import * as page from "./internal/page.js"
import * as routes from "./internal/routes.js"
import { sample, toJson } from "./internal/sample.js"
import { Streams } from "./internal/streams.js"
import type * as Snapshot from "./Snapshot.js"

/**
 * The inspector of a process.
 *
 * @since 0.1.0
 * @category tags
 */
export class Inspector extends Context.Tag("@agentweave/inspector/Inspector")<
  Inspector,
  {
    /** The state of the process now, or as it was at most half of the `interval` ago. No secret and no key is in it. */
    readonly snapshot: Effect.Effect<Snapshot.Snapshot>
    /** Answers verified peers and nobody else: see {@link app}. */
    readonly app: HttpApp.Default<never, PeerIdentity | Scope.Scope>
    /** Ends the streams that are open now. Their readers may open others. */
    readonly endStreams: Effect.Effect<void>
    /** Where processes of this machine find it; `None` where it is not served on loopback. */
    readonly url: Option.Option<string>
  }
>() {}

/**
 * The options of every inspector.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** How often a stream brings a snapshot, at least 100 milliseconds. All streams share the snapshots. Default 1 second. */
  readonly interval?: Duration.DurationInput | undefined
  /**
   * Whether `POST api/reset` closes the circuit breaker of a peer. All else only reads. Whoever may look may reset then: any
   * process of this machine, where it is served on loopback. Default `false`.
   */
  readonly reset?: boolean | undefined
}

/**
 * The options of an inspector that is served on loopback.
 *
 * @since 0.1.0
 * @category models
 */
export interface LoopbackOptions extends Options {
  /** TCP port; 0 lets the system choose. Default 9471. */
  readonly port?: number | undefined
  /** Address to listen on. Default `"127.0.0.1"`. To be reached from elsewhere it goes behind a `NodeSecureServer`. */
  readonly host?: "127.0.0.1" | "::1" | undefined
}

const fields = {
  interval: Schema.optionalWith(DurationIn("100 millis", "1 hour"), { default: () => Duration.seconds(1) }),
  reset: Schema.optionalWith(Flag, { default: () => false })
}
const decode = decoder("Inspector", Schema.Struct(fields))
const decodeLoopback = decoder(
  "Inspector",
  Schema.Struct({
    ...fields,
    port: Schema.optionalWith(NumberIn(0, 65_535), { default: () => 9_471 }),
    host: Schema.optionalWith(OneOf("127.0.0.1", "::1"), { default: () => "127.0.0.1" as const })
  })
)

interface Settings {
  readonly interval: Duration.Duration
  readonly reset: boolean
}

/** The service that every way to serve the inspector rests on. */
const prepare = ({ interval, reset }: Settings) =>
  Effect.gen(function* () {
    const breakers = Option.getOrUndefined(yield* Effect.serviceOption(CircuitBreakerRegistry))
    const sources = {
      activity: yield* Activity,
      identity: yield* follow,
      pool: Option.getOrUndefined(yield* Effect.serviceOption(ConnectionPool)),
      breakers,
      canReset: reset && breakers !== undefined
    }
    // A reader that goes away while it takes the sample would leave the others without one.
    const snapshot = yield* Effect.cachedWithTTL(Effect.uninterruptible(sample(sources)), Duration.times(interval, 0.5))
    let last: { readonly of: Snapshot.Snapshot; readonly json: string } | undefined
    const json = Effect.map(snapshot, (of) => {
      if (last?.of !== of) last = { of, json: toJson(of) }
      return last.json
    })
    const streams = new Streams()
    yield* Effect.addFinalizer(() => streams.end)
    return {
      snapshot,
      streams,
      served: { json, interval, streams, page: yield* page.load, resettable: reset ? breakers : undefined }
    }
  })

type Prepared = Effect.Effect.Success<ReturnType<typeof prepare>>

const service = (
  { served, snapshot, streams }: Prepared,
  url: Option.Option<string>
): Context.Tag.Service<Inspector> => ({
  snapshot,
  app: routes.app(served, byVerifiedPeers),
  endStreams: streams.end,
  url
})

/** The services that an inspector looks at. A pool and the registry of circuit breakers are shown where the context has them. */
type Needs = Activity | AuditLog | IdentityProvider

const makeLoopback = Effect.fnUntraced(function* (options: LoopbackOptions) {
  const { host, port, ...settings } = yield* decodeLoopback(options)
  const prepared = yield* prepare(settings)
  const address = yield* loopback.serve(routes.app(prepared.served, onLoopback), { host, port })
  const shown = host === "::1" ? "[::1]" : host
  const url = address._tag === "TcpAddress" ? Option.some(`http://${shown}:${address.port}/`) : Option.none()
  yield* Effect.logInfo(`inspector at ${Option.getOrElse(url, () => "a Unix socket")}`)
  return service(prepared, url)
})

/**
 * Serves the inspector to the processes of this machine, in plain HTTP on a loopback address. A browser is answered for the
 * inspector's own page alone: requests of other sites, and of names that resolve to this machine (DNS rebinding), are refused.
 * At most eight streams at a time; the next one is answered with 503. When the scope ends, streams end with it.
 *
 * - `GET /`: a page that follows the process. It is one HTML document, and asks for nothing but what is below.
 * - `GET api/snapshot`: a `Snapshot` as JSON. `GET api/events`: one each `interval`, as server-sent events.
 * - `POST api/reset` with `{"peer":"spiffe://example.org/api"}`: where the option `reset` is on, closes that peer's breaker.
 *
 * A `ConnectionPool` and a `CircuitBreakerRegistry`, both of which `Transport.layer` has, are shown where the context of this
 * layer has them. What becomes of our identity is put on record, as by `IdentityMonitor.layer`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Activity, Inspector } from "@agentweave/inspector"
 * import { NodeAuditLog, NodeIdentity } from "@agentweave/transport-node"
 * import { Layer } from "effect"
 *
 * const Identity = NodeIdentity.layerFiles({ certificate: "svid.pem", key: "key.pem", bundle: "bundle.pem" })
 * const Audit = Activity.layerAuditLog(NodeAuditLog.layerFile({ path: "/var/log/web/audit.ndjson" }))
 *
 * const Inspected = Inspector.layer().pipe(Layer.provideMerge(Audit), Layer.provideMerge(Identity))
 * ```
 */
export const layer = (options: LoopbackOptions = {}): Layer.Layer<Inspector, ServeError | InvalidConfigError, Needs> =>
  Layer.scoped(Inspector, makeLoopback(options))

/**
 * {@link layer} with options from `Config`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Inspector } from "@agentweave/inspector"
 * import { Config } from "effect"
 *
 * const Inspected = Inspector.layerConfig({ port: Config.withDefault(Config.integer("INSPECTOR_PORT"), 9471) })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<LoopbackOptions>
): Layer.Layer<Inspector, ConfigError | ServeError | InvalidConfigError, Needs> =>
  Layer.scoped(Inspector, Effect.flatMap(Config.unwrap(options), makeLoopback))

/**
 * The inspector without a server of its own, for {@link app}.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Inspector } from "@agentweave/inspector"
 * import { HttpRouter, HttpServer } from "@effect/platform"
 * import { Layer } from "effect"
 *
 * // Beside the routes of the program, on its own secure server.
 * const Routes = HttpRouter.empty.pipe(HttpRouter.mountApp("/inspector", Inspector.app))
 * const Web = HttpServer.serve(Routes).pipe(Layer.provide(Inspector.layerService()))
 * ```
 */
export const layerService = (options: Options = {}): Layer.Layer<Inspector, InvalidConfigError, Needs> =>
  Layer.scoped(
    Inspector,
    Effect.flatMap(decode(options), (settings) =>
      Effect.map(prepare(settings), (prepared) => service(prepared, Option.none()))
    )
  )

/**
 * The inspector for the verified peers of a secure server, to be mounted in its router. Requests of another server are
 * refused, so that it cannot be shown to everyone by mistake: which peers may see it is for the server's `authorize`, and for
 * the router, to say. A server that ends waits for its requests; `endStreams` spares it the wait for streams.
 *
 * A `Host` is the name that the TLS connection was made for (SNI), an IP address or `localhost`; another one is answered with 421
 * (RFC 9110 section 15.5.20), so that no site reads the inspector through a tunnel on the machine of an operator.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Inspector } from "@agentweave/inspector"
 * import { HttpRouter } from "@effect/platform"
 *
 * const router = HttpRouter.empty.pipe(HttpRouter.mountApp("/inspector", Inspector.app))
 * ```
 */
export const app: HttpApp.Default<never, Inspector | PeerIdentity | Scope.Scope> = Effect.flatMap(
  Inspector,
  (inspector) => inspector.app
)

/**
 * Serves {@link app}, and nothing else, on the `HttpServer` of the context, and ends its streams when the scope ends. For a
 * listener of the inspector's own: a `NodeSecureServer` with the peers that may look.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Inspector } from "@agentweave/inspector"
 * import { PeerMatcher, SpiffeId } from "@agentweave/spiffe"
 * import { NodeSecureServer } from "@agentweave/transport-node"
 * import { Layer } from "effect"
 *
 * const operator = PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/operator"))
 *
 * const Inspected = Inspector.layerSecure.pipe(
 *   Layer.provide(Inspector.layerService()),
 *   Layer.provide(NodeSecureServer.layer({ port: 9471, authorize: operator }))
 * )
 * ```
 */
export const layerSecure: Layer.Layer<never, never, HttpServer.HttpServer | Inspector | PeerIdentity> =
  Layer.scopedDiscard(
    Effect.gen(function* () {
      const { app, endStreams } = yield* Inspector
      yield* HttpServer.serveEffect(app)
      // Added after the app, so that it runs before the server waits for its requests.
      yield* Effect.addFinalizer(() => endStreams)
    })
  )
