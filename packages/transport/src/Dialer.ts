/**
 * How a transport reaches peers, and the `Connector` that is made of it. For authors of transports: a dialer opens sockets
 * and speaks TLS; who is at the other end is decided by the connector, as is everything that stands on record and the life
 * of every connection.
 *
 * @since 0.1.0
 */
import { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import type { PeerVerifier } from "@agentweave/spiffe/PeerVerifier"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { AuditLog } from "./AuditLog.js"
import { Connector } from "./Connector.js"
import * as internal from "./internal/connection/attempt.js"
import type { TransportError } from "./TransportError.js"
import type { DialOptions, HttpWire, StreamWire } from "./Wire.js"

/**
 * Opens TLS connections, for authors of transports; judging the peer is not its duty.
 *
 * @since 0.1.0
 * @category models
 */
export interface Dialer {
  /**
   * Opens one connection and ends its TLS handshake, presenting the identity given. It neither judges the peer nor limits
   * its own time: interruption abandons the attempt and leaves no socket.
   */
  readonly dial: (options: DialOptions) => Effect.Effect<HttpWire, TransportError>
  /** The same for a connection whose bytes are used as they are. Absent: `Connector.connectStream` fails with
   * `ConnectionError` `LocalFault`. */
  readonly dialStream?: ((options: DialOptions) => Effect.Effect<StreamWire, TransportError>) | undefined
  /**
   * Judges the peers of this dialer's wires. Absent: the gate. For networks without certificates, such as a test's: our own
   * SVID passes the gate in any case.
   */
  readonly verifier?: PeerVerifier | undefined
}

/**
 * A connector over a dialer. When the layer's scope ends nothing is opened any more (`ScopeClosedError`), attempts under way
 * are given up, and every connection is closed and on record before the scope has closed.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Dialer, type TransportError, type Wire } from "@agentweave/transport"
 * import { Effect } from "effect"
 *
 * declare const openTls: (options: Wire.DialOptions) => Effect.Effect<Wire.HttpWire, TransportError.TransportError>
 *
 * const ConnectorLive = Dialer.layer(Effect.succeed({ dial: openTls }))
 * ```
 */
export const layer = <E, R>(
  dialer: Effect.Effect<Dialer, E, R>
): Layer.Layer<Connector, E, IdentityProvider | AuditLog | Exclude<R, Scope.Scope>> =>
  Layer.scoped(
    Connector,
    Effect.gen(function* () {
      const { dial, dialStream, verifier } = yield* dialer
      return yield* internal.make({ dial, dialStream, verifier }, yield* IdentityProvider)
    })
  )
