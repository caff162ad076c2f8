import { IdentityError } from "@agentweave/spiffe/IdentityError"
import * as X509Context from "@agentweave/spiffe/X509Context"
import * as Either from "effect/Either"
import type { OwnIdentity } from "./ownIdentity.js"
import type { Record } from "./records.js"

/** The identity a server serves under, and what its transport has made of it. */
export interface InUse<A> {
  readonly context: X509Context.X509Context
  readonly credentials: A
}

/** Makes of an identity what handshakes need, or says why it cannot. */
export type Prepare<A> = (context: X509Context.X509Context) => Either.Either<A, IdentityError>

/**
 * Takes what is delivered into use, and what of it cannot be used not: with an SVID that may not serve, the last good one
 * goes on, under the new bundles. A withdrawn authority is distrusted at once, whatever becomes of our own SVID.
 */
export class ServerIdentity<A> {
  private readonly own: OwnIdentity
  private readonly prepare: Prepare<A>
  private inUse: InUse<A>
  private until: number
  private withdrawn: IdentityError | undefined = undefined

  private constructor(own: OwnIdentity, prepare: Prepare<A>, inUse: InUse<A>, until: number) {
    this.own = own
    this.prepare = prepare
    this.inUse = inUse
    this.until = until
  }

  /** Fails where the first identity cannot serve. */
  static make<A>(
    own: OwnIdentity,
    prepare: Prepare<A>,
    context: X509Context.X509Context,
    now: number
  ): Either.Either<ServerIdentity<A>, IdentityError> {
    return Either.flatMap(own.verify(context, now), (until) =>
      Either.map(prepare(context), (credentials) => new ServerIdentity(own, prepare, { context, credentials }, until))
    )
  }

  get context(): X509Context.X509Context {
    return this.inUse.context
  }

  get credentials(): A {
    return this.inUse.credentials
  }

  /** The credentials of a handshake that begins now, or why none may begin: our own fault, never the peer's. */
  current(now: number): Either.Either<InUse<A>, IdentityError> {
    if (this.withdrawn !== undefined) return Either.left(this.withdrawn)
    return now <= this.until ? Either.right(this.inUse) : Either.left(this.expired())
  }

  private expired(): IdentityError {
    const { svid } = this.inUse.context
    return new IdentityError({
      reason: "Expired",
      description: `own SVID ${svid.spiffeId}: expected one that is valid, the newest ended at ${new Date(this.until).toISOString()} and no successor came`
    })
  }

  withdraw(error: IdentityError): void {
    this.withdrawn = error
  }

  /** Takes a delivered identity into use, as far as it can be. */
  rotate(next: X509Context.X509Context, now: number, record: Record): void {
    this.withdrawn = undefined
    const discarded = ({ message, reason }: IdentityError, what: string) => {
      // It has served well so far: what cannot be put on record either does not stop it.
      record({ _tag: "IdentityProblem", time: now, problem: "Discarded", reason, description: `${what}: ${message}` })
    }
    const adopt = (context: X509Context.X509Context, until: number) =>
      Either.map(this.prepare(context), (credentials) => {
        this.inUse = { context, credentials }
        this.until = until
      })
    const whole = Either.flatMap(this.own.verify(next, now), (until) => adopt(next, until))
    if (Either.isRight(whole)) return
    discarded(whole.left, "our new SVID cannot serve, the last good one goes on")
    const lastGood = X509Context.make({ svid: this.inUse.context.svid, bundles: next.bundles })
    const part = adopt(lastGood, Math.min(this.until, lastGood.svid.notAfter))
    if (Either.isLeft(part)) discarded(part.left, "a rotated identity cannot be used at all")
  }
}
