/**
 * How a server's transport accepts peers, for authors of transports. A server listens, speaks TLS and carries out what an
 * acceptor decides: whether a connection is begun at all, who its peer is, whether a request may be served, and when the
 * connection ends. Applications do not use it.
 *
 * @since 0.1.0
 */
import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import type { PeerMatcher } from "@agentweave/spiffe/PeerMatcher"
import type { PeerVerificationError } from "@agentweave/spiffe/PeerVerificationError"
import type { VerifiedPeer } from "@agentweave/spiffe/PeerVerifier"
import type { SpiffeId } from "@agentweave/spiffe/SpiffeId"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import * as Effect from "effect/Effect"
import type * as Either from "effect/Either"
import type * as Scope from "effect/Scope"
import type { AuditEvent } from "./AuditEvent.js"
import type { AuditLog } from "./AuditLog.js"
import type { StreamConnection } from "./Connector.js"
import * as internal from "./internal/connection/accept.js"
import type { TransportError } from "./TransportError.js"
import type { ByteStream, Incoming, RequestEnd, RequestLine, Shell, Wire } from "./Wire.js"

/**
 * Options of the acceptor's connections, for authors of servers.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options<A> {
  /** Which peers are served. */
  readonly authorize: PeerMatcher
  /** Makes of an identity what handshakes need, such as a TLS context. A failure keeps the last good one in use. */
  readonly prepare: (context: X509Context) => Either.Either<A, IdentityError>
  /** Parts of the credentials in use that cannot be used: events for the record. */
  readonly problems?: ((credentials: A, time: number) => ReadonlyArray<AuditEvent>) | undefined
  /** Limit of a handshake, in milliseconds. */
  readonly handshakeTimeoutMillis: number
  /** Longest life of a connection, in milliseconds; `Infinity` for none but that of the certificates on it. */
  readonly maxAgeMillis: number
  /** The time left to a request in flight on a connection that must end, in milliseconds. */
  readonly graceMillis: number
  /** How long a connection may be open before its first request, in milliseconds. */
  readonly firstRequestMillis: number
  /**
   * How long bytes may wait to be sent of which the peer takes none, in milliseconds, as far as `Shell.sent` tells; looked at
   * four times in it. Absent: for ever.
   */
  readonly sendMillis?: number | undefined
  /** TCP connections at a time, in all and of one remote address. */
  readonly maxConnections: number
  readonly maxConnectionsPerAddress: number
  /** Of them, those whose handshake has not ended. */
  readonly maxHandshakes: number
  readonly maxHandshakesPerAddress: number
}

/**
 * The supervision of a server's connections: each is judged, on record, and ended in time.
 *
 * @since 0.1.0
 * @category models
 */
export interface Acceptor<A> {
  /** A TCP connection has come in; `undefined` where it is not to be answered: then it has been destroyed. */
  readonly accept: (incoming: Incoming) => Attempt<A> | undefined
  /**
   * Accepts nothing new, ends what there is, and completes when everything is off the wire and on record. It is run when the
   * scope closes, and may be run before.
   */
  readonly shutdown: Effect.Effect<void>
}

/**
 * One accepted TCP connection, until its handshake has ended.
 *
 * @since 0.1.0
 * @category models
 */
export interface Attempt<A> {
  /** The credentials to present, as the transport prepared them. */
  readonly credentials: A
  /** The handshake came to nothing. The transport destroys the connection. */
  failed(error: TransportError): void
  /** The handshake has succeeded. What is to become of the connection is decided in this very call. */
  secured(wire: Wire, shell: Shell): AcceptDecision
}

/**
 * - `Serve`: the peer is verified; its requests are put to `connection`.
 * - `Tell`: it proved who it is and is not authorised: it is told so, and served nothing.
 * - `Close`: it is closed.
 *
 * @since 0.1.0
 * @category models
 */
export type AcceptDecision =
  | { readonly _tag: "Serve"; readonly connection: AcceptedConnection }
  | { readonly _tag: "Tell"; readonly error: PeerVerificationError }
  | { readonly _tag: "Close" }

/**
 * A verified connection of a server.
 *
 * @since 0.1.0
 * @category models
 */
export interface AcceptedConnection {
  /** Unique within the process; the audit log's `connectionId`. */
  readonly id: string
  readonly peer: VerifiedPeer
  /** Our own SPIFFE ID on this connection. */
  readonly ownId: SpiffeId
  /** `host:port` of the peer. */
  readonly address: string
  /** Whether it takes requests without an end in sight: more than one, and what it may be upgraded to. */
  readonly isOpen: boolean
  /**
   * A request has arrived, and its response is known to the shell. `undefined` where it may not be served, or cannot be put
   * on record: then it gets no answer, and the connection ends.
   */
  requestStarted(line: RequestLine): AcceptedRequest | undefined
  /**
   * Uses the bytes of the connection as they are, for another protocol than HTTP. Called in the turn of the event loop in
   * which the connection was accepted. It waits for no request then, and ends at once where it must end.
   */
  asStream(stream: ByteStream): AcceptedStream
  /** The transport has begun to end the connection in order: what is left of it after so many milliseconds is cut. */
  closeWithin(millis: number): void
}

/**
 * A verified connection of a server whose bytes are used as they are.
 *
 * @since 0.1.0
 * @category models
 */
export interface AcceptedStream extends StreamConnection {
  /**
   * Ends it in order (reason `Shutdown`): what was written is sent, and the end of the peer's direction awaited, for at most
   * two seconds.
   */
  readonly unsafeFinish: () => void
}

/**
 * A request on an accepted connection, from its start to its end on record.
 *
 * @since 0.1.0
 * @category models
 */
export interface AcceptedRequest {
  /** The connection has become something else than HTTP, and is not kept open for this request any more. */
  upgraded(): void
  /** The response is out, or will never be. To be called for every request; what comes after the first call is nothing. */
  ended(end: RequestEnd): void
}

/**
 * An acceptor that lives until the scope closes. Fails where our first identity cannot serve.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { PeerMatcher, SpiffeId } from "@agentweave/spiffe"
 * import { Acceptor } from "@agentweave/transport"
 * import { Either } from "effect"
 *
 * // A server of another runtime: it calls `accept` for each TCP connection, and presents the SVID that it is given.
 * const acceptor = Acceptor.make({
 *   authorize: PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/web")),
 *   prepare: ({ svid }) => Either.right({ certificates: svid.certificates, key: svid.privateKey }),
 *   handshakeTimeoutMillis: 10_000,
 *   maxAgeMillis: Number.POSITIVE_INFINITY,
 *   graceMillis: 500,
 *   firstRequestMillis: 60_000,
 *   maxConnections: 10_000,
 *   maxConnectionsPerAddress: 1_000,
 *   maxHandshakes: 500,
 *   maxHandshakesPerAddress: 50
 * })
 * ```
 */
export const make = <A>(
  options: Options<A>
): Effect.Effect<Acceptor<A>, IdentityError, IdentityProvider | AuditLog | Scope.Scope> =>
  Effect.flatMap(IdentityProvider, (identity) => {
    const { verifier: _, ownVerifier: __, ...settings }: internal.Settings<A> = options
    return internal.make(settings, identity)
  })
