/**
 * The error family of the transport: flat tags, each with what was expected and what was seen.
 *
 * @since 0.1.0
 */
import { IdentityError } from "@agentweave/spiffe/IdentityError"
import { InvalidSpiffeIdError } from "@agentweave/spiffe/InvalidSpiffeIdError"
import { PeerVerificationError } from "@agentweave/spiffe/PeerVerificationError"
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"

export {
  /**
   * This workload's own identity is missing, unusable or refused.
   *
   * @since 0.1.0
   * @category errors
   */
  IdentityError,
  /**
   * A text is not a SPIFFE ID.
   *
   * @since 0.1.0
   * @category errors
   */
  InvalidSpiffeIdError,
  /**
   * The peer's certificate was refused.
   *
   * @since 0.1.0
   * @category errors
   */
  PeerVerificationError
}

/**
 * Whether a request can have had an effect at the peer. `NotSent`: not one byte of it was written, so that even a
 * non-idempotent request may be sent again. `Unknown`: it may have been processed (RFC 9110 section 9.2.2).
 *
 * @since 0.1.0
 * @category models
 */
export const Outcome = Schema.Literal("NotSent", "Unknown")

/**
 * Whether the peer can have acted on the request.
 *
 * @since 0.1.0
 * @category models
 */
export type Outcome = typeof Outcome.Type

/**
 * - `Refused`, `Unreachable`, `Dns`: the peer was never reached.
 * - `HandshakeReset`: the connection was cut before the TLS handshake ended.
 * - `NotTls`: the peer does not speak TLS.
 * - `ProtocolMismatch`: no common TLS version.
 * - `Negotiation`: no common cipher, group or signature algorithm.
 * - `NoAddress`: no directory knows an address for the peer.
 * - `LocalFault`: this side cannot make the connection, which says nothing about the peer: this machine has no file descriptor or
 *   memory left, or the transport carries no streams of bytes.
 * - `Closed`: closed after the request was handed over and before a byte of the response.
 * - `MaybeRefused`: the same of a connection's first request, for the second time in a row: the peer may refuse our
 *   certificate without saying so. It is not retried: a third connection would end like these.
 * - `Lost`: lost in the middle of the response.
 * - `Malformed`: the peer's answer is not valid HTTP.
 *
 * @since 0.1.0
 * @category models
 */
export const ConnectionErrorReason = Schema.Literal(
  "Refused",
  "Unreachable",
  "Dns",
  "HandshakeReset",
  "NotTls",
  "ProtocolMismatch",
  "Negotiation",
  "NoAddress",
  "LocalFault",
  "Closed",
  "MaybeRefused",
  "Lost",
  "Malformed"
)

/**
 * The reasons of a `ConnectionError`.
 *
 * @since 0.1.0
 * @category models
 */
export type ConnectionErrorReason = typeof ConnectionErrorReason.Type

const transientReasons: ReadonlySet<ConnectionErrorReason> = new Set([
  "Refused",
  "Unreachable",
  "Dns",
  "HandshakeReset",
  "Closed",
  "Lost"
])

/**
 * The connection to `address` could not be made, or broke. `code` is the platform's error code where there is one.
 *
 * @since 0.1.0
 * @category errors
 */
export class ConnectionError extends Schema.TaggedError<ConnectionError>()("ConnectionError", {
  reason: ConnectionErrorReason,
  outcome: Outcome,
  address: Schema.String,
  description: Schema.String,
  code: Schema.optional(Schema.String),
  cause: Schema.optional(Schema.Defect)
}) {
  /** Whether the same attempt can succeed later. Whether a *request* may be sent again depends on `outcome` too. */
  get isRetryable(): boolean {
    return transientReasons.has(this.reason)
  }
  override get message(): string {
    const code = this.code === undefined ? "" : ` (${this.code})`
    return `${this.reason}: ${this.description}${code}; peer at ${this.address}, request ${this.outcome === "NotSent" ? "not sent" : "outcome unknown"}`
  }
}

