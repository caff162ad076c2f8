/**
 * Verified TLS connections for Node: undici's HTTP/1.1 over our own `tls.connect`.
 *
 * @since 0.1.0
 */
import { isIP } from "node:net"
import type { SecureContext, TLSSocket } from "node:tls"
import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import { forEachChange, IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import { PeerVerificationError } from "@agentweave/spiffe/PeerVerificationError"
import * as PeerVerifier from "@agentweave/spiffe/PeerVerifier"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import * as X509Svid from "@agentweave/spiffe/X509Svid"
import { type AuditError, type AuditLog, recorder } from "@agentweave/transport/AuditLog"
import { type Connection, type ConnectOptions, Connector } from "@agentweave/transport/Connector"
import * as RequestTelemetry from "@agentweave/transport/RequestTelemetry"
import { ScopeClosedError, type TransportError } from "@agentweave/transport/TransportError"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Scope from "effect/Scope"
import { forkScoped } from "./internal/background.js"
import { NodeConnection } from "./internal/connection.js"
import { tooSlow } from "./internal/errors.js"
import { type HandshakeError, handshake } from "./internal/handshake.js"
import { HandshakeLimit, type Leave } from "./internal/handshakeLimit.js"
import { securedBy } from "./internal/securedBy.js"
import * as Sweeper from "./internal/sweeper.js"
import { SecureContexts } from "./internal/tls.js"

/**
 * A connection's life ends up to this part of it earlier than it must, drawn at random for each: connections made
 * together do not end together.
 */
const jitter = 0.1

/** `host:port`, an IPv6 address in brackets. */
const addressOf = (host: string, port: number): string => (isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`)

type ConnectError = TransportError | AuditError

/** What a connection is asked for in vain for when the layer has ended. */
const ended = ({ host, matcher, port }: ConnectOptions): ScopeClosedError =>
  new ScopeClosedError({
    reason: "Connector",
    target: `${PeerMatcher.describe(matcher)} at ${addressOf(host, port)}`
  })

/** Closes a connection, whatever is in flight on it. Done when it is off the wire and on record. */
const gone = (connection: NodeConnection): Effect.Effect<void> =>
  Effect.async((resume) => connection.unsafeDestroy("Shutdown", () => resume(Effect.void)))

/** How a failed attempt stands in the audit log. */
const refusal = (cause: Cause.Cause<ConnectError>) =>
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

/** An attempt to connect, and what it holds on to so far. */
interface Started {
  /** Milliseconds since the epoch. */
  readonly time: number
  readonly address: string
  readonly common: { readonly side: "Client"; readonly connectionId: string; readonly address: string }
  /** How often the identity had changed when it was looked at. */
  changes: number
  socket: TLSSocket | undefined
  leave: Leave | undefined
}

/** When, in milliseconds since the epoch, an SVID of ours is known to pass. */
interface Proven {
  readonly from: number
  readonly until: number
}

/** A peer that was verified, the socket it is on, and what of ours it was shown. */
interface Met {
  readonly context: X509Context
  readonly peer: PeerVerifier.VerifiedPeer
  readonly socket: TLSSocket
}

const make = Effect.fnUntraced(function* (
  /** Whether servers are accepted that do not ask for our certificate. */
  oneSided: boolean
) {
  const identity = yield* IdentityProvider
  const record = yield* recorder
  const clock = yield* Effect.clock
  const sweeper = yield* Sweeper.make
  const now = () => clock.unsafeCurrentTimeMillis()
  const verifier = PeerVerifier.make()
  const contexts = new SecureContexts()
  const limit = new HandshakeLimit(sweeper)
  const proven = new WeakMap<X509Context, Proven>()
  const live = new Map<NodeConnection, PeerMatcher.PeerMatcher>()
  /** Attempts under way: each is a fiber of its own, so that the end of the layer can abandon it. */
  const attempts = new Set<Fiber.RuntimeFiber<Connection, ConnectError>>()
  let hasEnded = false
  let nextId = 0
  /** How often the identity has changed. */
  let changes = 0

  const verify = (peer: PeerVerifier.VerifiedPeer, matcher: PeerMatcher.PeerMatcher, { bundles }: X509Context) =>
    verifier.verify({ chain: peer.chain, bundles, matcher, purpose: "ServerAuth", now: now() })

  /** Our own SVID passes the gate its peers will put it through: asked once, and again when a certificate has ended. */
  const proveOurselves = (context: X509Context): Either.Either<Proven, IdentityError> => {
    const time = now()
    const known = proven.get(context)
    if (known !== undefined && known.from <= time && time <= known.until) return Either.right(known)
    const { bundles, svid } = context
    const until = X509Svid.validUntil(svid, { bundles, now: time, verifier, purposes: ["ClientAuth"] })
    return Either.map(until, (until) => {
      const answer = { from: time, until }
      proven.set(context, answer)
      return answer
    })
  }

  /** With what to meet a peer, under the identity of this moment. */
  const prepare = (
    { config, matcher }: ConnectOptions,
    context: X509Context
  ): Either.Either<SecureContext, IdentityError | PeerVerificationError> => {
    const own = proveOurselves(context)
    if (Either.isLeft(own)) return Either.left(own.left)
    const domains = PeerMatcher.trustDomains(matcher)
    // Asked before a socket opens: TLS would only say that it knows no issuer.
    if (!Array.from(domains).some((domain) => context.bundles.bundles.has(domain))) {
      const known = Array.from(context.bundles.bundles.keys()).join(", ")
      return Either.left(
        new PeerVerificationError({
          expectedId: PeerMatcher.describe(matcher),
          actualId: null,
          reason: "NoBundle",
          description: `expected a bundle of ${Array.from(domains).join(" or ")}, got ${known === "" ? "none" : known}`
        })
      )
    }
    return contexts.get(context, domains, config)
  }

  /** From the identity to the verified peer. */
  const meet = (options: ConnectOptions, at: Started): Effect.Effect<Met, HandshakeError> =>
    Effect.flatMap(identity.x509Context, (context) => {
      const secureContext = prepare(options, context)
      if (Either.isLeft(secureContext)) return Effect.fail(secureContext.left)
      at.changes = changes
      const { config, host, matcher, port } = options
      return handshake({
        host,
        port,
        address: at.address,
        timeoutMillis: Duration.toMillis(config.connectTimeout),
        deadline: at.time + Duration.toMillis(config.connectTimeout),
        sweeper,
        secureContext: secureContext.right,
        onSocket: (socket) => {
          at.socket = socket
        },
        onVerified: (peer, socket) => ({ context, peer, socket }),
        verifier,
        bundles: context.bundles,
        matcher,
        purpose: "ServerAuth",
        oneSided,
        now
      })
    })

  /** The attempt itself. Its turn comes before the identity is looked at: whoever waits is to use the newest. */
  const attempt = (options: ConnectOptions, at: Started): Effect.Effect<Met, HandshakeError> => {
    at.leave = limit.tryEnter()
    if (at.leave !== undefined) return meet(options, at)
    const { config, matcher } = options
    const timeoutMillis = Duration.toMillis(config.connectTimeout)
    const tooLate = () => tooSlow({ address: at.address, matcher, timeoutMillis })
    return Effect.flatMap(limit.enter(at.time + timeoutMillis, tooLate), (leave) => {
      at.leave = leave
      return meet(options, at)
    })
  }

  /** An attempt that came to nothing is off the wire and on record before anybody hears of it. */
  const refused = (
    options: ConnectOptions,
    at: Started,
    cause: Cause.Cause<ConnectError>
  ): Effect.Effect<never, ConnectError> => {
    at.socket?.destroy()
    const endedAt = now()
    const unrecorded = record({
      _tag: "ConnectionRefused",
      time: endedAt,
      ...at.common,
      expectedId: PeerMatcher.describe(options.matcher),
      ...refusal(cause),
      durationMillis: endedAt - at.time
    })
    return unrecorded ?? Effect.failCause(cause)
  }

  /** A verified peer becomes a live connection, and is on record as one, or is refused after all. */
  const established = (
    options: ConnectOptions,
    at: Started,
    { context, peer, socket }: Met,
    /** At random, from 0 to 1. */
    drawn: number
  ): Effect.Effect<Connection, ConnectError, Scope.Scope> => {
    const { config, matcher } = options
    const { common } = at
    const { svid } = context
    const endedAt = now()
    const secured = securedBy(socket, peer, svid)
    const unrecorded = record({
      _tag: "ConnectionEstablished",
      time: endedAt,
      ...common,
      ...secured,
      durationMillis: endedAt - at.time
    })
    if (unrecorded !== undefined) return refused(options, at, Cause.fail(unrecorded))
    const part = 1 - jitter * drawn
    const maxAge =
      config.maxConnectionAge === undefined ? Number.POSITIVE_INFINITY : Duration.toMillis(config.maxConnectionAge)
    const connection: NodeConnection = new NodeConnection({
      id: common.connectionId,
      socket,
      host: options.host,
      port: options.port,
      address: at.address,
      peer,
      ownId: svid.spiffeId,
      timeoutMillis: Duration.toMillis(config.timeout),
      bodyTimeoutMillis: Duration.toMillis(config.bodyTimeout ?? config.timeout),
      maxResponseSize: config.maxResponseSize,
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
    return Effect.withFiberRuntime((fiber) => {
      // Asked for like this, no tracer costs nothing; `annotateCurrentSpan` makes an error of its absence.
      const span = fiber.currentSpan
      if (span?._tag === "Span") {
        span.attribute("tls.protocol.name", "tls")
        span.attribute("tls.protocol.version", secured.tlsVersion.replace(/^TLSv/, ""))
        span.attribute("tls.cipher", socket.getCipher().standardName)
        span.attribute("transport.connection.id", connection.id)
      }
      const scope = Context.unsafeGet(fiber.currentContext, Scope.Scope)
      return Effect.as(
        Scope.addFinalizer(scope, gone(connection)),
        RequestTelemetry.observe(connection, { record, now })
      )
    })
  }

  /** One attempt from its first event to its last. Interruption abandons it, and reaches no other part of this. */
  const open = (options: ConnectOptions): Effect.Effect<Connection, ConnectError, Scope.Scope> =>
    Effect.suspend(() => {
      const address = addressOf(options.host, options.port)
      const common = { side: "Client" as const, connectionId: `c${++nextId}`, address }
      const at: Started = { time: now(), address, common, changes, socket: undefined, leave: undefined }
      const expectedId = PeerMatcher.describe(options.matcher)
      const unrecorded = record({ _tag: "ConnectionAttempted", time: at.time, ...common, expectedId })
      if (unrecorded !== undefined) return unrecorded
      return Effect.matchCauseEffect(Effect.interruptible(attempt(options, at)), {
        onFailure: (cause) => {
          at.leave?.()
          const isAbandoned = hasEnded && Cause.isInterruptedOnly(cause)
          return refused(options, at, isAbandoned ? Cause.fail(ended(options)) : cause)
        },
        onSuccess: (met) => {
          at.leave?.()
          const establish = Effect.flatMap(Random.next, (drawn) => established(options, at, met, drawn))
          if (at.changes === changes) return establish
          // Bundles that changed during the handshake were not asked about it: it was not among the live connections yet.
          return Effect.flatMap(Effect.option(identity.x509Context), (newest) => {
            const again = Option.map(newest, (context) => verify(met.peer, options.matcher, context))
            return Option.isSome(again) && Either.isLeft(again.value)
              ? refused(options, at, Cause.fail(again.value.left))
              : establish
          })
        }
      })
    })

  const connect = (options: ConnectOptions): Effect.Effect<Connection, ConnectError, Scope.Scope> =>
    Effect.uninterruptibleMask((restore) => {
      if (hasEnded) return Effect.fail(ended(options))
      return Effect.flatMap(Effect.fork(open(options)), (fiber) => {
        attempts.add(fiber)
        fiber.addObserver(() => attempts.delete(fiber))
        return Effect.onInterrupt(restore(Fiber.join(fiber)), () => Fiber.interrupt(fiber))
      })
    })

  /** Nobody new; what is being opened is abandoned, what is open is closed. Done when all of it is off the wire. */
  const end = Effect.suspend(() => {
    hasEnded = true
    return Effect.zipRight(
      Fiber.interruptAll(Array.from(attempts)),
      Effect.suspend(() => Effect.forEach(Array.from(live.keys()), gone, { concurrency: "unbounded", discard: true }))
    )
  })

  /** Runs the gate again over every live connection: what no longer verifies is drained and closed. */
  const reverify = (context: X509Context) => {
    changes++
    for (const [connection, matcher] of live) {
      if (Either.isLeft(verify(connection.peer, matcher, context))) connection.unsafeRetire("Distrust")
    }
  }

  yield* Effect.addFinalizer(() => end)
  yield* forkScoped(forEachChange(identity, (context) => Effect.sync(() => reverify(context))))

  return { connect }
})

/**
 * Connections for `SecureChannel` and `ConnectionPool`: mutual TLS, full handshakes only, the peer's SVID verified and
 * its ID matched before a byte of a request is written; a server that does not ask for our certificate is refused, since it
 * serves clients without one. At most 32 handshakes of the last 250 milliseconds are under way at a
 * time, so that connections lost together do not come back all at once; the others wait for their turn, within
 * `connectTimeout`. A connection is drained and closed when a bundle it rests on is
 * withdrawn, and at the latest at the earliest notAfter of the certificates on it.
 *
 * When the scope of the layer ends, no connection is opened any more (`ScopeClosedError`, reason `Connector`), and all
 * connections it has opened are closed, whoever uses them. So the layer is provided around the whole use of a channel or a
 * pool, and not around the effect that makes it.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { SecureChannel } from "@agentweave/transport"
 * import { NodeConnector } from "@agentweave/transport-node"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const billing = yield* SecureChannel.make({ peer: "spiffe://example.org/billing", baseUrl: "https://billing.internal" })
 *   const response = yield* billing.get("/invoices/42")
 *   return yield* response.json
 * }).pipe(Effect.scoped, Effect.provide(NodeConnector.layer))
 * ```
 */
export const layer: Layer.Layer<Connector, never, IdentityProvider | AuditLog> = Layer.scoped(Connector, make(false))

/**
 * The same for SPIFFE bundle endpoints (SPIFFE_Federation section 5.2.2), which prove who they are to clients they do not
 * know.
 *
 * @internal
 */
export const layerOneSided: Layer.Layer<Connector, never, IdentityProvider | AuditLog> = Layer.scoped(
  Connector,
  make(true)
)
