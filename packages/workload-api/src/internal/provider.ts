/** The Effect around {@link IdentityState}: the stream of updates, the clock, and those who listen. */
import {
  IdentityError,
  IdentityProblem,
  IdentityProvider,
  type SpiffeId,
  X509Bundle,
  X509BundleSet,
  X509Context,
  type X509Svid
} from "@agentweave/spiffe"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FiberHandle from "effect/FiberHandle"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import * as Ref from "effect/Ref"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { WorkloadApiError } from "../WorkloadApiError.js"
import type { WorkloadApiEvent } from "../WorkloadApiEvent.js"
import { forkScoped } from "./background.js"
import * as State from "./identityState.js"
import * as Problems from "./problems.js"
import type { Delivered, Refusal } from "./update.js"

export type Selection = { readonly hint: string } | { readonly spiffeId: SpiffeId.SpiffeId }

/** What a message is read by: at which time, and next to which bundles. */
export interface ReadContext {
  /** Milliseconds since the epoch. */
  readonly now: number
  readonly known: X509BundleSet.X509BundleSet
}

export interface Settings<Message> {
  /** One call to the agent each time it is run. */
  readonly messages: Stream.Stream<Message, WorkloadApiError>
  readonly read: (message: Message, context: ReadContext) => Either.Either<Delivered, Refusal>
  readonly select: Selection | undefined
  readonly initialTimeout: Duration.Duration
  readonly responseTimeout: Duration.Duration
  readonly reconnectSchedule: Schedule.Schedule<unknown, WorkloadApiError>
  /** Whether the schedule is cut short while there is no valid identity. */
  readonly hurriesWithoutIdentity: boolean
  readonly onEvent: (event: WorkloadApiEvent) => Effect.Effect<void>
}

export interface Provider extends Context.Tag.Service<IdentityProvider.IdentityProvider> {
  readonly problems: Stream.Stream<IdentityProblem.IdentityProblem>
  readonly agentHealth: Effect.Effect<"Healthy" | "Degraded">
}

const iso = (millis: number): string => new Date(millis).toISOString()

type WithoutTime<A> = A extends unknown ? Omit<A, "time"> : never

type BundleEvent = WithoutTime<Extract<WorkloadApiEvent, { readonly _tag: "BundleDiscarded" | "AuthoritiesLeftOut" }>>

/** The SVID the program asked for, else the agent's first (SPIFFE_Workload_API section 8). */
const choose = ({ svids }: Delivered, select: Selection | undefined): X509Svid.X509Svid | undefined => {
  if (select === undefined) return svids[0]
  return svids.find((svid) => ("hint" in select ? svid.hint === select.hint : svid.spiffeId === select.spiffeId))
}

const describeSelection = (select: Selection | undefined): string =>
  select === undefined ? "the default SVID" : "hint" in select ? `hint ${JSON.stringify(select.hint)}` : select.spiffeId

const sameSvids = (self: X509Context.X509Context, that: X509Context.X509Context): boolean =>
  self.svids.length === that.svids.length &&
  self.svids.every((svid, index) => {
    const other = that.svids[index]
    return svid.fingerprint === other?.fingerprint && svid.hint === other.hint
  })

/** After a reconnect the agent repeats itself: what did not change is no rotation. */
const keepIfSame = (
  known: X509Context.X509Context | undefined,
  next: X509Context.X509Context
): X509Context.X509Context =>
  known !== undefined && known.bundles.generation === next.bundles.generation && sameSvids(known, next) ? known : next

const noSuccessor = new WorkloadApiError({
  reason: "Stalled",
  description: "the SVID expired while the stream was open and brought no successor"
})

const noAnswer = new WorkloadApiError({
  reason: "Stalled",
  description: "the agent was called and gave no first answer in time"
})

