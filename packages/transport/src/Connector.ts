/**
 * Opens one verified connection, and runs one request at a time on it. Applications do not use it; `SecureChannel` and
 * `ConnectionPool` do. It is made from a `Dialer`, which a package that brings sockets implements.
 *
 * @since 0.1.0
 */
import type { PeerMatcher } from "@agentweave/spiffe/PeerMatcher"
import type { VerifiedPeer } from "@agentweave/spiffe/PeerVerifier"
import type { SpiffeId } from "@agentweave/spiffe/SpiffeId"
import type { Headers } from "@effect/platform/Headers"
import type { HttpClientError } from "@effect/platform/HttpClientError"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { RuntimeFiber } from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { CloseReason } from "./AuditEvent.js"
import type { AuditError } from "./AuditLog.js"
import type { TransportConfig } from "./TransportConfig.js"
import type { ConnectionError, TransportError } from "./TransportError.js"
import type { ByteStream } from "./Wire.js"

/**
 * Errors of a request.
 *
 * @since 0.1.0
 * @category models
 */
export type ExchangeError = TransportError | AuditError | HttpClientError

/**
 * The peer a connection is for, where it is, and the limits of opening it.
 *
 * @since 0.1.0
 * @category models
 */
export interface ConnectOptions {
  /** The peer that must be at the other end. */
  readonly matcher: PeerMatcher
  /** Host name or IP address (IPv6 without brackets). */
  readonly host: string
  readonly port: number
  readonly config: TransportConfig
  /**
   * The application protocols to offer, the preferred one first (ALPN, RFC 7301). A stream that offers some is refused where
   * the server agrees to none of them. Default: `http/1.1` for requests, none for a stream.
   */
  readonly protocols?: ReadonlyArray<string> | undefined
  /** Called once, synchronously, when the established connection has ended and is off the wire. */
  readonly onClose: (reason: CloseReason) => void
}

/**
 * One request on one connection.
 *
 * @since 0.1.0
 * @category models
 */
export interface Exchange {
  readonly request: HttpClientRequest
  /** The request target in origin form: path and query (RFC 9112 section 3.2.1), already encoded. */
  readonly path: string
  /** The fiber that runs the request: its context runs a streamed body. */
  readonly fiber: RuntimeFiber<unknown, unknown>
  /**
   * Called once, synchronously, when the exchange no longer occupies the connection: the response's body has been
   * received whole, or it failed, was aborted or was dropped. `connection.isUsable()` then says if it can be used again.
   * `error` is the tag of what it failed with, `"Interrupted"` when the request or its reader gave up, and absent when the
   * exchange ran to its end.
   */
  readonly onSettled: (error?: string) => void
  /** The trace the request belongs to, where it has a span of its own. */
  readonly traceId?: string | undefined
  /** Called once, synchronously, when the head of the final response is known, before `resume`. */
  readonly onStatus?: ((status: number, headers: () => Headers) => void) | undefined
}

/**
 * One verified TLS connection. It carries one exchange at a time; starting a second one is the caller's mistake.
 *
 * @since 0.1.0
 * @category models
 */
export interface Connection {
  /** Unique within the process; the audit log's `connectionId`. */
  readonly id: string
  readonly peer: VerifiedPeer
  /** Our own SPIFFE ID on this connection. */
  readonly ownId: SpiffeId
  /** `host:port` of the peer. */
  readonly address: string
  /** Whether a new exchange may be started: open, idle and not retired. Cheap and synchronous. */
  readonly isUsable: () => boolean
  /**
   * Starts an exchange now, in this very call. `resume` is called at most once, with the response (as soon as its
   * headers are there) or the failure. The returned function aborts it: nothing is resumed after that, the exchange
   * settles within the call, and a connection in an unknown state is closed.
   */
  readonly unsafeStart: (
    exchange: Exchange,
    resume: (result: Effect.Effect<HttpClientResponse, ExchangeError>) => void
  ) => () => void
  /** Takes no new exchange from now on and closes as soon as the one in flight has settled (at once when idle). */
  readonly unsafeRetire: (reason: CloseReason) => void
}

/**
 * One verified TLS connection whose bytes are used as they are. It ends as every other does: at the end of its scope, when it
 * is too old, when a certificate on it expires, when its peer or our own identity is not trusted any more.
 *
 * @since 0.1.0
 * @category models
 */
export interface StreamConnection {
  /** Unique within the process; the audit log's `connectionId`. */
  readonly id: string
  readonly peer: VerifiedPeer
  /** Our own SPIFFE ID on this connection. */
  readonly ownId: SpiffeId
  /** `host:port` of the peer. */
  readonly address: string
  /** The application protocol that was agreed on (ALPN); `undefined` where none was offered. */
  readonly protocol: string | undefined
  readonly stream: ByteStream
  /** Whether bytes may still be sent: it is open, and the certificates on it have not ended. Cheap and synchronous. */
  readonly isUsable: () => boolean
  /** Ends it now, whatever is still to be sent (reason `Aborted`). */
  readonly unsafeAbort: () => void
  /**
   * Calls the listener once, when the connection is off the wire and on record; at once, where it is so already. `error`:
   * why it did not end in order.
   */
  readonly onEnded: (listener: (error: ConnectionError | undefined) => void) => void
}

/**
 * The HTTP request that a stream begins with, such as the opening handshake of a WebSocket.
 *
 * @since 0.1.0
 * @category models
 */
export interface StreamRequest {
  readonly method: string
  /** The request target; its query is not put on record. */
  readonly target: string
  /** Asked once, when the connection has ended: what its record says of how the request ended. */
  readonly end: () => StreamRequestEnd
}

/**
 * How the request that a stream began with has ended.
 *
 * @since 0.1.0
 * @category models
 */
export interface StreamRequestEnd {
  /** Absent where no response came. */
  readonly status?: number | undefined
  /** Why it did not run to its end. Default: the loss of the connection, if that is how it ended. */
  readonly error?: string | undefined
}

/**
 * A stream that this side has opened.
 *
 * @since 0.1.0
 * @category models
 */
export interface OpenedStream extends StreamConnection {
  /**
   * Puts the HTTP request on record that the stream begins with, before it is sent. It ends on record when the connection does.
   * Returns the error where its start cannot be recorded: then it must not be sent.
   */
  readonly unsafeRequestStarted: (request: StreamRequest) => AuditError | undefined
}

/**
 * Opens verified connections.
 *
 * @since 0.1.0
 * @category tags
 */
export class Connector extends Context.Tag("@agentweave/transport/Connector")<
  Connector,
  {
    /**
     * Opens one connection: TCP, TLS with both certificates, the gate, the audit events. Interruption abandons the
     * attempt and leaves no socket. The connection lives until the scope closes (reason `Shutdown`, requests in flight
     * fail), it is retired, or it breaks; and no longer than the connector's own scope, which closes all connections made
     * by it. Fails with `AuditError` when the attempt could not be put on record, and with `ScopeClosedError` (reason
     * `Connector`) when the connector's scope has ended, before the call or during it.
     */
    readonly connect: (options: ConnectOptions) => Effect.Effect<Connection, TransportError | AuditError, Scope.Scope>
    /**
     * The same for a connection that is used as a stream of bytes. When the scope closes, what was written is sent first, for
     * at most a second.
     */
    readonly connectStream: (
      options: ConnectOptions
    ) => Effect.Effect<OpenedStream, TransportError | AuditError, Scope.Scope>
  }
>() {}
