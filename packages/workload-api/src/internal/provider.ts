/** The identity provider over the stream of the agent's updates: calls, reconnects, and those who listen. */
import { IdentityError, type IdentityProblem, IdentityProvider, type X509Context } from "@agentweave/spiffe"
import { forkScoped } from "@agentweave/spiffe/Background"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
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
import * as State from "./identityState.js"
import * as Reporting from "./reporting.js"
import * as StateClock from "./stateClock.js"
import * as Updates from "./updateReceiver.js"

export interface Settings<Message> {
  /** One call to the agent each time it is run. */
  readonly messages: Stream.Stream<Message, WorkloadApiError>
  readonly read: Updates.Read<Message>
  readonly select: Updates.SvidSelection | undefined
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

const noSuccessor = new WorkloadApiError({
  reason: "Stalled",
  description: "the SVID expired while the stream was open and brought no successor"
})

const noAnswer = new WorkloadApiError({
  reason: "Stalled",
  description: "the agent was called and gave no first answer in time"
})

/** Calls the agent, once and again, until there is no use in it. */
const calls = Effect.fnUntraced(function* <Message>(
  settings: Settings<Message>,
  { change, stalled, state }: StateClock.StateClock,
  { emit, publish }: Reporting.Reporting,
  updates: Updates.Updates<Message>
) {
  const answered = yield* Ref.make(false)
  const reconnect = yield* Schedule.driver(settings.reconnectSchedule)

  const onMessage = (message: Message): Effect.Effect<void> =>
    Ref.set(answered, true).pipe(
      Effect.zipRight(updates.receive(message)),
      Effect.flatMap((isRead) => Effect.when(reconnect.reset, () => isRead)),
      Effect.uninterruptible
    )

  /** Fails when the call hangs: an agent may accept a connection and never say a word on it. */
  const watchCall: Effect.Effect<never, WorkloadApiError> = Effect.sleep(settings.responseTimeout).pipe(
    Effect.zipRight(Ref.get(answered)),
    Effect.flatMap((answered) => (answered ? Effect.never : noAnswer)),
    Effect.raceFirst(Effect.zipRight(Queue.take(stalled), noSuccessor))
  )

  /** One call from its beginning to its end; it never ends well. A defect is a reason to try again like any other. */
  const session: Effect.Effect<never, WorkloadApiError> = Ref.set(answered, false).pipe(
    Effect.zipRight(publish({ _tag: "Called" })),
    Effect.zipRight(Queue.takeAll(stalled)),
    Effect.zipRight(Stream.runForEach(settings.messages, onMessage)),
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
    if (reason === "PermissionDenied") yield* updates.withdraw(message)
    yield* emit({ _tag: "Disconnected", reason, description })
    const next = yield* Effect.raceFirst(Effect.either(reconnect.next(error)), withoutIdentity)
    return Either.isRight(next) ? true : yield* stop(error)
  })

  yield* Effect.repeat(Effect.catchAll(session, afterwards), { while: (again) => again })
})

/** The changes of an identity, as its listeners see them. */
const changesOf = (
  state: StateClock.StateClock["state"]
): Stream.Stream<X509Context.X509Context, IdentityError.IdentityError> =>
  state.changes.pipe(
    Stream.mapEffect((state) => Effect.map(Clock.currentTimeMillis, (now) => State.read(state, now))),
    Stream.filter((identity) => identity !== undefined),
    Stream.changes,
    Stream.mapEffect((identity) => identity)
  )

export const make = Effect.fnUntraced(function* <Message>(
  settings: Settings<Message>
): Effect.fn.Return<Provider, never, Scope.Scope> {
  const reporting = yield* Reporting.make(settings.onEvent)
  const clock = yield* StateClock.make(reporting)
  const { change, state } = clock
  const updates = Updates.make(clock, reporting, settings)

  const endWait = Effect.gen(function* () {
    yield* Effect.sleep(settings.initialTimeout)
    const { absence, waiting } = yield* SubscriptionRef.get(state)
    if (!waiting) return
    yield* change(State.waitOver)
    yield* reporting.emit({ _tag: "InitialWaitOver", description: absence.description })
  })

  const closed = yield* Deferred.make<void>()
  yield* Effect.addFinalizer(() => Deferred.succeed(closed, undefined))
  yield* forkScoped(calls(settings, clock, reporting, updates))
  yield* forkScoped(endWait)

  const changes = changesOf(state)

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
    problems: reporting.problems,
    agentHealth: Effect.map(SubscriptionRef.get(state), ({ current }) => (current ? "Healthy" : "Degraded"))
  }
  return IdentityProvider.until(open, closed)
})
