/**
 * A server of bytes, for every protocol that is not HTTP: it serves verified SPIFFE peers and nobody else.
 *
 * @since 0.1.0
 */
import { createServer, type Server } from "node:net"
import type { TLSSocket } from "node:tls"
import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import type { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import type { AuditLog } from "@agentweave/transport/AuditLog"
import type { InvalidConfigError } from "@agentweave/transport/InvalidConfigError"
import { PeerIdentity, withSocket } from "@agentweave/transport/PeerIdentity"
import * as SecureSocket from "@agentweave/transport/SecureSocket"
import type * as Socket from "@effect/platform/Socket"
import * as SocketServer from "@effect/platform/SocketServer"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { drain, makeAcceptor } from "./internal/server/acceptPeer.js"
import { type InboundStream, InboundStreams } from "./internal/socket/inboundStreams.js"
import { read } from "./internal/socket/socketServerOptions.js"
import { handOver } from "./internal/socket/streamWire.js"
import type * as NodeSecureServer from "./NodeSecureServer.js"

/**
 * Options of the server. `authorize` is required; the rest have defaults.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options
  extends Pick<
    NodeSecureServer.Options,
    | "port"
    | "host"
    | "authorize"
    | "tlsMinVersion"
    | "tlsMaxVersion"
    | "handshakeTimeout"
    | "maxConnections"
    | "maxConnectionsPerAddress"
    | "maxHandshakes"
    | "maxHandshakesPerAddress"
  > {
  /**
   * The application protocols this server speaks, the preferred one first (ALPN, RFC 7301): `["h2"]` for HTTP/2. A client that
   * agrees to none of them is refused. Default: none is asked for.
   */
  readonly protocols?: ReadonlyArray<string> | undefined
  /** Life of a connection. Default: the earliest notAfter on it alone. */
  readonly maxConnectionAge?: Duration.DurationInput | undefined
}

const serverError = (cause: unknown): SocketServer.SocketServerError =>
  new SocketServer.SocketServerError({ reason: "Open", cause })

const listen = (server: Server, port: number, host: string): Effect.Effect<void, SocketServer.SocketServerError> =>
  Effect.async((resume) => {
    server.once("error", (cause) => resume(Effect.fail(serverError(cause))))
    server.listen({ port, host }, () => resume(Effect.void))
  })

const addressOf = (server: Server): SocketServer.Address => {
  const address = server.address()
  return typeof address === "object" && address !== null
    ? { _tag: "TcpAddress", hostname: address.address, port: address.port }
    : { _tag: "UnixAddress", path: address ?? "" }
}

/** As the platform's own socket servers do. */
const logUnhandled = (cause: Cause.Cause<unknown>): Effect.Effect<void> =>
  Effect.flatMap(FiberRef.get(FiberRef.unhandledErrorLogLevel), (level) =>
    Option.isNone(level) || Cause.isInterruptedOnly(cause)
      ? Effect.void
      : Effect.logWithLevel(level.value, cause, "a handler of a secure socket server failed")
  )

const netSocket: unique symbol = Symbol.for("@agentweave/transport-node/NodeSecureSocketServer/netSocket")

/** A socket as handlers are given it. */
interface ServedSocket extends SecureSocket.SecureSocket {
  /** Node's own socket beneath it. */
  readonly [netSocket]: TLSSocket
}

const isServed = (socket: Socket.Socket): socket is ServedSocket => netSocket in socket

/**
 * Starts listening in the scope. `SocketServer.run` gives each connection to a handler; who called is
 * `PeerIdentity.callerOf(socket)`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { PeerMatcher, TrustDomain } from "@agentweave/spiffe"
 * import { NodeSecureSocketServer } from "@agentweave/transport-node"
 * import { SocketServer } from "@effect/platform"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const authorize = PeerMatcher.memberOf(TrustDomain.make("example.org"))
 *   const services = yield* NodeSecureSocketServer.make({ port: 9000, authorize })
 *   const server = yield* Effect.provide(SocketServer.SocketServer, services)
 *   yield* server.run((socket) => socket.run(() => {}))
 * }).pipe(Effect.scoped)
 * ```
 */
export const make: (
  options: Options
) => Effect.Effect<
  Context.Context<SocketServer.SocketServer | PeerIdentity>,
  SocketServer.SocketServerError | IdentityError | InvalidConfigError,
  IdentityProvider | AuditLog | Scope.Scope
