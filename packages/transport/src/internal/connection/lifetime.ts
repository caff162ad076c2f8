/**
 * How the life of one connection goes on: a pure function of its terms, its state, what happened, and the time. Clients,
 * servers and the test kit differ in the terms and in nothing else.
 */
import type { CloseReason } from "../../AuditEvent.js"

/** Part of a connection's life by which it ends earlier than it must, at most: connections made together end apart. */
const jitter = 0.1

/** The terms of one connection, agreed when it is established. */
export interface Terms {
  /** When it is old enough to end, in monotonic milliseconds; `Infinity` for never. */
  readonly ageAt: number
  /** When it begins to end because its certificates will, in milliseconds since the epoch. */
  readonly retireAt: number
  /** The earliest notAfter of the certificates on it, in milliseconds since the epoch: no request begins after it. */
  readonly expiresAt: number
  readonly rules: Rules
}

/** The rules for every connection of a layer. */
export interface Rules {
  /**
   * How long a connection that must end waits for one more request, in milliseconds. A client may have sent one before it
   * can know of the end, and would never learn whether it was served. 0 where we send the requests ourselves.
   */
  readonly lastRequestMillis: {
    /** Where the reason is mere age. */
    readonly age: number
    readonly other: number
  }
  /** How long a request in flight may take on a connection that no credentials stand behind any more, in milliseconds. */
  readonly graceMillis: number
}

/** The facts of a connection that a step needs beside its state. */
export interface Facts {
  /** Requests that began and have not ended. */
  readonly inFlight: number
  /** Requests that ever began. */
  readonly requests: number
  /** Whether it is HTTP: once it has become something else, no request is waited for. */
  readonly takesRequests: boolean
  /** When it has been unused for too long, in monotonic milliseconds; looked at while nothing is in flight. */
  readonly idleAt: number
  /** Whether the peer can still be told that the response in flight is the last one. */
  readonly canAnnounce: boolean
}

/**
 * - `Open`: takes requests.
 * - `LastRequest`: takes one more request until `until` (monotonic), and then none.
 * - `Draining`: takes none; ends when nothing is in flight any more, at the latest at `cutAt` (monotonic).
 * - `Closed`: is to be off the wire. `inOrder`: its last response has just been sent, and may still be on its way.
 */
export type State =
  | { readonly phase: "Open" }
  | { readonly phase: "LastRequest"; readonly reason: CloseReason; readonly until: number }
  | { readonly phase: "Draining"; readonly reason: CloseReason; readonly cutAt: number }
  | { readonly phase: "Closed"; readonly reason: CloseReason; readonly inOrder: boolean }

/**
 * - `Time`: time has passed.
 * - `RequestStarted`, `RequestEnded`: as they say; the facts of an end no longer count the request that ended.
 * - `End`: the connection is to end for this reason, what is in flight first.
 * - `Cut`: it is to end now, whatever is in flight. `Gone`: it has ended by itself.
 */
export type Event =
  | { readonly _tag: "Time" }
  | { readonly _tag: "RequestStarted" }
  | { readonly _tag: "RequestEnded" }
  | { readonly _tag: "End"; readonly reason: CloseReason }
  | { readonly _tag: "Cut"; readonly reason: CloseReason }
  | { readonly _tag: "Gone"; readonly reason: CloseReason }

export const open: State = { phase: "Open" }
export const timePassed: Event = { _tag: "Time" }
export const requestStarted: Event = { _tag: "RequestStarted" }
export const requestEnded: Event = { _tag: "RequestEnded" }
export const end = (reason: CloseReason): Event => ({ _tag: "End", reason })
export const cut = (reason: CloseReason): Event => ({ _tag: "Cut", reason })
export const gone = (reason: CloseReason): Event => ({ _tag: "Gone", reason })

/** A moment on both clocks. */
export interface Moment {
  /** Monotonic milliseconds: for how long something takes. */
  readonly mono: number
  /** Milliseconds since the epoch: for the dates of certificates. */
  readonly wall: number
}

/** The terms of a connection that is established now. `drawn` is random, from 0 to 1. */
export const agree = (
  rules: Rules,
  options: { readonly maxAgeMillis: number; readonly expiresAt: number; readonly drawn: number },
  { mono, wall }: Moment
): Terms => {
  const part = 1 - jitter * options.drawn
  const { expiresAt } = options
  return {
    ageAt: mono + Math.ceil(options.maxAgeMillis * part),
    retireAt: Math.min(wall + Math.ceil((expiresAt - wall) * part), expiresAt - rules.lastRequestMillis.other),
    expiresAt,
    rules
  }
}

/** Whether a request that begins now may be served. */
export const admits = (terms: Terms, state: State, wall: number): boolean =>
  (state.phase === "Open" || state.phase === "LastRequest") && wall < terms.expiresAt

/** Whether no credentials, or no owner, stand behind what is in flight any more. */
const isPressing = (terms: Terms, reason: CloseReason, { wall }: Moment): boolean =>
  reason === "Expiry"
    ? wall >= terms.expiresAt
    : reason === "Distrust" || reason === "Withdrawn" || reason === "Shutdown"

