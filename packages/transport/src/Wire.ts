/**
 * The seam to sockets, for authors of transports: bytes to a peer, and what TLS says of them. A transport dials
 * (`Dialer`), accepts (`Acceptor`) and carries bytes. Whether a peer is accepted, what stands on record of it, and when its
 * connection ends is decided above the wire, in the same way for all of them. Applications do not use it.
 *
 * @since 0.1.0
 */
import type { PeerVerificationReason } from "@agentweave/spiffe/PeerVerificationError"
import type { VerifiedPeer } from "@agentweave/spiffe/PeerVerifier"
import type { SpiffeId } from "@agentweave/spiffe/SpiffeId"
import type { TrustDomain } from "@agentweave/spiffe/TrustDomain"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import type * as Effect from "effect/Effect"
import type { CloseReason } from "./AuditEvent.js"
import type { ConnectOptions, Exchange, ExchangeError } from "./Connector.js"
import * as url from "./internal/http/url.js"
import type { TransportConfig } from "./TransportConfig.js"
import type { TransportError } from "./TransportError.js"

/**
 * Facts of TLS about a connection whose handshake has just ended.
 *
 * @since 0.1.0
 * @category models
 */
export interface TlsDetails {
  /** As OpenSSL names it: `TLSv1.3`. */
  readonly version: string
  /** As OpenSSL names it, for the record. */
  readonly cipher: string
  /** The cipher suite's IANA name, for spans. */
  readonly cipherSuite: string
  /** The session was resumed, so the peer has proven nothing. Such a connection is refused. */
  readonly resumed: boolean
  /** Why the TLS stack itself does not accept the peer's chain; absent where it does. Two verifiers judge every peer. */
  readonly refusal?: TlsRefusal | undefined
  /**
   * Whether we were asked for a certificate. A server that does not ask serves anyone, and is refused. A server's own side
   * always says `true`.
   */
  readonly certificateRequested: boolean
  /** The application protocol both sides agreed on (ALPN, RFC 7301); absent where they agreed on none. */
  readonly protocol?: string | undefined
}

/**
 * A refusal of the peer's certificates by the TLS library itself.
 *
 * @since 0.1.0
 * @category models
 */
export interface TlsRefusal {
  readonly reason: PeerVerificationReason
  readonly description: string
  readonly cause?: unknown
}

/**
 * One connection whose TLS handshake has succeeded. Nothing has been read from it or written to it yet.
 *
 * @since 0.1.0
 * @category models
 */
export interface Wire {
  readonly tls: TlsDetails
  /** The certificate whose key the peer has proven to hold, DER; `undefined` where it presented none. */
  readonly leaf: () => Uint8Array | undefined
  /** The certificates the peer sent, DER, the leaf first. Asked for only where the leaf is not known yet. */
  readonly chain: () => ReadonlyArray<Uint8Array>
  /** The same by a dearer way, for a transport whose `chain` may lack some: asked for when no path was found. */
  readonly wholeChain?: (() => ReadonlyArray<Uint8Array>) | undefined
  /** Bytes received and sent so far. */
  readonly bytesRead: number
  readonly bytesWritten: number
  /** Whether bytes can still go both ways, as far as is known. Cheap: it is asked for each request. */
  readonly isOpen: boolean
  /** Ends the connection now, where there is one with an error for those that use it. May be called again. */
  readonly destroy: (cause?: TransportError) => void
  /** Calls `listener` once, when the connection is off the wire; soon, where it is so already. */
  readonly onGone: (listener: (reason: GoneReason) => void) => void
}

/**
 * How a connection ended that was not ended by its supervisor. `Idle`: at the time that the peer's `Keep-Alive` had named.
 * `Shutdown`: this side ended it, in order, before the peer did.
 *
 * @since 0.1.0
 * @category models
 */
export type GoneReason = Extract<CloseReason, "PeerClosed" | "Error" | "Idle" | "Shutdown">

/**
 * A wire whose bytes are used as they are, by another protocol than HTTP/1.1.
 *
 * @since 0.1.0
 * @category models
 */
export interface StreamWire extends Wire {
  /** Called once, when the connection is established. */
  readonly stream: () => ByteStream
}

/**
 * The bytes of one connection, in both directions. How it ends is told by `StreamConnection.onEnded`.
 *
 * @since 0.1.0
 * @category models
 */
export interface ByteStream {
  /** Begins to read; one reader at a time. `onEnd`: the peer has sent its last byte. Returns what ends the reading. */
  readonly read: (listener: { readonly onData: (chunk: Uint8Array) => void; readonly onEnd: () => void }) => () => void
  /** Reads no more until `resume`. A few pieces that were on their way may still come. */
  readonly pause: () => void
  readonly resume: () => void
  /** `done` is called when the bytes were handed to the operating system, or with the cause when they never will be. */
  readonly write: (chunk: Uint8Array | string, done: (cause?: unknown) => void) => void
  /** Says that no more bytes follow, after what was written; the peer may still send. `done` as for `write`. */
  readonly end: (done: (cause?: unknown) => void) => void
}

/**
 * A wire of a client, which HTTP exchanges can be put on.
 *
 * @since 0.1.0
 * @category models
 */