> = Effect.fnUntraced(function* (options: Options) {
  const { settings, tls } = yield* read(options)
  const { authorize, host, port, protocols } = settings
  const unbounded = Number.POSITIVE_INFINITY
  const acceptor = yield* makeAcceptor(settings, tls, { graceMillis: 0, firstRequestMillis: unbounded })
  const streams = new InboundStreams({
    acceptor,
    authorize,
    protocols,
    requiresProtocol: protocols.length > 0
  })
  const server = createServer(streams.onTcp)
  yield* Effect.addFinalizer(() => drain(server, acceptor))
  yield* listen(server, port, host)

  const served = new WeakSet<Socket.Socket>()
  const serve = <R, E, _>(
    { connection, socket: tlsSocket }: InboundStream,
    handler: (socket: Socket.Socket) => Effect.Effect<_, E, R>
  ): Effect.Effect<void, never, R> =>
    SecureSocket.fromConnection(connection).pipe(
      Effect.flatMap((secure) => {
        const socket: ServedSocket = { ...secure, [netSocket]: tlsSocket }
        served.add(socket)
        return withSocket(handler(socket), socket)
      }),
      Effect.catchAllCause(logUnhandled),
      Effect.ensuring(Effect.sync(() => connection.unsafeFinish())),
      Effect.asVoid
    )

  const run: SocketServer.SocketServer["Type"]["run"] = <R, E, _>(
    handler: (socket: Socket.Socket) => Effect.Effect<_, E, R>
  ) =>
    Effect.scopedWith((scope) =>
      Effect.gen(function* () {
        const runFork = yield* Effect.flatMap(FiberSet.make<void>(), (fibers) => FiberSet.runtime(fibers)<R>()).pipe(
          Effect.provideService(Scope.Scope, scope)
        )
        return yield* Effect.async<never>(() => {
          const stop = streams.handle((stream) => void runFork(Effect.interruptible(serve(stream, handler))))
          return Effect.sync(stop)
        })
      })
    )

  return Context.make(SocketServer.SocketServer, { address: addressOf(server), run }).pipe(
    Context.add(PeerIdentity, {
      of: () => Option.none(),
      ofSocket: (socket) => (isServed(socket) && served.has(socket) ? Option.some(socket.peer) : Option.none())
    })
  )
})

/**
 * A secure socket server as a layer: `SocketServer` for everything that serves sockets, such as
 * `RpcServer.layerProtocolSocketServer`, and `PeerIdentity` for its handlers.
 *
 * - Every connection is mutual TLS; the client's SVID is verified and matched with `authorize` before a byte of it is read. A
 *   refused connection never reaches a handler.
 * - A connection ends with its handler, after what was written is sent. It ends at once, whatever is under way, before a
 *   certificate on it expires, at `maxConnectionAge`, and when the client's authority or our own identity is not trusted
 *   any more: the handler's reads and writes fail with a `SocketError` whose cause is a `ConnectionError` (reason `Lost`).
 * - A handler is interrupted when `run` is, and when it fails that is logged. While it is busy with more than 64 KiB, no more
 *   is read of its client.
 * - The end of a client's direction is the end of the handler's `run`; the client can still be written to. Whoever controls
 *   the network can pretend that end, so that a protocol must know by itself when a message is whole.
 * - Everything is on record, limited and rotated as for `NodeSecureServer.layer`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { PeerMatcher, SpiffeId } from "@agentweave/spiffe"
 * import { PeerIdentity } from "@agentweave/transport"
 * import { NodeSecureSocketServer } from "@agentweave/transport-node"
 * import { SocketServer } from "@effect/platform"
 * import { Effect, Layer } from "effect"
 *
 * const Echo = Layer.scopedDiscard(
 *   Effect.flatMap(SocketServer.SocketServer, (server) =>
 *     Effect.forkScoped(
 *       server.run((socket) =>
 *         Effect.scoped(
 *           Effect.gen(function* () {
 *             const peer = yield* PeerIdentity.callerOf(socket)
 *             const write = yield* socket.writer
 *             yield* write(`hello ${peer.spiffeId}\n`)
 *             yield* socket.run(write)
 *           })
 *         )
 *       )
 *     )
 *   )
 * ).pipe(
 *   Layer.provide(
 *     NodeSecureSocketServer.layer({
 *       port: 9000,
 *       authorize: PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/web"))
 *     })
 *   )
 * )
 * ```
 */
export const layer = (
  options: Options
): Layer.Layer<
  SocketServer.SocketServer | PeerIdentity,
  SocketServer.SocketServerError | IdentityError | InvalidConfigError,
  IdentityProvider | AuditLog
> => Layer.scopedContext(make(options))

/**
 * Node's own socket under one that a handler was given, for libraries that take one, such as an HTTP/2 server
 * (`server.emit("connection", socket)`). It is verified, stays under supervision, and ends with the handler; where it ends
 * otherwise its error is the `ConnectionError` that says why. From here on it ends when its client does, as Node's sockets do
 * by default. `None` for a socket of another server.
 *
 * @since 0.1.0
 * @category conversions
 */
export const toNetSocket = (socket: Socket.Socket): Option.Option<TLSSocket> =>
  isServed(socket) ? Option.some(handOver(socket[netSocket])) : Option.none()
