/**
 * Verified TLS connections for Node: undici's HTTP/1.1 over our own `tls.connect`.
 *
 * @since 0.1.0
 */
import { isIP } from "node:net"
import type { TLSSocket } from "node:tls"
import { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import { PeerVerificationError } from "@agentweave/spiffe/PeerVerificationError"
import * as PeerVerifier from "@agentweave/spiffe/PeerVerifier"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import * as X509Svid from "@agentweave/spiffe/X509Svid"
import { type AuditError, type AuditLog, recorder } from "@agentweave/transport/AuditLog"
import { type Connection, type ConnectOptions, Connector } from "@agentweave/transport/Connector"
import * as RequestTelemetry from "@agentweave/transport/RequestTelemetry"
import type { TransportError } from "@agentweave/transport/TransportError"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { NodeConnection } from "./internal/connection.js"
import { handshake } from "./internal/handshake.js"
import * as Sweeper from "./internal/sweeper.js"
import { SecureContexts } from "./internal/tls.js"

/**
 * A connection's life ends up to this part of it earlier than it must, drawn at random for each: connections made
 * together do not end together.
 */
const jitter = 0.1

/** `host:port`, an IPv6 address in brackets. */
const addressOf = (host: string, port: number): string => (isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`)

/** How a failed attempt stands in the audit log. */
const refusal = (cause: Cause.Cause<TransportError>) =>
  Option.match(Cause.failureOption(cause), {
    onNone: () => ({
      actualId: null,
      error: "Interrupted",
      reason: "Interrupted",
      description: "the attempt was given up before it ended"
    }),
    onSome: (error) => ({
      actualId: error._tag === "PeerVerificationError" ? error.actualId : null,
      error: error._tag,
      reason:
        error._tag === "TimeoutError" ? error.phase : error._tag === "InvalidSpiffeIdError" ? error.rule : error.reason,
      description: error.message
    })
  })

/** How soon a lost stream of identity changes is asked for again. */
const resubscribeAfter = "250 millis"

const make = Effect.gen(function* () {
  const identity = yield* IdentityProvider
  const record = yield* recorder
  const clock = yield* Effect.clock
  const sweeper = yield* Sweeper.make
  const now = () => clock.unsafeCurrentTimeMillis()
  const verifier = PeerVerifier.make()
  const contexts = new SecureContexts()
  const live = new Map<NodeConnection, PeerMatcher.PeerMatcher>()
  let nextId = 0

  const verify = (peer: PeerVerifier.VerifiedPeer, matcher: PeerMatcher.PeerMatcher, { bundles }: X509Context) =>
    verifier.verify({ chain: peer.chain, bundles, matcher, purpose: "ServerAuth", now: now() })

  /** The attempt itself: everything up to the verified peer. */
  const attempt = Effect.fnUntraced(function* (
    options: ConnectOptions,
    address: string,
    onSocket: (socket: TLSSocket) => void
  ) {
    const { config, matcher } = options
    const context = yield* identity.x509Context
    // Our own SVID passes the gate its peers will put it through; the verifier remembers the answer.
    yield* X509Svid.validate(context.svid, {
      bundles: context.bundles,
      now: now(),
      verifier,
      purposes: ["ClientAuth"]
    })
    const domains = PeerMatcher.trustDomains(matcher)
    // Asked before a socket opens: TLS would only say that it knows no issuer.
    if (!Array.from(domains).some((domain) => context.bundles.bundles.has(domain))) {
      const known = Array.from(context.bundles.bundles.keys()).join(", ")
      return yield* new PeerVerificationError({
        expectedId: PeerMatcher.describe(matcher),
        actualId: null,
        reason: "NoBundle",
        description: `expected a bundle of ${Array.from(domains).join(" or ")}, got ${known === "" ? "none" : known}`
      })
    }
    const secureContext = yield* contexts.get(context, domains, config)
    const peer = yield* handshake({
      host: options.host,
      port: options.port,
      address,
      timeoutMillis: Duration.toMillis(config.connectTimeout),
      sweeper,
      secureContext,
      onSocket,
      verifier,
      bundles: context.bundles,
      matcher,
      purpose: "ServerAuth",
      now
    })
    return { context, peer }
  })

  const connect = (options: ConnectOptions): Effect.Effect<Connection, TransportError | AuditError, Scope.Scope> =>
    Effect.uninterruptibleMask(
      Effect.fnUntraced(function* (restore) {
        const { config, matcher } = options
        const address = addressOf(options.host, options.port)
        const expectedId = PeerMatcher.describe(matcher)
        const startedAt = now()
        const common = { side: "Client" as const, connectionId: `c${++nextId}`, address }
        const unrecorded = record({ _tag: "ConnectionAttempted", time: startedAt, ...common, expectedId })
        if (unrecorded !== undefined) return yield* unrecorded

        let socket: TLSSocket | undefined
        const made = yield* Effect.exit(
          restore(
            attempt(options, address, (made) => {
              socket = made
            })
          )
        )
        const part = 1 - jitter * (yield* Random.next)
        // Bundles that changed during the handshake were not asked about it: it was not among the live connections yet.
        const newest = Exit.isSuccess(made) ? yield* Effect.option(identity.x509Context) : Option.none()
        const exit = Exit.flatMap(made, ({ context, peer }) =>
          Option.isNone(newest) || newest.value === context
            ? made
            : Either.match(verify(peer, matcher, newest.value), { onLeft: Exit.fail, onRight: () => made })
        )
        const endedAt = now()
        if (exit._tag === "Failure" || socket === undefined) {
          socket?.destroy()
          const cause = exit._tag === "Failure" ? exit.cause : Cause.empty
          const error = record({
            _tag: "ConnectionRefused",
            time: endedAt,
            ...common,
            expectedId,
            ...refusal(cause),
            durationMillis: endedAt - startedAt
          })
          return yield* error ?? Effect.failCause(cause)
        }

        const { context, peer } = exit.value
        const { svid } = context
        const maxAge =
          config.maxConnectionAge === undefined ? Number.POSITIVE_INFINITY : Duration.toMillis(config.maxConnectionAge)
        const notEstablished = record({
          _tag: "ConnectionEstablished",
          time: endedAt,
          ...common,
          peerId: peer.spiffeId,
          peerSerialNumber: peer.serialNumber,
          peerFingerprint: peer.fingerprint,
          ownId: svid.spiffeId,
          ownSerialNumber: svid.serialNumber,
          ownFingerprint: svid.fingerprint,
          bundleGeneration: peer.bundleGeneration,
          tlsVersion: socket.getProtocol() ?? "unknown",
          cipher: socket.getCipher().name,
          durationMillis: endedAt - startedAt
        })
        if (notEstablished !== undefined) {
          socket.destroy()
          return yield* notEstablished
        }
        const connection: NodeConnection = new NodeConnection({
          id: common.connectionId,
          socket,
          host: options.host,
          port: options.port,
          address,
          peer,
          ownId: svid.spiffeId,
          timeoutMillis: Duration.toMillis(config.timeout),
          agesAt: endedAt + maxAge * part,
          expiresAt: endedAt + (Math.min(peer.notAfter, svid.notAfter) - endedAt) * part,
          sweeper,
          onClosed: (report) => {
            live.delete(connection)
            const time = now()
            record({
              _tag: "ConnectionClosed",
              time,
              ...common,
              peerId: peer.spiffeId,
              ...report,
              durationMillis: time - endedAt
            })
            options.onClose(report.reason)
          }
        })
        live.set(connection, matcher)
        yield* Effect.addFinalizer(() =>
          Effect.async<void>((resume) => connection.unsafeDestroy("Shutdown", () => resume(Effect.void)))
        )
        yield* Effect.annotateCurrentSpan({
          "tls.protocol.name": "tls",
          "tls.protocol.version": (socket.getProtocol() ?? "").replace(/^TLSv/, ""),
          "tls.cipher": socket.getCipher().standardName,
          "transport.connection.id": connection.id
        })
        return RequestTelemetry.observe(connection, { record, now })
      })
    )

  /** Runs the gate again over every live connection: what no longer verifies is drained and closed. */
  const reverify = (context: X509Context) => {
    for (const [connection, matcher] of live) {
      if (Either.isLeft(verify(connection.peer, matcher, context))) connection.unsafeRetire("Distrust")
    }
  }

  // The stream ends with an error when the identity is lost; it is asked for again, so that its return is seen.
  yield* Stream.runForEach(identity.changes, (context) => Effect.sync(() => reverify(context))).pipe(
    Effect.retry(Schedule.spaced(resubscribeAfter)),
    Effect.ignore,
    Effect.forkScoped
  )

  return { connect }
})

/**
 * Connections for `SecureChannel` and `ConnectionPool`: mutual TLS, full handshakes only, the peer's SVID verified and
 * its ID matched before a byte of a request is written; a connection is drained and closed when a bundle it rests on is
 * withdrawn, and at the latest at the earliest notAfter of the certificates on it.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<Connector, never, IdentityProvider | AuditLog> = Layer.scoped(Connector, make)