/** How long one more request is waited for. */
const lastRequestMillis = ({ rules }: Terms, reason: CloseReason, facts: Facts): number => {
  if (!facts.takesRequests) return 0
  switch (reason) {
    case "Age":
      return rules.lastRequestMillis.age
    case "Expiry":
    case "Withdrawn":
      return rules.lastRequestMillis.other
    case "Distrust":
      return facts.requests === 0 ? 0 : rules.lastRequestMillis.other
    default:
      return 0
  }
}

/** Takes no request any more; ends at once when nothing is in flight. */
const drain = (terms: Terms, reason: CloseReason, inFlight: number, at: Moment): State =>
  inFlight === 0
    ? { phase: "Closed", reason, inOrder: false }
    : {
        phase: "Draining",
        reason,
        cutAt: isPressing(terms, reason, at) ? at.mono + terms.rules.graceMillis : Number.POSITIVE_INFINITY
      }

const beginToEnd = (
  terms: Terms,
  state: Extract<State, { phase: "Open" | "LastRequest" }>,
  reason: CloseReason,
  facts: Facts,
  at: Moment
): State => {
  const wait = at.wall < terms.expiresAt ? lastRequestMillis(terms, reason, facts) : 0
  if (wait === 0 || (facts.inFlight > 0 && facts.canAnnounce)) return drain(terms, reason, facts.inFlight, at)
  const until = at.mono + wait
  // A second reason does not give more time.
  if (state.phase === "LastRequest" && state.until <= until) return state
  return { phase: "LastRequest", reason, until }
}

const onTime = (terms: Terms, state: State, facts: Facts, at: Moment): State => {
  switch (state.phase) {
    case "Open":
      if (at.wall >= terms.retireAt) return beginToEnd(terms, state, "Expiry", facts, at)
      if (at.mono >= terms.ageAt) return beginToEnd(terms, state, "Age", facts, at)
      return facts.inFlight === 0 && at.mono >= facts.idleAt ? drain(terms, "Idle", 0, at) : state
    case "LastRequest":
      if (at.wall >= terms.expiresAt) return drain(terms, "Expiry", facts.inFlight, at)
      return at.mono >= state.until ? drain(terms, state.reason, facts.inFlight, at) : state
    case "Draining":
      if (at.mono >= state.cutAt) return { phase: "Closed", reason: state.reason, inOrder: false }
      return at.wall >= terms.expiresAt && state.cutAt === Number.POSITIVE_INFINITY
        ? { ...state, cutAt: at.mono + terms.rules.graceMillis }
        : state
    case "Closed":
      return state
  }
}

const onEnd = (terms: Terms, state: State, reason: CloseReason, facts: Facts, at: Moment): State => {
  switch (state.phase) {
    case "Open":
    case "LastRequest":
      return beginToEnd(terms, state, reason, facts, at)
    case "Draining":
      // It ends for its first reason; a second one may press.
      return isPressing(terms, reason, at) && at.mono + terms.rules.graceMillis < state.cutAt
        ? { ...state, cutAt: at.mono + terms.rules.graceMillis }
        : state
    case "Closed":
      return state
  }
}

/** The state after an event. The same value where nothing changed: usual requests cost no allocation. */
export const step = (terms: Terms, state: State, event: Event, facts: Facts, at: Moment): State => {
  switch (event._tag) {
    case "Time":
      return onTime(terms, state, facts, at)
    case "RequestStarted":
      return state.phase === "LastRequest" ? drain(terms, state.reason, 1, at) : state
    case "RequestEnded":
      return state.phase === "Draining" && facts.inFlight === 0
        ? { phase: "Closed", reason: state.reason, inOrder: true }
        : state
    case "End":
      return onEnd(terms, state, event.reason, facts, at)
    case "Cut":
    case "Gone":
      if (state.phase === "Closed") return state
      return { phase: "Closed", reason: state.phase === "Draining" ? state.reason : event.reason, inOrder: false }
  }
}

/** When, on the monotonic clock, the next `Time` is due. */
export const deadlineOf = (terms: Terms, state: State, facts: Facts): number => {
  switch (state.phase) {
    case "Open":
      return facts.inFlight === 0 ? Math.min(terms.ageAt, facts.idleAt) : terms.ageAt
    case "LastRequest":
      return state.until
    case "Draining":
      return state.cutAt
    case "Closed":
      return Number.POSITIVE_INFINITY
  }
}

/** When, on the wall clock, the next `Time` is due. */
export const dateOf = (terms: Terms, state: State): number => {
  switch (state.phase) {
    case "Open":
      return terms.retireAt
    case "LastRequest":
      return terms.expiresAt
    case "Draining":
      return Number.isFinite(state.cutAt) ? Number.POSITIVE_INFINITY : terms.expiresAt
    case "Closed":
      return Number.POSITIVE_INFINITY
  }
}
