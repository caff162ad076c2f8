import { forkScoped } from "@agentweave/spiffe/Background"
import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import { forEachChange, type IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import { make as makeVerifier, type PeerVerifier, type Purpose } from "@agentweave/spiffe/PeerVerifier"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import type { X509Svid } from "@agentweave/spiffe/X509Svid"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { CloseReason } from "../../AuditEvent.js"
import { type AuditLog, recorder } from "../../AuditLog.js"
import * as Deadlines from "./deadlines.js"
import { FreshCloses } from "./freshCloses.js"
import { newConnectionId } from "./ids.js"
import { OwnIdentity } from "./ownIdentity.js"
import type { Record } from "./records.js"
import type { Owner, SupervisedConnection } from "./supervisedConnection.js"

export interface Options {
  readonly side: "Client" | "Server"
  /** Judges peers; absent: the gate. */
  readonly verifier?: PeerVerifier | undefined
  /** Judges our own SVID; absent: the gate. */
  readonly ownVerifier?: PeerVerifier | undefined
}

/** An attempt that has not ended. */
export interface Pending {
  /** The layer's scope has ended. */
  readonly abandon: () => void
}

const otherSide = (purpose: Purpose): Purpose => (purpose === "ServerAuth" ? "ClientAuth" : "ServerAuth")

/**
 * The live set of one layer. It verifies every connection again when a bundle changes, ends those that our own identity was
 * withdrawn from, and when its scope ends it admits nothing new and has closed everything when the scope has closed.
 */
export class Supervisor<C extends SupervisedConnection> implements Owner {
  readonly deadlines: Deadlines.Deadlines
  readonly record: Record
  readonly verifier: PeerVerifier
  readonly own: OwnIdentity
  /** The role in which peers present their certificates. */
  readonly purpose: Purpose
  readonly live = new Set<C>()
  readonly pending = new Set<Pending>()
  readonly freshCloses = new FreshCloses()
  /** How often the identity has changed: what was verified before must be verified again. */
  generation = 0
  isClosed = false
  /** More than one scope may wait for the end: that of a server, and those of its apps. */
  private readonly whenEmpty: Array<() => void> = []
  private ticks = 0
  private readonly side: "Client" | "Server"

  constructor(deadlines: Deadlines.Deadlines, record: Record, { ownVerifier, side, verifier }: Options) {
    this.side = side
    this.purpose = side === "Client" ? "ServerAuth" : "ClientAuth"
    this.deadlines = deadlines
    this.record = record
    this.verifier = verifier ?? makeVerifier()
    this.own = new OwnIdentity(ownVerifier ?? makeVerifier(), otherSide(this.purpose))
  }

  /** The fields of every event of a new connection. */
  newCommon(address: string) {
    const { side } = this
    return { side, connectionId: newConnectionId(side), address }
  }

  /** An established connection is looked after from now on. */
  adopt(connection: C): void {
    this.live.add(connection)
    connection.begin()
  }

  forget(connection: C): void {
    this.live.delete(connection)
    this.checkEmpty()
  }

  tick(): number {
    return ++this.ticks
  }

  /**
   * The host behind the address may have vanished: idle connections to it that have heard nothing since are not trusted, so
   * that not each of them costs another request its whole timeout.
   */
  suspect(silent: SupervisedConnection, since: number): void {
    const isSuspect = (other: SupervisedConnection) =>
      other !== silent && other.address === silent.address && other.inFlight === 0 && other.heardAt < since
    for (const connection of Array.from(this.live)) if (isSuspect(connection)) connection.end("Unhealthy")
  }

  /** An attempt has ended, one way or the other. */
  settled(attempt: Pending): void {
    this.pending.delete(attempt)
    this.checkEmpty()
  }

  private checkEmpty(): void {
    if (this.live.size > 0 || this.pending.size > 0) return
    for (const onEmpty of this.whenEmpty.splice(0)) onEmpty()
  }

  /** Runs the gate again over every live connection, under bundles that have changed, and over the SVIDs we showed. */
  reverify({ bundles }: X509Context): void {
    this.generation++
    const { own, purpose, verifier } = this
    const now = this.deadlines.wall()
    const standing = new Map<X509Svid, boolean>()
    for (const connection of Array.from(this.live)) {
      const { matcher, peer, svid } = connection
      const again = verifier.verify({ chain: peer.chain, bundles, matcher, purpose, now })
      const stands = standing.get(svid) ?? own.stands(svid, bundles, now)
      standing.set(svid, stands)
      if (Either.isLeft(again)) connection.end("Distrust")
      else if (!stands) connection.end("Withdrawn")
    }
  }

  /** Our own identity was taken back: the connections that rest on it are drained (Workload API, section 5.2.1). */
  withdraw(): void {
    this.generation++
    for (const connection of Array.from(this.live)) connection.end("Withdrawn")
  }

  /**
   * Admits nothing new, ends everything, and completes when everything is off the wire and on record. Uninterruptible as a
   * finalizer, so nothing in it waits for longer than the connections' own deadlines.
   */
  shutdown(how: (connection: C, reason: CloseReason) => void): Effect.Effect<void> {
    return Effect.async<void>((resume) => {
      this.isClosed = true
      this.whenEmpty.push(() => resume(Effect.void))
      for (const attempt of Array.from(this.pending)) attempt.abandon()
      for (const connection of Array.from(this.live)) how(connection, "Shutdown")
      this.checkEmpty()
    })
  }
}

/** Without connections, until the scope closes. */
export const make = <C extends SupervisedConnection>(
  options: Options
): Effect.Effect<Supervisor<C>, never, AuditLog | Scope.Scope> =>
  Effect.gen(function* () {
    const record = yield* recorder
    const deadlines = yield* Deadlines.make
    return new Supervisor<C>(deadlines, record, options)
  })

/**
 * Follows the identity until the scope closes: each change, and each time that it is lost. A loss that is no withdrawal
 * changes nothing: what was delivered last goes on until it expires. The end of the provider is as good as a withdrawal:
 * nobody would tell that an authority is not trusted any more.
 */
export const follow = (
  identity: Context.Tag.Service<IdentityProvider>,
  on: {
    readonly change: (context: X509Context) => Effect.Effect<void>
    readonly withdrawn: (error: IdentityError) => Effect.Effect<void>
  }
): Effect.Effect<void, never, Scope.Scope> => {
  const changes = Stream.tapError(identity.changes, (error) =>
    error.reason === "Withdrawn" ? on.withdrawn(error) : Effect.void
  )
  const onEnd = Effect.catchAll(Effect.asVoid(identity.x509Context), on.withdrawn)
  return Effect.asVoid(forkScoped(Effect.zipRight(forEachChange({ changes }, on.change), onEnd)))
}