/**
 * - `Acquire`: waiting for a free connection.
 * - `Connect`: TCP connect and TLS handshake.
 * - `Headers`: from the request's start to the response's headers.
 * - `RequestBody`: between two pieces of the request's body, which its own stream did not give.
 * - `Body`: between two pieces of the response's body.
 * - `Read`: the response's body waited for its reader, who did not begin, or did not go on.
 * - `Attempt`, `Total`: the per-attempt timeout and the total deadline of a retry policy.
 *
 * @since 0.1.0
 * @category models
 */
export const TimeoutPhase = Schema.Literal(
  "Acquire",
  "Connect",
  "Headers",
  "RequestBody",
  "Body",
  "Read",
  "Attempt",
  "Total"
)

/**
 * The phases of a request that have a limit.
 *
 * @since 0.1.0
 * @category models
 */
export type TimeoutPhase = typeof TimeoutPhase.Type

/** The phases in which this side waits for itself. */
const ownPhases: ReadonlySet<TimeoutPhase> = new Set(["Acquire", "RequestBody", "Read"])

/**
 * A limit of time passed. `limit` is the limit, `phase` what was being waited for.
 *
 * @since 0.1.0
 * @category errors
 */
export class TimeoutError extends Schema.TaggedError<TimeoutError>()("TimeoutError", {
  phase: TimeoutPhase,
  outcome: Outcome,
  limit: Schema.DurationFromMillis,
  target: Schema.String,
  /** The state at the limit, where more is known than the phase says. */
  description: Schema.optional(Schema.String)
}) {
  /**
   * A slow peer can be faster next time. What this side was slow at (`RequestBody`, `Read`) or had no connection for
   * (`Acquire`, as with `PoolExhaustedError`) is not retried unless a policy asks for it. Whether a *request* may be sent
   * again depends on `outcome` too.
   */
  get isRetryable(): boolean {
    return !ownPhases.has(this.phase)
  }
  override get message(): string {
    const nothing = `nothing came from ${this.target}`
    const [what, seen] = {
      Acquire: ["a free connection", `none became free to ${this.target}`],
      Connect: ["the TCP connection and TLS handshake", nothing],
      Headers: ["the response's headers", nothing],
      RequestBody: ["the next piece of the request's body", `its own stream gave none to send to ${this.target}`],
      Body: ["the next piece of the response's body", nothing],
      Read: ["the response's body to be read", `no reader took more of what came from ${this.target}`],
      Attempt: ["one attempt", nothing],
      Total: ["all attempts", nothing]
    }[this.phase]
    return `${this.phase}: expected ${what} within ${Duration.format(this.limit)}, ${this.description ?? seen}; request ${this.outcome === "NotSent" ? "not sent" : "outcome unknown"}`
  }
}

/**
 * The pool has no connection to give: the limit named by `limit` is reached (`Target`: connections to this peer,
 * `Total`: connections of the whole pool, `Waiting`: fibers already waiting).
 *
 * @since 0.1.0
 * @category errors
 */
