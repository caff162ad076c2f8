import type { PeerMatcher } from "@agentweave/spiffe/PeerMatcher"
import type { VerifiedPeer } from "@agentweave/spiffe/PeerVerifier"
import type { SpiffeId } from "@agentweave/spiffe/SpiffeId"
import type { X509Svid } from "@agentweave/spiffe/X509Svid"
import type { CloseReason } from "../../AuditEvent.js"
import type { Wire } from "../../Wire.js"
import type { Deadlines, Timed } from "./deadlines.js"
import type { FreshCloses } from "./freshCloses.js"
import {
  admits,
  cut,
  dateOf,
  deadlineOf,
  type Event,
  end,
  type Facts,
  gone,
  type Moment,
  open,
  type State,
  step,
  type Terms,
  timePassed
} from "./lifetime.js"
import * as records from "./records.js"

/** Those who look after all connections of a layer. */
export interface Owner {
  readonly deadlines: Deadlines
  readonly record: records.Record
  /** The connection is off the wire and on record. */
  forget(connection: SupervisedConnection): void
  /** Counts what happens: a later call has a higher number. */
  tick(): number
  /** Peers that close connections without a byte. */
  readonly freshCloses: FreshCloses
  /** Nothing was heard of a peer for a whole exchange that began at `since`. */
  suspect(connection: SupervisedConnection, since: number): void
}

/** Everything that is known of a connection when it is established. */
export interface Established {
  readonly common: records.Common
  readonly wire: Wire
  readonly peer: VerifiedPeer
  readonly matcher: PeerMatcher
  /** The SVID we presented on it. */
  readonly svid: X509Svid
  readonly terms: Terms
  readonly at: Moment
  /** See `Facts`. */
  readonly idleAt: number
}

/**
 * One established connection under supervision, on either side: its state, its deadlines, and its end. What it carries is
 * added by `ClientConnection` and `ServedConnection`.
 */
export abstract class SupervisedConnection implements Timed, Facts {
  readonly id: string
  readonly address: string
  readonly peer: VerifiedPeer
  readonly ownId: SpiffeId
  readonly matcher: PeerMatcher
  readonly svid: X509Svid
  deadline: number
  date: number
  requests = 0
  inFlight = 0
  idleAt: number
  protected state: State = open
  protected readonly wire: Wire
  protected readonly owner: Owner
  private readonly common: records.Common
  private readonly terms: Terms
  private readonly establishedAt: Moment
  /** The next deadline of the connection's life. */
  private lifeDeadline: number
  private isGone = false
  private waiting: Array<() => void> | undefined = undefined

  constructor(owner: Owner, established: Established) {
    const { common, terms, wire } = established
    this.owner = owner
    this.common = common
    this.id = common.connectionId
    this.address = common.address
    this.wire = wire
    this.peer = established.peer
    this.matcher = established.matcher
    this.svid = established.svid
    this.ownId = established.svid.spiffeId
    this.terms = terms
    this.establishedAt = established.at
    this.idleAt = established.idleAt
    this.heardAt = owner.tick()
    this.lifeDeadline = deadlineOf(terms, open, this)
    this.deadline = this.lifeDeadline
    this.date = dateOf(terms, open)
  }

  /** Begins the supervision. */
  begin(): void {
    this.owner.deadlines.add(this)
    this.wire.onGone((reason) => this.onGone(reason))
  }

  /** When something was heard of the peer, as the owner counts. */
  heardAt: number

  /** Whether it is HTTP still. */
  takesRequests = true

  /** Whether the peer can still be told that the response in flight is the last one. */
  abstract get canAnnounce(): boolean
  /** Tells the peer so. */
  protected abstract announce(): void
  /** The connection is to be off the wire. `inOrder`: the last bytes may still be on their way. */
  protected abstract close(inOrder: boolean): void
  /** Ends the connection for a reason, what is in flight first. */
  end(reason: CloseReason): void {
    this.move(end(reason))
  }

  /** Ends it now. `onGone` is called when it is off the wire and on record. */
  cut(reason: CloseReason, onGone?: () => void): void {
    if (onGone !== undefined) this.whenGone(onGone)
    this.move(cut(reason))
  }

  whenGone(listener: () => void): void {
    if (this.isGone) listener()
    else this.waiting = [...(this.waiting ?? []), listener]
  }

  onDeadline(at: Moment): void {
    this.move(timePassed, at)
    // A deadline may have moved without an event: a connection that was used is not unused for too long.
    this.reschedule()
  }

  /** Whether it takes requests without an end in sight. */
  get isOpen(): boolean {
    return this.state.phase === "Open"
  }

  /** Whether a request that begins now may be served: the wall clock is asked each time, for a sleeper may be late. */
  protected get admits(): boolean {
    return admits(this.terms, this.state, this.owner.deadlines.wall())
  }

  protected move(event: Event, at: Moment = this.owner.deadlines.moment()): void {
    const before = this.state
    const after = step(this.terms, before, event, this, at)
    if (after === before) return
    this.state = after
    this.date = dateOf(this.terms, after)
    this.owner.deadlines.touchDate(this.date)
    this.reschedule()
    if (after.phase === "Closed") this.close(after.inOrder)
    else if (after.phase === "Draining" && this.canAnnounce) this.announce()
  }

  /** The state, or what it depends on, has changed. */
  protected reschedule(): void {
    this.lifeDeadline = deadlineOf(this.terms, this.state, this)
    this.setNext(Number.POSITIVE_INFINITY)
  }

  /** The earlier of the next deadline of the connection's life and another one is the next. */
  protected setNext(other: number): void {
    this.deadline = Math.min(other, this.lifeDeadline)
    this.owner.deadlines.touch(this.deadline)
  }

  private onGone(how: CloseReason): void {
    if (this.isGone) return
    this.isGone = true
    const { deadlines, record } = this.owner
    const at = deadlines.moment()
    this.move(gone(how), at)
    deadlines.remove(this)
    this.onLost()
    const reason = this.state.phase === "Closed" ? this.state.reason : how
    record(
      records.closed(at.wall, this.common, {
        peer: this.peer,
        reason,
        requests: this.requests,
        wire: this.wire,
        durationMillis: at.wall - this.establishedAt.wall
      })
    )
    this.owner.forget(this)
    this.onClosed(reason)
    const { waiting = [] } = this
    this.waiting = undefined
    for (const listener of waiting) listener()
  }

  /** The connection is off the wire: what is in flight ends before it does on record. */
  protected onLost(): void {}

  /** For the one that asked for the connection. */
  protected abstract onClosed(reason: CloseReason): void
}
