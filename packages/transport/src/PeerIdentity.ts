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