export class PoolExhaustedError extends Schema.TaggedError<PoolExhaustedError>()("PoolExhaustedError", {
  targetId: Schema.String,
  maxConnections: Schema.Number,
  limit: Schema.Literal("Target", "Total", "Waiting")
}) {
  /** Connections come back; but retrying at once adds to the load that exhausted the pool, so a policy must ask for it. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    const limit = {
      Target: `${this.maxConnections} connections to this peer`,
      Total: `${this.maxConnections} connections of the whole pool`,
      Waiting: `${this.maxConnections} fibers waiting for a connection`
    }[this.limit]
    return `${this.limit}: no connection to ${this.targetId}: expected fewer than ${limit}, all are taken`
  }
}

/**
 * The pool was closed: its scope has ended.
 *
 * @since 0.1.0
 * @category errors
 */
export class PoolClosedError extends Schema.TaggedError<PoolClosedError>()("PoolClosedError", {
  targetId: Schema.String
}) {
  /** A closed pool does not open again. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `expected an open pool for ${this.targetId}, its scope has ended`
  }
}

/**
 * - `Channel`: the scope a channel was made in.
 * - `Lease`: the scope of a pooled channel's lease, or the effect it was leased for.
 * - `Pool`: the layer of the pool a channel was leased from.
 * - `Connector`: the layer that opens connections and looks after them.
 * - `Adapter`: the scope of an agent, a dispatcher or a factory of streams that another library calls.
 *
 * @since 0.1.0
 * @category models
 */
export const ScopeClosedErrorReason = Schema.Literal("Channel", "Lease", "Pool", "Connector", "Adapter")

/**
 * The scopes whose end a `ScopeClosedError` tells of.
 *
 * @since 0.1.0
 * @category models
 */
export type ScopeClosedErrorReason = typeof ScopeClosedErrorReason.Type

const scopes: { readonly [Reason in ScopeClosedErrorReason]: string } = {
  Channel: "an open channel, its scope has ended: use a channel within the scope it was made in",
  Lease: "a channel whose lease is held, the lease has ended: use a leased channel within the scope of its lease",
  Pool: "an open connection pool, its scope has ended: provide the pool's layer around the whole use of its channels",
  Connector:
    "a connector that is in use, the scope of its layer has ended: provide the connector's layer around the whole use of a channel, not around the effect that makes the channel",
  Adapter:
    "an agent, dispatcher or stream factory that is in use, its scope has ended: use it within the scope it was made in"
}

/**
 * The channel, lease, pool or adapter of a request to `target` has ended: `reason` says whose scope was closed. Nothing was sent. The program
 * is composed wrongly, or it is shutting down. A pool's own operations fail with {@link PoolClosedError}.
 *
 * @since 0.1.0
 * @category errors
 */
export class ScopeClosedError extends Schema.TaggedError<ScopeClosedError>()("ScopeClosedError", {
  reason: ScopeClosedErrorReason,
  target: Schema.String
}) {
  /** A closed scope does not open again: neither a retry policy nor a circuit breaker takes it for the peer's fault. */
  get isRetryable(): boolean {
    return false
  }
  /** Not one byte of a request was written. */
  get outcome(): Outcome {
    return "NotSent"
  }
  override get message(): string {
    return `${this.reason}: expected ${scopes[this.reason]}; peer ${this.target}, request not sent`
  }
}

/**
 * Everything a pool can answer in place of a connection, as a schema.
 *
 * @since 0.1.0
 * @category schemas
 */
export const ConnectionPoolError = Schema.Union(PoolExhaustedError, PoolClosedError)

/**
 * Everything a pool can answer in place of a connection.
 *
 * @since 0.1.0
 * @category errors
 */
export type ConnectionPoolError = PoolExhaustedError | PoolClosedError

/**
 * Whether a pool answered this in place of a connection.
 *
 * @since 0.1.0
 * @category guards
 */
export const isConnectionPoolError: (error: unknown) => error is ConnectionPoolError = Schema.is(ConnectionPoolError)

/**
 * The errors on the way to a verified peer, apart from those of HTTP itself, as a schema.
 *
 * @since 0.1.0
 * @category schemas
 */
export const TransportError = Schema.Union(
  PeerVerificationError,
  IdentityError,
  ConnectionError,
  TimeoutError,
  ScopeClosedError,
  InvalidSpiffeIdError
)

/**
 * The errors on the way to a verified peer, apart from those of HTTP itself.
 *
 * @since 0.1.0
 * @category errors
 */
export type TransportError =
  | PeerVerificationError
  | IdentityError
  | ConnectionError
  | TimeoutError
  | ScopeClosedError
  | InvalidSpiffeIdError

/**
 * Whether a value is an error of the transport's family.
 *
 * @since 0.1.0
 * @category guards
 */
export const isTransportError = (error: unknown): error is TransportError => {
  switch ((error as { readonly _tag?: unknown } | null | undefined)?._tag) {
    case "PeerVerificationError":
    case "IdentityError":
    case "ConnectionError":
    case "TimeoutError":
    case "ScopeClosedError":
    case "InvalidSpiffeIdError":
      return true
    default:
      return false
  }
}
