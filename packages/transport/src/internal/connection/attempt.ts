import { IdentityError } from "@agentweave/spiffe/IdentityError"
import type { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import { PeerVerificationError } from "@agentweave/spiffe/PeerVerificationError"
import type { VerifiedPeer } from "@agentweave/spiffe/PeerVerifier"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Random from "effect/Random"
import * as Scope from "effect/Scope"
import type { AuditError, AuditLog } from "../../AuditLog.js"
import type { ConnectOptions, Connector } from "../../Connector.js"
import { ScopeClosedError, TimeoutError, type TransportError } from "../../TransportError.js"
import type { Wire } from "../../Wire.js"
import { withFiber } from "../fiber.js"
import { addressOf } from "../http/url.js"
import { type ConnectionUse, type Dial, forBytes, forRequests } from "./connectionUses.js"
import type { Timed } from "./deadlines.js"
import { agree, type Rules } from "./lifetime.js"
import { HandshakePlaces, type Leave } from "./places.js"
import * as records from "./records.js"
import type { SupervisedConnection } from "./supervisedConnection.js"
import { follow, make as makeSupervisor, type Pending, type Supervisor } from "./supervisor.js"
import { verifyWire } from "./wireGate.js"

type Identity = Context.Tag.Service<IdentityProvider>

/** A peer that was verified, the wire it is on, and the identity it was shown. */
interface Met<W extends Wire> {
  readonly context: X509Context
  readonly peer: VerifiedPeer
  readonly wire: W
}

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** The phases in which an attempt waits, each with its limit. */
type Waiting = "Place" | "Identity" | "Handshake"

/** One attempt to connect: what it holds on to, what it waits for, and why it was given up. */
class Attempt<W extends Wire, C extends SupervisedConnection> implements Timed, Pending {
  readonly use: ConnectionUse<W, C>
  readonly options: ConnectOptions
  readonly common: records.Common
  readonly startedAt: number
  readonly date = Number.POSITIVE_INFINITY
  deadline = Number.POSITIVE_INFINITY
  generation = 0
  leave: Leave | undefined = undefined
  destroy: (() => void) | undefined = undefined
  seen: (() => string | undefined) | undefined = undefined
  private waiting: Waiting = "Place"
  private givenUp: TransportError | undefined = undefined
  private fiber: Fiber.RuntimeFiber<unknown, unknown> | undefined = undefined

  constructor(use: ConnectionUse<W, C>, options: ConnectOptions, common: records.Common, startedAt: number) {
    this.use = use
    this.options = options
    this.common = common
    this.startedAt = startedAt
  }

  /** How long the wait for one thing may take, in milliseconds. The wait for an identity is within the request's limit. */
  limit(waiting: Waiting): number {
    const { connectTimeout, timeout } = this.options.config
    const limit = Duration.toMillis(connectTimeout)
    return waiting === "Identity" ? Math.min(limit, Duration.toMillis(timeout)) : limit
  }

  wait(waiting: Waiting, now: number): number {
    this.waiting = waiting
    this.deadline = now + this.limit(waiting)
    return this.deadline
  }

  runOn(fiber: Fiber.RuntimeFiber<unknown, unknown>): void {
    this.fiber = fiber
    if (this.givenUp !== undefined) fiber.unsafeInterruptAsFork(FiberId.none)
  }

  onDeadline(): void {
    this.deadline = Number.POSITIVE_INFINITY
    this.giveUp(this.tooLate())
  }

  abandon(): void {
    this.giveUp(scopeClosed(this.options))
  }

  private giveUp(error: TransportError): void {
    this.givenUp ??= error
    this.fiber?.unsafeInterruptAsFork(FiberId.none)
  }

  /** The phase that the limit ended decides whose fault it is. */
  private tooLate(): TransportError {
    const limit = Duration.millis(this.limit(this.waiting))
    if (this.waiting === "Identity") {
      return new IdentityError({
        reason: "Unavailable",
        description: `expected an identity of our own within ${Duration.format(limit)}, none came; ${this.common.address} was not asked`
      })
    }
    const target = `${PeerMatcher.describe(this.options.matcher)} at ${this.common.address}`
    const seen = this.seen?.()
    return new TimeoutError({
      phase: "Connect",
      outcome: "NotSent",
      limit,
      target,
      ...(seen === undefined ? undefined : { description: `nothing came from ${target}, and before: ${seen}` })
    })
  }

  /** Lets go of everything but the wire of a success. */
  end(): void {
    this.leave?.()
  }

  /** The error of the attempt, once its fiber has ended. */
  failure<E>(cause: Cause.Cause<E>): Cause.Cause<E | TransportError> {
    return this.givenUp !== undefined && Cause.isInterruptedOnly(cause) ? Cause.fail(this.givenUp) : cause
  }
}

const scopeClosed = ({ host, matcher, port }: ConnectOptions): ScopeClosedError =>
  new ScopeClosedError({
    reason: "Connector",
    target: `${PeerMatcher.describe(matcher)} at ${addressOf(host, port)}`
  })

/** There is a bundle of one of the domains the peer may come from: asked before a socket opens. */
const requireBundle = (matcher: PeerMatcher.PeerMatcher, { bundles }: X509Context) => {
  const domains = PeerMatcher.trustDomains(matcher)
  for (const domain of domains) if (bundles.bundles.has(domain)) return Either.right(domains)
  const known = Array.from(bundles.bundles.keys()).join(", ")
  return Either.left(
    new PeerVerificationError({
      expectedId: PeerMatcher.describe(matcher),
      actualId: null,
      reason: "NoBundle",
      description: `expected a bundle of ${Array.from(domains).join(" or ")}, got ${known === "" ? "none" : known}`
    })
  )
}

/** Attempts of one layer: from options to a connection under supervision, or a typed refusal. */
class Attempts {
  private readonly supervisor: Supervisor<SupervisedConnection>
  private readonly identity: Identity
  private readonly places: HandshakePlaces

  constructor(supervisor: Supervisor<SupervisedConnection>, identity: Identity) {
    this.supervisor = supervisor
    this.identity = identity
    this.places = new HandshakePlaces(supervisor.deadlines)
  }

  connect<W extends Wire, C extends SupervisedConnection>(
    use: ConnectionUse<W, C>,
    options: ConnectOptions
  ): Effect.Effect<C, TransportError | AuditError, Scope.Scope> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.suspend(() => {
        const { supervisor } = this
        if (supervisor.isClosed) return Effect.fail(scopeClosed(options))
        const startedAt = supervisor.deadlines.wall()
        const common = supervisor.newCommon(addressOf(options.host, options.port))
        const unrecorded = supervisor.record(records.attempted(startedAt, common, options.matcher))
        if (unrecorded !== undefined) return Effect.fail(unrecorded)
        const attempt = new Attempt(use, options, common, startedAt)
        supervisor.pending.add(attempt)
        return Effect.ensuring(
          this.run(attempt, restore),
          Effect.sync(() => supervisor.settled(attempt))
        )
      })
    )
  }

  private run<W extends Wire, C extends SupervisedConnection>(
    attempt: Attempt<W, C>,
    restore: Restore
  ): Effect.Effect<C, TransportError | AuditError, Scope.Scope> {
    return Effect.flatMap(this.outcome(attempt, restore), (exit) => {
      attempt.end()
      this.supervisor.deadlines.remove(attempt)
      if (exit._tag === "Failure") return this.refuse(attempt, attempt.failure(exit.cause))
      return Effect.flatMap(this.stillStands(attempt, exit.value), (stands) => {
        if (Either.isLeft(stands)) return this.refuse(attempt, Cause.fail(stands.left))
        if (stands.right) return Effect.flatMap(Random.next, (drawn) => this.establish(attempt, exit.value, drawn))
        exit.value.wire.destroy()
        return this.run(attempt, restore)
      })
    })
  }

  /** Runs the attempt in a fiber of its own, which its deadline, the layer's end and the caller's interruption give up. */
  private outcome<W extends Wire, C extends SupervisedConnection>(attempt: Attempt<W, C>, restore: Restore) {
    const { deadlines } = this.supervisor
    attempt.wait("Place", deadlines.now())
    deadlines.add(attempt)
    return Effect.flatMap(Effect.fork(Effect.interruptible(this.meet(attempt))), (fiber) => {
      attempt.runOn(fiber)
      return Effect.catchAllCause(restore(Fiber.await(fiber)), (cause) =>
        Effect.map(Fiber.interrupt(fiber), (exit) =>
          exit._tag === "Failure" ? exit : { _tag: "Failure" as const, cause }
        )
      )
    })
  }

  /** From a place to the verified peer. The place comes first: an attempt that waited is to use the newest identity. */
  private meet<W extends Wire>(attempt: Attempt<W, SupervisedConnection>): Effect.Effect<Met<W>, TransportError> {
    const { address } = attempt.common
    attempt.leave = this.places.tryEnter(address)
    if (attempt.leave !== undefined) return this.present(attempt)
    const hold = (leave: Leave) => {
      attempt.leave = leave
    }
    return Effect.zipRight(
      this.places.enter(address, hold),
      Effect.suspend(() => this.present(attempt))
    )
  }

  private present<W extends Wire>(attempt: Attempt<W, SupervisedConnection>): Effect.Effect<Met<W>, TransportError> {
    const { deadlines, own } = this.supervisor
    const { options } = attempt
    deadlines.touch(attempt.wait("Identity", deadlines.now()))
    return Effect.flatMap(this.identity.x509Context, (context): Effect.Effect<Met<W>, TransportError> => {
      attempt.generation = this.supervisor.generation
      const proven = own.verify(context, deadlines.wall())
      if (Either.isLeft(proven)) return Effect.fail(proven.left)
      const trustDomains = requireBundle(options.matcher, context)
      if (Either.isLeft(trustDomains)) return Effect.fail(trustDomains.left)
      deadlines.touch(attempt.wait("Handshake", deadlines.now()))
      const dialed = attempt.use.dial({
        ...options,
        address: attempt.common.address,
        identity: context,
        trustDomains: trustDomains.right,
        hold: (destroy, seen) => {
          attempt.destroy = destroy
          attempt.seen = seen
        }
      })
      return Effect.flatMap(dialed, (wire) => this.verifyPeer(attempt, wire, context))
    })
  }

  private verifyPeer<W extends Wire>(
    attempt: Attempt<W, SupervisedConnection>,
    wire: W,
    context: X509Context
  ): Effect.Effect<Met<W>, TransportError> {
    attempt.destroy = () => wire.destroy()
    const { deadlines, purpose, verifier } = this.supervisor
    const { matcher } = attempt.options
    const judged = verifyWire(wire, { verifier, bundles: context.bundles, matcher, purpose, now: deadlines.wall() })
    if (Either.isLeft(judged)) return Effect.fail(judged.left)
    const disagreed = attempt.use.disagreement(wire, attempt.options, attempt.common.address)
    if (disagreed !== undefined) return Effect.fail(disagreed)
    return Effect.succeed({ context, peer: judged.right, wire })
  }

  /** An attempt that came to nothing is off the wire and on record before its caller hears of it. */
  private refuse(
    attempt: Attempt<Wire, SupervisedConnection>,
    cause: Cause.Cause<TransportError | AuditError>
  ): Effect.Effect<never, TransportError | AuditError> {
    attempt.destroy?.()
    const { deadlines, record } = this.supervisor
    const time = deadlines.wall()
    const { matcher } = attempt.options
    const unrecorded = record(
      records.refused(time, attempt.common, { matcher, cause, durationMillis: time - attempt.startedAt })
    )
    return unrecorded === undefined ? Effect.failCause(cause) : Effect.fail(unrecorded)
  }

  /**
   * Whether both certificates on a wire stand under the identity of this moment: what changed during the handshake was not
   * asked about it, for it was not among the live connections yet. `false`: our own does not any more; a newer one is there.
   */
  private stillStands<W extends Wire, C extends SupervisedConnection>(
    attempt: Attempt<W, C>,
    met: Met<W>
  ): Effect.Effect<Either.Either<boolean, TransportError>> {
    const { supervisor } = this
    if (supervisor.isClosed) return Effect.succeed(Either.left(scopeClosed(attempt.options)))
    if (attempt.generation === supervisor.generation) return Effect.succeed(Either.right(true))
    return Effect.map(Effect.either(this.identity.x509Context), (newest) => {
      // Merely unavailable: what was delivered last goes on until it expires.
      if (Either.isLeft(newest)) {
        return newest.left.reason === "Withdrawn" ? Either.left(newest.left) : Either.right(true)
      }
      const { own, purpose, verifier } = supervisor
      const { bundles } = newest.right
      const { matcher } = attempt.options
      const now = supervisor.deadlines.wall()
      const again = verifier.verify({ chain: met.peer.chain, bundles, matcher, purpose, now })
      return Either.map(again, () => own.stands(met.context.svid, bundles, now))
    })
  }

  /** A verified peer becomes a live connection, and is on record as one. */
  private establish<W extends Wire, C extends SupervisedConnection>(
    attempt: Attempt<W, C>,
    { context: { svid }, peer, wire }: Met<W>,
    drawn: number
  ): Effect.Effect<C, TransportError | AuditError, Scope.Scope> {
    const { supervisor } = this
    const { common, options } = attempt
    const { config, matcher } = options
    const at = supervisor.deadlines.moment()
    const unrecorded = supervisor.record(
      records.established(at.wall, common, { peer, svid, tls: wire.tls, durationMillis: at.wall - attempt.startedAt })
    )
    if (unrecorded !== undefined) return this.refuse(attempt, Cause.fail(unrecorded))
    const rules: Rules = { lastRequestMillis: { age: 0, other: 0 }, graceMillis: Duration.toMillis(config.timeout) }
    const maxAgeMillis =
      config.maxConnectionAge === undefined ? Number.POSITIVE_INFINITY : Duration.toMillis(config.maxConnectionAge)
    const terms = agree(rules, { maxAgeMillis, expiresAt: Math.min(peer.notAfter, svid.notAfter), drawn }, at)
    const established = { common, wire, peer, matcher, svid, terms, at, idleAt: Number.POSITIVE_INFINITY }
    const connection = attempt.use.establish(supervisor, established, options)
    supervisor.adopt(connection)
    const closed = Effect.async<void>((resume) => attempt.use.close(connection, () => resume(Effect.void)))
    return withFiber((fiber) => {
      // Asked for like this, no tracer costs nothing; `annotateCurrentSpan` makes an error of its absence.
      const span = fiber.currentSpan
      if (span?._tag === "Span") {
        span.attribute("tls.protocol.name", "tls")
        span.attribute("tls.protocol.version", wire.tls.version.replace(/^TLSv/, ""))
        span.attribute("tls.cipher", wire.tls.cipherSuite)
        span.attribute("transport.connection.id", connection.id)
      }
      const scope = Context.unsafeGet(fiber.currentContext, Scope.Scope)
      return Effect.as(Scope.addFinalizer(scope, closed), connection)
    })
  }
}

/** A connector over a dial function, with everything that is promised of a connection. It lives until the scope closes. */
export const make = (
  { dial, dialStream, ownVerifier, verifier }: Dial,
  identity: Identity
): Effect.Effect<Connector["Type"], never, AuditLog | Scope.Scope> =>
  Effect.gen(function* () {
    const supervisor = yield* makeSupervisor<SupervisedConnection>({ side: "Client", verifier, ownVerifier })
    yield* Effect.addFinalizer(() => supervisor.shutdown((connection, reason) => connection.cut(reason)))
    yield* follow(identity, {
      change: (context) => Effect.sync(() => supervisor.reverify(context)),
      withdrawn: () => Effect.sync(() => supervisor.withdraw())
    })
    const attempts = new Attempts(supervisor, identity)
    const requests = forRequests(dial)
    const bytes = forBytes(dialStream)
    return {
      connect: (options) => attempts.connect(requests, options),
      connectStream: (options) => attempts.connect(bytes, options)
    }
  })