export interface HttpWire extends Wire {
  /** Called once, when the connection is established. What an exchange needs is made with the first one: many have none. */
  readonly carry: (connection: Supervision) => HttpCarrier
}

/**
 * HTTP over one wire.
 *
 * @since 0.1.0
 * @category models
 */
export interface HttpCarrier {
  /**
   * Starts an exchange now, in this very call, and sets its deadline; see `Connection.unsafeStart`. `exchange.onSettled` is
   * called once, on the exchange, when it no longer occupies the wire.
   */
  readonly start: (
    exchange: Exchange,
    resume: (result: Effect.Effect<HttpClientResponse, ExchangeError>) => void
  ) => () => void
  /** The deadline set with `Supervision.setDeadline` has passed: the exchange fails with `TimeoutError`. */
  readonly onTimeout: () => void
  /** The connection has ended, is off the wire and on record. */
  readonly onClosed: (reason: CloseReason) => void
}

/**
 * The connection, as the carrier on it sees it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Supervision {
  /** The audit log's `connectionId`. */
  readonly id: string
  /** `host:port` of the peer. */
  readonly address: string
  readonly peer: VerifiedPeer
  /** Our own SPIFFE ID on this connection. */
  readonly ownId: SpiffeId
  /** Exchanges started so far. */
  readonly requests: number
  /** The limits of its exchanges. */
  readonly config: TransportConfig
  /** Monotonic milliseconds, for `setDeadline`. */
  readonly now: () => number
  /** When the exchange has waited for too long, on the clock of `now`; `Infinity` while it waits for nothing of the peer. */
  readonly setDeadline: (deadline: number) => void
  /** The connection is in an unknown state: it takes no exchange any more and ends now. */
  readonly abandon: (reason: CloseReason) => void
}

/**
 * One call of a dialer.
 *
 * @since 0.1.0
 * @category models
 */
export interface DialOptions extends Omit<ConnectOptions, "onClose"> {
  /** `host:port`, for errors; an IPv6 address in brackets. */
  readonly address: string
  /** The credentials to present. They have passed the gate. */
  readonly identity: X509Context
  /** The domains an acceptable peer can come from: what to limit TLS trust anchors to. */
  readonly trustDomains: ReadonlySet<TrustDomain>
  /**
   * Called with what ends the connection, as soon as there is one. It is called back when the attempt comes to nothing,
   * also where that is decided between the dialer's last step and the next one. `seen` says what has failed so far, such as
   * other addresses of the host, for the error of an attempt that takes too long.
   */
  readonly hold: (destroy: () => void, seen?: () => string | undefined) => void
}

/**
 * A TCP connection that has come in.
 *
 * @since 0.1.0
 * @category models
 */
export interface Incoming {
  /** `host:port` of the peer. */
  readonly address: string
  /** Its address without the port, for the limits of one address. */
  readonly host: string
  readonly destroy: () => void
  /** Calls the listener once, when the connection is off the wire. */
  readonly onGone: (listener: () => void) => void
}

/**
 * The acts of a transport for the supervision of one of its connections.
 *
 * @since 0.1.0
 * @category models
 */
export interface Shell {
  /** Whether the peer can still be told that a response in flight is the last one. */
  readonly canAnnounce: () => boolean
  /** Tells the peer so, with every response in flight that still can. */
  readonly announce: () => void
  /**
   * How far sending is: a number that changes whenever the peer takes bytes, `undefined` while none wait to be sent. Absent
   * where there is no limit for it (`Acceptor.Options.sendMillis`).
   */
  readonly sent?: (() => number | undefined) | undefined
  /**
   * Ends the connection. `inOrder`: its last response was just sent and may still be on its way; otherwise at once, with the
   * error for those that use it as a stream of bytes.
   */
  readonly close: (inOrder: boolean, cause?: TransportError) => void
}

/**
 * How a request arrived at a server.
 *
 * @since 0.1.0
 * @category models
 */
export interface RequestLine {
  readonly method: string
  /** The request target as it came; its query is not put on record. */
  readonly target: string
  /** The trace the request belongs to, where it says so. */
  readonly traceId?: string | undefined
  /** The status of its response, where one has begun: asked when the connection is lost before the request has ended. */
  readonly status?: (() => number | undefined) | undefined
}

/**
 * How a request at a server ended.
 *
 * @since 0.1.0
 * @category models
 */
export interface RequestEnd {
  /** Absent where no response began. */
  readonly status?: number | undefined
  /** Why it did not run to its end. */
  readonly error?: string | undefined
  /** A trace that began with the request. */
  readonly traceId?: string | undefined
}

/**
 * The header of the 403 by which a server tells a client, whose chain is good, that it does not authorise its SPIFFE ID. It is
 * the first and only response of its connection, made without reading the request.
 *
 * @since 0.1.0
 * @category constants
 */
export const refusalHeader = "agentweave-peer-refused"

/**
 * The host of a URL or of `host:port` as sockets take it: an IPv6 address without its brackets (RFC 3986 section 3.2.2).
 *
 * @since 0.1.0
 * @category getters
 */
export const hostOf: (hostname: string) => string = url.hostOf

/**
 * A host and a port as in a URL: an IPv6 address in brackets (RFC 3986 section 3.2.2).
 *
 * @since 0.1.0
 * @category getters
 */
export const addressOf: (host: string, port: number) => string = url.addressOf
