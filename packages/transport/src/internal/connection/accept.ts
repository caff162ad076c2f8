import { IdentityError } from "@agentweave/spiffe/IdentityError"
import type { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import type { PeerVerificationError } from "@agentweave/spiffe/PeerVerificationError"
import type { PeerVerifier, VerifiedPeer } from "@agentweave/spiffe/PeerVerifier"
import type { X509Svid } from "@agentweave/spiffe/X509Svid"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FiberId from "effect/FiberId"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import { PCGRandom } from "effect/Utils"
import type { AuditEvent } from "../../AuditEvent.js"
import type { AuditError, AuditLog } from "../../AuditLog.js"
import { TimeoutError, type TransportError } from "../../TransportError.js"
import type { Incoming, Shell, Wire } from "../../Wire.js"
import type { Timed } from "./deadlines.js"
import { agree, type Rules } from "./lifetime.js"
import { type Limits, Occupancy } from "./limits.js"
import * as records from "./records.js"
import { SendWatch } from "./sendTimeout.js"
import { ServedConnection } from "./servedConnection.js"
import { type InUse, type Prepare, ServerIdentity } from "./serverIdentity.js"
import { Sums } from "./sums.js"
import { follow, make as makeSupervisor, type Pending, type Supervisor } from "./supervisor.js"
import { verifyWire } from "./wireGate.js"

/** How long, in milliseconds, a connection that must end waits for one more request. Nothing presses where it is mere age. */
const lastRequestMillis = { age: 5_000, other: 500 }

/** How long, in milliseconds, a peer that is told of its refusal may take to hear it. */
const lingerMillis = 1_000

export interface Settings<A> extends Limits {
  readonly authorize: PeerMatcher.PeerMatcher
  readonly prepare: Prepare<A>
  readonly problems?: ((credentials: A, time: number) => ReadonlyArray<AuditEvent>) | undefined
  readonly handshakeTimeoutMillis: number
  readonly maxAgeMillis: number
  readonly graceMillis: number
  /** How long a connection may be open before its first request. */
  readonly firstRequestMillis: number
  /** How long bytes may wait to be sent of which the peer takes none; absent: for ever. */
  readonly sendMillis?: number | undefined
  readonly verifier?: PeerVerifier | undefined
  readonly ownVerifier?: PeerVerifier | undefined
}

/** The decision about a connection whose handshake has ended. */
export type AcceptDecision =
  | { readonly _tag: "Serve"; readonly connection: ServedConnection }
  /** The peer proved who it is and is not authorised: it is told so, and served nothing. */
  | { readonly _tag: "Tell"; readonly error: PeerVerificationError }
  | { readonly _tag: "Close" }

/** The SVID that a handshake was begun with passes no more when it ends. */
const outdated = ({ spiffeId }: X509Svid): IdentityError =>
  new IdentityError({
    reason: "Withdrawn",
    description: `own SVID ${spiffeId}: expected it to pass until the handshake had ended, our bundle no longer holds its authority`
  })

const close: AcceptDecision = { _tag: "Close" }

/** One accepted TCP connection, until it is established or off the wire. */
export class IncomingAttempt<A> implements Timed, Pending {
  readonly address: string
  readonly date = Number.POSITIVE_INFINITY
  deadline: number
  private readonly acceptor: Accepting<A>
  private readonly incoming: Incoming
  private readonly common: records.Common
  private readonly startedAt: number
  private readonly inUse: InUse<A>
  private phase: "Handshake" | "Refused" | "Established" = "Handshake"

  constructor(acceptor: Accepting<A>, incoming: Incoming, common: records.Common, startedAt: number, inUse: InUse<A>) {
    this.acceptor = acceptor
    this.incoming = incoming
    this.address = incoming.address
    this.common = common
    this.startedAt = startedAt
    this.inUse = inUse
    const { deadlines } = acceptor.supervisor
    this.deadline = deadlines.now() + acceptor.settings.handshakeTimeoutMillis
  }

  /** The credentials to present, as the transport prepared them. */
  get credentials(): A {
    return this.inUse.credentials
  }

  onDeadline(): void {
    const { authorize, handshakeTimeoutMillis } = this.acceptor.settings
    this.failed(
      new TimeoutError({
        phase: "Connect",
        outcome: "NotSent",
        limit: Duration.millis(handshakeTimeoutMillis),
        target: `${PeerMatcher.describe(authorize)} at ${this.address}`
      })
    )
    this.incoming.destroy()
  }

  /** The layer's scope has ended. It is on record before the transport says that the handshake was cut: not by the peer. */
  abandon(): void {
    this.refuse(Cause.interrupt(FiberId.none))
    this.incoming.destroy()
  }

  /** The handshake came to nothing. */
  failed(error: TransportError | AuditError): void {
    this.refuse(Cause.fail(error))
  }

  private refuse(cause: Cause.Cause<TransportError | AuditError>): void {
    if (this.phase !== "Handshake") return
    this.endHandshake("Refused")
    const { settings, supervisor } = this.acceptor
    const time = supervisor.deadlines.wall()
    const { authorize: matcher } = settings
    supervisor.record(records.refused(time, this.common, { matcher, cause, durationMillis: time - this.startedAt }))
  }

  private endHandshake(phase: "Refused" | "Established"): void {
    this.phase = phase
    this.deadline = Number.POSITIVE_INFINITY
    this.acceptor.occupancy.handshakeEnded(this.incoming.host)
  }

  /** The handshake has succeeded: the gate decides, in this very call. */
  secured(wire: Wire, shell: Shell): AcceptDecision {
    const { acceptor } = this
    const { settings, supervisor } = acceptor
    if (this.phase !== "Handshake" || supervisor.isClosed) return close
    const { own, purpose, verifier } = supervisor
    const now = supervisor.deadlines.wall()
    // The identity may have changed since the handshake began: it is judged under the one of this moment.
    const current = acceptor.identity.current(now)
    if (Either.isLeft(current)) {
      this.failed(current.left)
      return close
    }
    const { bundles } = current.right.context
    const { svid } = this.inUse.context
    if (current.right !== this.inUse && !own.stands(svid, bundles, now)) {
      this.failed(outdated(svid))
      return close
    }
    const judged = verifyWire(wire, { verifier, bundles, matcher: settings.authorize, purpose, now })
    if (Either.isLeft(judged)) {
      this.failed(judged.left)
      if (judged.left.reason !== "UnexpectedPeer") return close
      this.deadline = supervisor.deadlines.now() + lingerMillis
      supervisor.deadlines.touch(this.deadline)
      return { _tag: "Tell", error: judged.left }
    }
    return this.establish(wire, shell, judged.right, svid)
  }

  private establish(wire: Wire, shell: Shell, peer: VerifiedPeer, svid: X509Svid): AcceptDecision {
    const { acceptor, common } = this
    const { settings, supervisor } = acceptor
    const at = supervisor.deadlines.moment()
    const unrecorded = supervisor.record(
      records.established(at.wall, common, { peer, svid, tls: wire.tls, durationMillis: at.wall - this.startedAt })
    )
    if (unrecorded !== undefined) {
      // The attempt has an end on record, as far as the log takes it.
      this.failed(unrecorded)
      return close
    }
    this.endHandshake("Established")
    const rules: Rules = { lastRequestMillis, graceMillis: settings.graceMillis }
    const expiresAt = Math.min(peer.notAfter, svid.notAfter)
    const terms = agree(rules, { maxAgeMillis: settings.maxAgeMillis, expiresAt, drawn: acceptor.random.number() }, at)
    const connection = new ServedConnection(supervisor, {
      common,
      wire,
      peer,
      matcher: settings.authorize,
      svid,
      terms,
      at,
      idleAt: at.mono + settings.firstRequestMillis,
      shell,
      onEnded: () => {
        acceptor.occupancy.gone(this.incoming.host)
        acceptor.sendWatch.ended()
      }
    })
    supervisor.adopt(connection)
    acceptor.sendWatch.begin()
    supervisor.deadlines.remove(this)
    supervisor.settled(this)
    return { _tag: "Serve", connection }
  }

  /** The TCP connection is off the wire, or belongs to an established connection from now on. */
  gone(): void {
    if (this.phase === "Established") return
    this.refuse(Cause.interrupt(FiberId.none))
    const { occupancy, supervisor } = this.acceptor
    occupancy.gone(this.incoming.host)
    supervisor.deadlines.remove(this)
    supervisor.settled(this)
  }
}

/** Accepts connections for one server. */
export class Accepting<A> {
  readonly settings: Settings<A>
  readonly supervisor: Supervisor<ServedConnection>
  readonly identity: ServerIdentity<A>
  readonly occupancy: Occupancy
  readonly random: PCGRandom
  readonly sendWatch: SendWatch
  private readonly sums: Sums
  /** The state of our identity that refusals were put on record for. */
  private refusedFor = ""

  constructor(
    settings: Settings<A>,
    supervisor: Supervisor<ServedConnection>,
    identity: ServerIdentity<A>,
    random: PCGRandom
  ) {
    this.settings = settings
    this.supervisor = supervisor
    this.identity = identity
    this.random = random
    this.occupancy = new Occupancy(settings)
    this.sums = new Sums(supervisor.deadlines, supervisor.record)
    this.sendWatch = new SendWatch(
      supervisor.deadlines,
      supervisor.live,
      settings.sendMillis ?? Number.POSITIVE_INFINITY
    )
  }

  /** A TCP connection has come in; `undefined` where it is not to be answered: then it has been destroyed. */
  accept(incoming: Incoming): IncomingAttempt<A> | undefined {
    const { occupancy, settings, supervisor, sums } = this
    const refuse = (): undefined => {
      incoming.destroy()
    }
    if (supervisor.isClosed) return refuse()
    const reached = occupancy.reached(incoming.host)
    if (reached !== undefined) {
      sums.add(reached, `expected at most ${occupancy.limit(reached)} (${reached})`)
      return refuse()
    }
    const now = supervisor.deadlines.wall()
    const inUse = this.identity.current(now)
    if (Either.isLeft(inUse)) {
      this.withoutIdentity(incoming, inUse.left, now)
      return refuse()
    }
    const common = supervisor.newCommon(incoming.address)
    if (supervisor.record(records.attempted(now, common, settings.authorize)) !== undefined) return refuse()
    const attempt = new IncomingAttempt(this, incoming, common, now, inUse.right)
    occupancy.accepted(incoming.host)
    supervisor.pending.add(attempt)
    incoming.onGone(() => attempt.gone())
    supervisor.deadlines.add(attempt)
    return attempt
  }

  /** We have no identity to present: the fault is ours. The first refusal of each such state is on record, all are summed. */
  private withoutIdentity(incoming: Incoming, error: IdentityError, now: number): void {
    const { record } = this.supervisor
    const state = error.message
    if (state === this.refusedFor) {
      this.sums.add(`IdentityError ${error.reason}`, error.message)
      return
    }
    this.refusedFor = state
    const common = this.supervisor.newCommon(incoming.address)
    const { authorize: matcher } = this.settings
    if (record(records.attempted(now, common, matcher)) !== undefined) return
    record(records.refused(now, common, { matcher, cause: Cause.fail(error), durationMillis: 0 }))
  }

  /** Puts on record what of the credentials in use cannot be used. They serve well otherwise, whatever the log says. */
  recordProblems(): void {
    const { record } = this.supervisor
    const time = this.supervisor.deadlines.wall()
    const problems = this.settings.problems?.(this.identity.credentials, time) ?? []
    for (const problem of problems) record(problem)
  }

  /** The identity has changed. */
  rotate(next: Parameters<ServerIdentity<A>["rotate"]>[0]): void {
    if (next === this.identity.context) return
    this.refusedFor = ""
    this.identity.rotate(next, this.supervisor.deadlines.wall(), this.supervisor.record)
    this.supervisor.reverify(this.identity.context)
    this.recordProblems()
  }

  withdraw(error: IdentityError): void {
    this.identity.withdraw(error)
    this.supervisor.withdraw()
  }

  /** Accepts nothing new; the idle go at once, requests in flight have their grace. Completes when all is off the wire. */
  readonly shutdown: Effect.Effect<void> = Effect.suspend(() => {
    this.sums.flush()
    return this.supervisor.shutdown((connection, reason) => connection.end(reason))
  })
}

/** An acceptor that lives until the scope closes; fails where our first identity cannot serve. */
export const make = <A>(
  settings: Settings<A>,
  identity: Context.Tag.Service<IdentityProvider>
): Effect.Effect<Accepting<A>, IdentityError, AuditLog | Scope.Scope> =>
  Effect.gen(function* () {
    const { ownVerifier, verifier } = settings
    const supervisor = yield* makeSupervisor<ServedConnection>({ side: "Server", verifier, ownVerifier })
    const random = new PCGRandom(yield* Random.nextInt)
    const context = yield* identity.x509Context
    const own = yield* ServerIdentity.make(supervisor.own, settings.prepare, context, supervisor.deadlines.wall())
    const accepting = new Accepting(settings, supervisor, own, random)
    accepting.recordProblems()
    yield* Effect.addFinalizer(() => accepting.shutdown)
    yield* follow(identity, {
      change: (next) => Effect.sync(() => accepting.rotate(next)),
      withdrawn: (error) => Effect.sync(() => accepting.withdraw(error))
    })
    return accepting
  })
