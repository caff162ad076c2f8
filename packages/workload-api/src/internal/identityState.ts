/**
 * The knowledge of the provider as a value, and how each event changes it. Pure: time is an argument.
 */
import { IdentityError, type X509Context } from "@agentweave/spiffe"
import * as Either from "effect/Either"
import { isoDate } from "./dates.js"

/**
 * Why there is nothing to serve. Data, not an error: the stack of an error refers to the state it was made from, which
 * would keep alive the error before it, and that the one before.
 */
export interface Absence {
  readonly reason: "Unavailable" | "Withdrawn"
  readonly description: string
}

export interface IdentityState {
  /** The newest usable snapshot; stays when it expires, until something takes its place. */
  readonly serving: X509Context.X509Context | undefined
  /** A newer one whose SVID is not valid yet. */
  readonly upcoming: X509Context.X509Context | undefined
  /** Whether callers still wait for a first identity, or are told that there is none. */
  readonly waiting: boolean
  /** Why there is nothing to serve, when nothing is: the newest reason. */
  readonly absence: Absence
  /** Whether the agent's stream is up and its last update was good. */
  readonly current: boolean
  /** Whether the expiry of what serves has been announced. */
  readonly expired: boolean
}

const unavailable = (description: string): Absence => ({ reason: "Unavailable", description })

export const initial: IdentityState = {
  serving: undefined,
  upcoming: undefined,
  waiting: true,
  absence: unavailable("no identity has been received yet"),
  current: false,
  expired: false
}

/** A good update: it serves at once, or, when its SVID begins later, from then on. */
export const received = (self: IdentityState, context: X509Context.X509Context, now: number): IdentityState =>
  now < context.svid.notBefore
    ? { ...self, upcoming: context, waiting: false, current: true }
    : { ...self, serving: context, upcoming: undefined, waiting: false, current: true, expired: false }

/** The agent is away, or pushed what cannot be used. What serves goes on serving. */
export const faulty = (self: IdentityState, description: string): IdentityState => ({
  ...self,
  current: false,
  absence:
    self.absence.reason === "Unavailable" ? unavailable(`no identity has been received: ${description}`) : self.absence
})

/**
 * The agent says that there is no identity. Before the first one came it may only not know of us yet
 * (SPIFFE_Workload_Endpoint section 6), so the wait goes on.
 */
export const withdrawn = (self: IdentityState, description: string): IdentityState =>
  self.serving === undefined && self.upcoming === undefined
    ? faulty(self, description)
    : {
        ...self,
        serving: undefined,
        upcoming: undefined,
        absence: { reason: "Withdrawn", description },
        current: false,
        expired: false
      }

/** Callers wait no longer for the first identity. */
export const waitOver = (self: IdentityState): IdentityState => (self.waiting ? { ...self, waiting: false } : self)

/** Lets time pass: what was to come serves, or what serves has expired. */
export const advanced = (self: IdentityState, now: number): IdentityState => {
  const { serving, upcoming } = self
  if (upcoming !== undefined && now >= upcoming.svid.notBefore) {
    return { ...self, serving: upcoming, upcoming: undefined, expired: false }
  }
  if (serving !== undefined && !self.expired && now > serving.svid.notAfter) {
    return { ...self, expired: true, current: false }
  }
  return self
}

/** When {@link advanced} has something to do next; milliseconds since the epoch. Both ends belong to a validity. */
export const nextChange = (self: IdentityState): number | undefined => {
  const begins = self.upcoming?.svid.notBefore
  const ends = self.serving === undefined || self.expired ? undefined : self.serving.svid.notAfter + 1
  return begins === undefined || ends === undefined ? (begins ?? ends) : Math.min(begins, ends)
}

const outdated = ({ svid }: X509Context.X509Context): IdentityError.IdentityError =>
  new IdentityError.IdentityError({
    reason: "Expired",
    description: `expected a successor of ${svid.spiffeId} (serial number ${svid.serialNumber}), got none before it expired at ${isoDate(svid.notAfter)}`
  })

const notYetValid = ({ svid }: X509Context.X509Context): IdentityError.IdentityError =>
  new IdentityError.IdentityError({
    reason: "NotYetValid",
    description: `${svid.spiffeId} (serial number ${svid.serialNumber}) is valid from ${isoDate(svid.notBefore)} on`
  })

/**
 * The identity at an instant; `undefined` while callers wait for the first one. It does not rely on {@link advanced}
 * having been called in time.
 */
export const read = (
  self: IdentityState,
  now: number
): Either.Either<X509Context.X509Context, IdentityError.IdentityError> | undefined => {
  const { upcoming } = self
  const serving = upcoming !== undefined && now >= upcoming.svid.notBefore ? upcoming : self.serving
  if (serving !== undefined) return now > serving.svid.notAfter ? Either.left(outdated(serving)) : Either.right(serving)
  if (upcoming !== undefined) return Either.left(notYetValid(upcoming))
  return self.waiting ? undefined : Either.left(new IdentityError.IdentityError(self.absence))
}

/** Whether there is an identity to serve at an instant. */
export const isHeld = (self: IdentityState, now: number): boolean => {
  const identity = read(self, now)
  return identity !== undefined && Either.isRight(identity)
}
