/**
 * Who is calling, for the handlers of a secure server.
 *
 * @since 0.1.0
 */
import type { VerifiedPeer } from "@agentweave/spiffe/PeerVerifier"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"

/**
 * Knows the verified peer behind each request. Only a secure server's layer provides it, so a handler that asks for its
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