/** The fields of an event for people: dates as ISO 8601. */
const annotations = ({ _tag, ...fields }: WorkloadApiEvent): Readonly<Record<string, unknown>> => ({
  ...fields,
  time: iso(fields.time),
  ...("notBefore" in fields ? { notBefore: iso(fields.notBefore) } : undefined),
  ...("notAfter" in fields ? { notAfter: iso(fields.notAfter) } : undefined),
  ...("trustDomains" in fields ? { trustDomains: fields.trustDomains.join(" ") } : undefined)
})

const goesOn = { while: (more: boolean) => more }

/** Timers of the platform are bound to 31 bits of milliseconds, so a longer sleep is taken in pieces. */
const longestSleep = Duration.toMillis("1 day")

export const make = Effect.fnUntraced(function* <Message>(
  settings: Settings<Message>
): Effect.fn.Return<Provider, never, Scope.Scope> {
  const { messages, read, select } = settings
  const state = yield* SubscriptionRef.make(State.initial)
  const timer = yield* FiberHandle.make()
  /** When the timer wakes; nothing while it does not run. */
  const alarm = yield* Ref.make<number | undefined>(undefined)
  const stalled = yield* Queue.dropping<void>(1)
  const answered = yield* Ref.make(false)
  const reconnect = yield* Schedule.driver(settings.reconnectSchedule)
  const reporter = yield* IdentityProblem.makeReporter
  const told = yield* Ref.make(Problems.initial)
  /** What was to be said of the bundles of the last good update. */
  const bundleEvents = yield* Ref.make<ReadonlyArray<BundleEvent>>([])

  const change = (f: (state: State.IdentityState) => State.IdentityState): Effect.Effect<State.IdentityState> =>
    SubscriptionRef.updateAndGet(state, f)

  const tell = (happening: Problems.Happening): Effect.Effect<void> =>
    Effect.flatMap(
      Ref.modify(told, (before) => {
        const [after, problem] = Problems.step(before, happening)
        return [problem, after]
      }),
      (problem) => (problem === undefined ? Effect.void : reporter.report(problem))
    )

  /** An event must neither be lost nor be able to end the provider: whatever the hook does is caught. */
  const emit = Effect.fnUntraced(function* (fields: WithoutTime<WorkloadApiEvent>) {
    const event: WorkloadApiEvent = { ...fields, time: yield* Clock.currentTimeMillis }
    yield* tell(event)
    const level = event._tag === "Updated" ? LogLevel.Debug : LogLevel.Warning
    yield* Effect.whenLogLevel(
      Effect.annotateLogs(Effect.logWithLevel(level, `workload API: ${event._tag}`), annotations(event)),
      level
    )
    yield* Effect.catchAllCause(
      Effect.suspend(() => settings.onEvent(event)),
      (cause) => Effect.logError("workload API: the event hook failed", cause)
    )
  })

  const svidFields = (svid: X509Svid.X509Svid) => ({
    spiffeId: svid.spiffeId,
    serialNumber: svid.serialNumber,
    fingerprint: svid.fingerprint,
    notAfter: svid.notAfter
  })

  const advance = Effect.fnUntraced(function* (now: number) {
    const before = yield* SubscriptionRef.get(state)
    const after = yield* change((state) => State.advanced(state, now))
    if (before.expired || !after.expired || after.serving === undefined) return
    yield* emit({ _tag: "Expired", ...svidFields(after.serving.svid) })
    yield* Queue.offer(stalled, undefined)
  }, Effect.uninterruptible)

  /** Sleeps until the state has to change by itself, and lets it; false when it never has to. */
  const clockStep: Effect.Effect<boolean> = Effect.gen(function* () {
    yield* Ref.set(alarm, undefined)
    const due = State.nextChange(yield* SubscriptionRef.get(state))
    const now = yield* Clock.currentTimeMillis
    if (due === undefined) return false
    const wake = Math.min(due, now + longestSleep)
    yield* Ref.set(alarm, wake)
    yield* now < wake ? Effect.sleep(wake - now) : advance(now)
    return true
  })
  const watchClock: Effect.Effect<boolean> = Effect.repeat(clockStep, goesOn)

  /** The state changed: a watch that would wake in time is left alone, and finds out when it does. */
  const watchState = Effect.gen(function* () {
    const due = State.nextChange(yield* SubscriptionRef.get(state))
    const wake = yield* Ref.get(alarm)
    if (due !== undefined && (wake === undefined || due < wake)) yield* FiberHandle.run(timer, watchClock)
  })

  const withdraw = Effect.fnUntraced(function* (description: string) {
    const before = yield* SubscriptionRef.get(state)
    const after = yield* change((state) => State.withdrawn(state, description))
    if (before.serving !== after.serving || before.upcoming !== after.upcoming) {
      yield* emit({ _tag: "Withdrawn", description })
    }
  })

  const lacksOurs = (description: string) =>
    Effect.zipRight(withdraw(description), tell({ _tag: "NotSelected", description }))

  /** Reports what of the bundles cannot be used: the agent repeats it with every update, that is no news. */
  const reportBundles = Effect.fnUntraced(function* ({ bundles, refusedBundles }: Delivered) {
    const leftOut = Array.from(bundles.bundles.values()).flatMap((bundle): ReadonlyArray<BundleEvent> => {
      const description = X509Bundle.describeLeftOut(bundle)
      const { trustDomain } = bundle
      return description === undefined ? [] : [{ _tag: "AuthoritiesLeftOut", trustDomain, description }]
    })
    const refused = refusedBundles.map((refusal): BundleEvent => ({ _tag: "BundleDiscarded", ...refusal }))
    const events = [...refused, ...leftOut]
    const before = yield* Ref.getAndSet(bundleEvents, events)
    const isNew = ({ description, trustDomain }: BundleEvent): boolean =>
      !before.some((known) => known.trustDomain === trustDomain && known.description === description)
    yield* Effect.forEach(events.filter(isNew), emit)
  })

  const accept = Effect.fnUntraced(function* (delivered: Delivered) {
    yield* reportBundles(delivered)
    const svid = choose(delivered, select)
    if (svid === undefined) {
      return yield* lacksOurs(
        `expected an SVID for ${describeSelection(select)}, got none of ${delivered.svids.length}`
      )
    }
    yield* tell({ _tag: "Usable" })
    const others = delivered.svids.filter((other) => other !== svid)
    const context = X509Context.make({ svid, others, bundles: delivered.bundles })
    const now = yield* Clock.currentTimeMillis
    const before = yield* SubscriptionRef.get(state)
    const next = keepIfSame(before.upcoming, keepIfSame(before.serving, context))
    yield* change((state) => State.received(state, next, now))
    yield* watchState
    if (next !== context) return
    yield* emit({
      _tag: "Updated",
      ...svidFields(svid),
      notBefore: svid.notBefore,
      trustDomains: Array.from(context.bundles.bundles.keys()),
      bundleGeneration: context.bundles.generation
    })
  })

  const onMessage = Effect.fnUntraced(function* (message: Message) {
    yield* Ref.set(answered, true)
    const now = yield* Clock.currentTimeMillis
    const { serving, upcoming } = yield* SubscriptionRef.get(state)
    const known = (upcoming ?? serving)?.bundles ?? X509BundleSet.empty
    const delivered = read(message, { now, known })
    if (Either.isLeft(delivered)) {
      yield* change((state) => State.faulty(state, delivered.left.description))
      yield* emit({ _tag: "UpdateDiscarded", ...delivered.left })
      return
    }
    yield* reconnect.reset
    yield* accept(delivered.right)
  }, Effect.uninterruptible)

  /** Fails when the call hangs: an agent may accept a connection and never say a word on it. */
  const watchCall: Effect.Effect<never, WorkloadApiError> = Effect.sleep(settings.responseTimeout).pipe(
    Effect.zipRight(Ref.get(answered)),
    Effect.flatMap((answered) => (answered ? Effect.never : noAnswer)),
    Effect.raceFirst(Effect.zipRight(Queue.take(stalled), noSuccessor))
  )

  /** One call from its beginning to its end; it never ends well. A defect is a reason to try again like any other. */
  const session: Effect.Effect<never, WorkloadApiError> = Ref.set(answered, false).pipe(
    Effect.zipRight(tell({ _tag: "Called" })),
    Effect.zipRight(Queue.takeAll(stalled)),
    Effect.zipRight(Stream.runForEach(messages, onMessage)),
    Effect.zipRight(new WorkloadApiError({ reason: "Ended", description: "the agent ended the stream" })),
    Effect.raceFirst(watchCall),
    Effect.catchAllDefect((defect) =>
      Effect.zipRight(
        Effect.logError("workload API: the call failed", Cause.die(defect)),
        new WorkloadApiError({ reason: "Failed", description: "the call failed unexpectedly" })
      )
    )
  )

  const stop = Effect.fnUntraced(function* ({ description, reason }: WorkloadApiError) {
    yield* change((state) => State.waitOver(State.faulty(state, description)))
    yield* emit({ _tag: "Stopped", reason, description })
    return false
  })

  /** Waits until there has been no valid identity for one to two seconds. */
  const withoutIdentity: Effect.Effect<Either.Either<void>> = settings.hurriesWithoutIdentity
    ? state.changes.pipe(
        Stream.mapEffect((state) => Effect.map(Clock.currentTimeMillis, (now) => State.isHeld(state, now))),
        Stream.filter((isHeld) => !isHeld),
        Stream.runHead,
        Effect.zipRight(Random.nextRange(1000, 2000)),
        Effect.flatMap((millis) => Effect.sleep(millis)),
        Effect.as(Either.void)
      )
    : Effect.never

  /** Whether to try again, and when: it returns once the backoff has passed. */
  const afterwards = Effect.fnUntraced(function* (error: WorkloadApiError) {
    if (!error.isRetryable) return yield* stop(error)
    const { description, message, reason } = error
    yield* change((state) => State.faulty(state, message))
    if (reason === "PermissionDenied") yield* withdraw(message)
    yield* emit({ _tag: "Disconnected", reason, description })
    const next = yield* Effect.raceFirst(Effect.either(reconnect.next(error)), withoutIdentity)
    return Either.isRight(next) ? true : yield* stop(error)
  })

  const attempt: Effect.Effect<boolean> = Effect.catchAll(session, afterwards)

  const endWait = Effect.gen(function* () {
    yield* Effect.sleep(settings.initialTimeout)
    const { absence, waiting } = yield* SubscriptionRef.get(state)
    if (!waiting) return
    yield* change(State.waitOver)
    yield* emit({ _tag: "InitialWaitOver", description: absence.description })
  })

  const closed = yield* Deferred.make<void>()
  yield* Effect.addFinalizer(() => Deferred.succeed(closed, undefined))
  yield* forkScoped(Effect.repeat(attempt, goesOn))
  yield* forkScoped(endWait)

  const changes = state.changes.pipe(
    Stream.mapEffect((state) => Effect.map(Clock.currentTimeMillis, (now) => State.read(state, now))),
    Stream.filter((identity) => identity !== undefined),
    Stream.changes,
    Stream.mapEffect((identity) => identity)
  )

  /** The first answer there is, good or bad. */
  const first: Effect.Effect<X509Context.X509Context, IdentityError.IdentityError> = Effect.flatMap(
    Stream.runHead(Stream.interruptWhenDeferred(changes, closed)),
    Option.match({
      onNone: () =>
        new IdentityError.IdentityError({ reason: "Unavailable", description: "the identity provider is closed" }),
      onSome: Effect.succeed
    })
  )

  const open: Provider = {
    x509Context: Effect.gen(function* () {
      const identity = State.read(yield* SubscriptionRef.get(state), yield* Clock.currentTimeMillis)
      return identity === undefined ? yield* first : yield* identity
    }),
    changes,
    problems: reporter.problems,
    agentHealth: Effect.map(SubscriptionRef.get(state), ({ current }) => (current ? "Healthy" : "Degraded"))
  }
  return IdentityProvider.until(open, closed)
})
