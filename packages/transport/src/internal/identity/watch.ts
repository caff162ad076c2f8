/** One watch over an identity for all who ask for it, so that nothing is put on record twice. */

import { forkScoped } from "@agentweave/spiffe/Background"
import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import type { IdentityProblem } from "@agentweave/spiffe/IdentityProblem"
import { type IdentityProvider, problems, states } from "@agentweave/spiffe/IdentityProvider"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { sequential } from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { AuditEvent } from "../../AuditEvent.js"
import type { AuditError, AuditLog } from "../../AuditLog.js"
import { differences, freshnessOf, overdue, reported, untilNextFreshness } from "./events.js"
import * as IdentityMetrics from "./metrics.js"

type Identity = Context.Tag.Service<IdentityProvider>
type Log = Context.Tag.Service<AuditLog>

/** The state of an identity, as far as one log has been told. It outlives the watch: a later one goes on from it. */
interface SharedWatch {
  current: X509Context | undefined
  /** The last state of an SVID that was told: each is told once. */
  overdue: string
  users: number
  watching: Scope.CloseableScope | undefined
  readonly turn: Effect.Semaphore
}

/** By log and provider; nothing here keeps either alive. */
const known = new WeakMap<Log, WeakMap<Identity, SharedWatch>>()

/** The problems a log was told: a provider passes on those of the provider it wraps, and both may be watched. */
const recorded = new WeakMap<Log, WeakSet<IdentityProblem>>()

const watchOf = (log: Log, identity: Identity): SharedWatch => {
  const ofLog = known.get(log) ?? new WeakMap<Identity, SharedWatch>()
  known.set(log, ofLog)
  const found = ofLog.get(identity) ?? {
    current: undefined,
    overdue: "",
    users: 0,
    watching: undefined,
    turn: Effect.unsafeMakeSemaphore(1)
  }
  ofLog.set(identity, found)
  return found
}

/** Whether a problem is news to this log. */
const isNews = (log: Log, problem: IdentityProblem): boolean => {
  const before = recorded.get(log) ?? new WeakSet()
  recorded.set(log, before)
  if (before.has(problem)) return false
  before.add(problem)
  return true
}

export interface Settings {
  readonly identity: Identity
  readonly log: Log
  readonly record: (event: AuditEvent) => AuditError | undefined
  readonly interval: Duration.DurationInput
}

/** Starts the fibers that watch; they end with the scope. */
const watch = Effect.fnUntraced(function* (
  self: SharedWatch,
  { identity, interval, log, record }: Settings
): Effect.fn.Return<void, never, Scope.Scope> {
  const wake = yield* Queue.sliding<void>(1)

  /** A sink that fails, or throws, is its own trouble: the identity rotates, and the next event is offered all the same. */
  const note = (event: AuditEvent): Effect.Effect<void> =>
    Effect.catchAllCause(
      Effect.suspend(() => record(event) ?? Effect.void),
      (cause) => Effect.logError("an event of our own identity could not be put on record", cause)
    )

  const noteOverdue = (context: X509Context, state: "Stale" | "Expired", event: AuditEvent) =>
    Effect.suspend(() => {
      const told = `${state} ${context.svid.fingerprint}`
      if (self.overdue === told) return Effect.void
      self.overdue = told
      return note(event)
    })

  const measure = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    const { current } = self
    const state = freshnessOf(current, now)
    IdentityMetrics.unsafeUpdate(state, current === undefined ? undefined : (current.svid.notAfter - now) / 1000)
    if (current === undefined || state === "Fresh" || state === "None") return
    yield* noteOverdue(current, state, overdue(current, state, now))
  })

  const onChange = (next: X509Context) =>
    Effect.gen(function* () {
      const events = differences(self.current, next, yield* Clock.currentTimeMillis)
      self.current = next
      yield* Effect.forEach(events, note, { discard: true })
      yield* measure
      yield* Queue.offer(wake, undefined)
    })

  const onLoss = (error: IdentityError) =>
    Effect.suspend(() => {
      if (error.reason === "Withdrawn") self.current = undefined
      return measure
    })

  /** That an SVID has expired, the clock says too. */
  const onProblem = (problem: IdentityProblem) =>
    Effect.gen(function* () {
      if (!isNews(log, problem)) return
      const { current } = self
      const isClock = problem.kind === "Expired" && current !== undefined && problem.time >= current.svid.notAfter
      yield* isClock ? noteOverdue(current, "Expired", reported(problem)) : note(reported(problem))
    })

  const ticks = Effect.gen(function* () {
    yield* measure
    const now = yield* Clock.currentTimeMillis
    const limit = Math.min(Duration.toMillis(interval), untilNextFreshness(self.current, now))
    yield* Effect.timeoutOption(Queue.take(wake), limit)
  })

  const changes = Stream.runForEach(states(identity), Either.match({ onLeft: onLoss, onRight: onChange }))
  const ofSource = Stream.runForEach(problems(identity), onProblem)
  for (const fiber of [changes, ofSource, Effect.forever(ticks)]) {
    yield* forkScoped(fiber)
  }
})

const enter = (self: SharedWatch, settings: Settings): Effect.Effect<void> =>
  self.turn.withPermits(1)(
    Effect.gen(function* () {
      self.users += 1
      if (self.watching !== undefined) return
      const scope = yield* Scope.make(sequential)
      self.watching = scope
      yield* Scope.extend(watch(self, settings), scope)
    })
  )

const leave = (self: SharedWatch): Effect.Effect<void> =>
  self.turn.withPermits(1)(
    Effect.suspend(() => {
      self.users -= 1
      const { watching } = self
      if (self.users > 0 || watching === undefined) return Effect.void
      self.watching = undefined
      return Scope.close(watching, Exit.void)
    })
  )

/** Watches until the scope closes, together with all who watch this identity for this log. */
export const make = (settings: Settings): Effect.Effect<void, never, Scope.Scope> =>
  Effect.suspend(() => {
    const self = watchOf(settings.log, settings.identity)
    return Effect.acquireRelease(enter(self, settings), () => leave(self))
  })
