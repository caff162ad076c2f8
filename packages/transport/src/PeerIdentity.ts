/**
 * The verified caller, for the handlers of a secure server.
 *
 * @since 0.1.0
 */
import type { VerifiedPeer } from "@agentweave/spiffe/PeerVerifier"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import type * as Socket from "@effect/platform/Socket"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Option from "effect/Option"

/**
 * Knows the verified peer behind each request, and each socket. Only a secure server's layer provides it, so a handler that asks for its
 * caller cannot be run without one.
 *
 * @since 0.1.0
 * @category tags
 */
export class PeerIdentity extends Context.Tag("@agentweave/transport/PeerIdentity")<
  PeerIdentity,
  {
    /** The peer of the connection the request came on; `None` for a request of another, insecure server. */
    readonly of: (request: HttpServerRequest.HttpServerRequest) => Option.Option<VerifiedPeer>
    /** The peer of a socket that a secure socket server accepted; `None` for one of another server. */
    readonly ofSocket: (socket: Socket.Socket) => Option.Option<VerifiedPeer>
  }
>() {}

/**
 * The verified peer that sent the current request. It dies on a request that came through another server than the one
 * that provides `PeerIdentity`: such a request has no verified caller, and no handler may go on as if it had.
 *
 * @since 0.1.0
 * @category getters
 * @example
 * ```ts
 * import { PeerIdentity } from "@agentweave/transport"
 * import { HttpServerResponse } from "@effect/platform"
 * import { Effect } from "effect"
 *
 * const whoami = Effect.map(PeerIdentity.caller, (peer) => HttpServerResponse.text(peer.spiffeId))
 * ```
 */
export const caller: Effect.Effect<VerifiedPeer, never, PeerIdentity | HttpServerRequest.HttpServerRequest> =
  Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) =>
    Effect.flatMap(PeerIdentity, (identity) =>
      Option.match(identity.of(request), {
        onNone: () => Effect.dieMessage("expected a request of the secure server, got one of another server"),
        onSome: Effect.succeed
      })
    )
  )

/**
 * The verified peer at the other end of a socket that was accepted. It dies on a socket of another server than the one that
 * provides `PeerIdentity`, as {@link caller} does.
 *
 * @since 0.1.0
 * @category getters
 * @example
 * ```ts
 * import { PeerIdentity } from "@agentweave/transport"
 * import { SocketServer } from "@effect/platform"
 * import { Effect } from "effect"
 *
 * const serve = Effect.flatMap(SocketServer.SocketServer, (server) =>
 *   server.run((socket) =>
 *     Effect.scoped(
 *       Effect.gen(function* () {
 *         const peer = yield* PeerIdentity.callerOf(socket)
 *         const write = yield* socket.writer
 *         yield* write(`hello ${peer.spiffeId}`)
 *       })
 *     )
 *   )
 * )
 * ```
 */
export const callerOf = (socket: Socket.Socket): Effect.Effect<VerifiedPeer, never, PeerIdentity> =>
  Effect.flatMap(PeerIdentity, (identity) =>
    Option.match(identity.ofSocket(socket), {
      onNone: () => Effect.dieMessage("expected a socket of the secure server, got one of another server"),
      onSome: Effect.succeed
    })
  )

/** The socket whose connection the current fiber serves. */
class ServedSocket extends Context.Tag("@agentweave/transport/PeerIdentity/ServedSocket")<
  ServedSocket,
  Socket.Socket
>() {}

/**
 * Runs the handler of a socket so that {@link current} finds its peer. The secure servers of this repository do so by themselves;
 * this is for authors of others.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { PeerIdentity } from "@agentweave/transport"
 * import type { Socket } from "@effect/platform"
 * import { Effect } from "effect"
 *
 * const serve = (socket: Socket.Socket) =>
 *   PeerIdentity.withSocket(
 *     Effect.flatMap(PeerIdentity.current, (peer) => Effect.log(peer.spiffeId)),
 *     socket
 *   )
 * ```
 */
export const withSocket: {
  (socket: Socket.Socket): <A, E, R>(handler: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(handler: Effect.Effect<A, E, R>, socket: Socket.Socket): Effect.Effect<A, E, R>
} = dual(
  2,
  <A, E, R>(handler: Effect.Effect<A, E, R>, socket: Socket.Socket): Effect.Effect<A, E, R> =>
    Effect.mapInputContext(handler, (context: Context.Context<R>) => Context.add(context, ServedSocket, socket))
)

/**
 * The verified peer that the current fiber serves, whatever it called by: a request, a WebSocket, a socket. It is for code that
 * is served by all of them, such as the middleware of an `RpcServer`. It dies where the fiber serves no peer of the server that
 * provides `PeerIdentity`, as {@link caller} does.
 *
 * @since 0.1.0
 * @category getters
 * @example
 * ```ts
 * import { PeerIdentity } from "@agentweave/transport"
 * import { Effect } from "effect"
 *
 * const audited = Effect.tap(PeerIdentity.current, (peer) => Effect.log(`called by ${peer.spiffeId}`))
 * ```
 */
export const current: Effect.Effect<VerifiedPeer, never, PeerIdentity> = Effect.contextWithEffect(
  (context: Context.Context<PeerIdentity>) => {
    const identity = Context.get(context, PeerIdentity)
    const socket = Option.flatMap(Context.getOption(context, ServedSocket), identity.ofSocket)
    const peer = Option.orElse(socket, () =>
      Option.flatMap(Context.getOption(context, HttpServerRequest.HttpServerRequest), identity.of)
    )
    return Option.match(peer, {
      onNone: () => Effect.dieMessage("expected a fiber that serves a peer of the secure server, it serves none"),
      onSome: Effect.succeed
    })
  }
)
