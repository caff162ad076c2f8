/**
 * Verified connections as sockets of Node, for libraries that bring a protocol of their own and take a stream to speak it on:
 * drivers of databases, caches and queues, HTTP/2 sessions.
 *
 * @since 0.1.0
 */
import type { Duplex } from "node:stream"
import type { TLSSocket } from "node:tls"
import type { InvalidSpiffeIdError } from "@agentweave/spiffe/InvalidSpiffeIdError"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import type { AuditError } from "@agentweave/transport/AuditLog"
import type { Connector } from "@agentweave/transport/Connector"
import type { InvalidConfigError } from "@agentweave/transport/InvalidConfigError"
import * as SecureSocket from "@agentweave/transport/SecureSocket"
import type { TransportError } from "@agentweave/transport/TransportError"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { LazySocket } from "./internal/socket/lazySocket.js"
import * as Opener from "./internal/socket/opener.js"

/**
 * Opens one connection, verifies its peer, and gives Node's socket, on which the handshake is done. It stays under supervision:
 * it ends with the scope, and, with the `ConnectionError` that says why as the error of the socket, when its credentials do.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { connect as connectHttp2 } from "node:http2"
 * import { NodeSecureSocket } from "@agentweave/transport-node"
 * import { Effect } from "effect"
 *
 * const session = Effect.gen(function* () {
 *   const socket = yield* NodeSecureSocket.connect({
 *     peer: "spiffe://example.org/grpc",
 *     host: "grpc.internal",
 *     port: 443,
 *     protocols: ["h2"]
 *   })
 *   return connectHttp2("https://grpc.internal", { createConnection: () => socket })
 * })
 * ```
 */
export const connect = (
  options: SecureSocket.Options
): Effect.Effect<
  TLSSocket,
  TransportError | AuditError | InvalidSpiffeIdError | InvalidConfigError,
  Connector | Scope.Scope
> =>
  Effect.flatMap(SecureSocket.toConnectOptions(options), (to) => Effect.map(Opener.openIn(to), ({ socket }) => socket))

/**
 * A function that gives a new stream with each call, for drivers that ask for one again and again (`stream` of `pg`, a
 * connector of a Redis client). The stream is connected when its peer is verified: it then emits `connect` and what was
 * written is sent. Where it is not, its error is the typed one, and nothing was sent. Whatever address or TLS options the
 * driver has, it is this peer at this address that is connected to: the driver's own TLS is to be off.
 *
 * All of its streams end with the scope.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { NodeSecureSocket } from "@agentweave/transport-node"
 * import { Effect } from "effect"
 *
 * const options = Effect.gen(function* () {
 *   const stream = yield* NodeSecureSocket.makeFactory({ peer: "spiffe://example.org/db", host: "db.internal", port: 5432 })
 *   return { stream, ssl: false, user: "app", database: "app" } // for `new pg.Pool(…)`
 * })
 * ```
 */
export const makeFactory = (
  options: SecureSocket.Options
): Effect.Effect<() => Duplex, InvalidSpiffeIdError | InvalidConfigError, Connector | Scope.Scope> =>
  Effect.gen(function* () {
    const to = yield* SecureSocket.toConnectOptions(options)
    const open = yield* Opener.make(`${PeerMatcher.describe(to.matcher)} at ${to.host}:${to.port}`)
    return () =>
      new LazySocket((onOpen, onFailure) => open(Effect.succeed(to), ({ socket }) => onOpen(socket), onFailure))
  })
