import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Either from "effect/Either"
import { identity } from "effect/Function"
import { pipeArguments } from "effect/Pipeable"
import type * as Stream from "effect/Stream"
import type * as Api from "../../CircuitBreaker.js"
import type { CircuitBreakerConfig } from "../../CircuitBreakerConfig.js"
import type { CircuitBreakerMetrics, CircuitState } from "../../CircuitBreakerMetrics.js"
import { CircuitOpenError } from "../../CircuitOpenError.js"
import { currentClock, millis, withClock } from "../clock.js"
import { clockOf, withFiber } from "../fiber.js"
import { changes } from "./changes.js"
import { BreakerMachine, type CallPermit } from "./machine.js"

export const TypeId: Api.TypeId = Symbol.for("@agentweave/transport/CircuitBreaker") as Api.TypeId

/** The Effect around a {@link BreakerMachine}: it adds the fiber's clock and interruption. */
export class Breaker implements Api.CircuitBreaker {
  readonly [TypeId]: Api.TypeId = TypeId
  readonly target: string
  readonly config: CircuitBreakerConfig
  readonly machine: BreakerMachine
  readonly state: Effect.Effect<CircuitState>
  readonly metrics: Effect.Effect<CircuitBreakerMetrics>
  readonly changes: Stream.Stream<CircuitState>
  readonly isolate: Effect.Effect<void>
  readonly reset: Effect.Effect<void>
  /** For the calls of one healthy state; see {@link pass}. */
  private passing: Passing | undefined

  constructor(target: string, config: CircuitBreakerConfig, clock: Clock.Clock) {
    const machine = new BreakerMachine(config, clock)
    this.target = target
    this.config = config
    this.machine = machine
    this.state = withClock((clock) => {
      machine.advance(clock)
      return machine.state
    })
    this.metrics = withClock((clock) => {
      machine.advance(clock)
      return machine.metrics()
    })
    this.changes = changes(machine)
    this.isolate = withClock((clock) => machine.isolate(clock))
    this.reset = withClock((clock) => machine.reset(clock))
  }

  protect<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    options?: Api.ProtectOptions<A>
  ): Effect.Effect<A, E | CircuitOpenError, R> {
    return new Protected(this, effect, options?.isFailure ?? this.config.isFailure)
  }

  /** A call whose success changes nothing but a count: its handlers are made once for all of them. */
  pass<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    healthy: CallPermit,
    isFailure: ((value: A) => boolean) | undefined
  ): Effect.Effect<A, E, R> {
    const { machine } = this
    let { passing } = this
    if (passing?.permit !== healthy || passing.isFailure !== isFailure) {
      passing = { permit: healthy, isFailure, handlers: handlersOf(machine, healthy, isFailure) }
      this.passing = passing
    }
    return Effect.matchCauseEffect<A, E, R, never, E, never, A, never, never>(effect, passing.handlers)
  }

  /** Runs an effect whose success matters to this state or to the rule. */
  watch<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    isFailure: ((value: A) => boolean) | undefined
  ): Effect.Effect<A, E | CircuitOpenError, R> {
    const { machine } = this
    return withFiber((fiber): Effect.Effect<A, E | CircuitOpenError, R> => {
      const clock = clockOf(fiber)
      if (!machine.admits(clock)) {
        return this.reject(clock)
      }
      if (machine.state === "HalfOpen") {
        return Effect.uninterruptibleMask((restore) => this.probe(effect, restore, clock, isFailure))
      }
      // Closed: there is no slot that has to come back, so interruption needs no frame.
      return this.run(effect, clock, isFailure)
    })
  }

  /** The slot is taken and given back where no interruption comes between; a predicate that throws is a defect inside. */
  private probe<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    restore: (effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>,
    clock: Clock.Clock,
    isFailure: ((value: A) => boolean) | undefined
  ): Effect.Effect<A, E | CircuitOpenError, R> {
    if (isFailure === undefined) {
      return this.run(restore(effect), clock, isFailure)
    }
    let failed = false
    const judged = Effect.map(effect, (value) => {
      failed = isFailure(value)
      return value
    })
    return this.run(restore(judged), clock, () => failed)
  }

  private run<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    clock: Clock.Clock,
    isFailure: ((value: A) => boolean) | undefined
  ): Effect.Effect<A, E | CircuitOpenError, R> {
    const { machine } = this
    const permit = machine.acquirePermit(clock)
    if (permit === undefined) {
      return this.reject(clock)
    }
    const startedAt = machine.startedAt(clock)
    return Effect.matchCauseEffect(effect, {
      onFailure: afterFailure(machine, permit, clock, startedAt),
      onSuccess: afterSuccess(machine, permit, clock, startedAt, isFailure)
    })
  }

  private reject(clock: Clock.Clock): Effect.Effect<never, CircuitOpenError> {
    const { machine } = this
    machine.totalRejected++
    // Not the constructor: it would validate what is known and capture a stack nobody reads, at ten times the price.
    const error: Mutable<CircuitOpenError> = Object.create(CircuitOpenError.prototype)
    error._tag = "CircuitOpenError"
    error.target = this.target
    error.metrics = machine.metrics()
    error.retryAfter = machine.isolated
      ? Duration.infinity
      : machine.state === "Open"
        ? Duration.millis(Math.ceil(machine.openUntil - millis(clock)))
        : Duration.zero
    return Effect.failCause(Cause.fail(error))
  }

  pipe() {
    // biome-ignore lint/complexity/noArguments: the signature of Pipeable
    return pipeArguments(this, arguments)
  }
}

/** An effect under a breaker, decided upon when it runs: a class, because a closure inside an effect would cost more. */
class Protected<A, E, R> extends Effectable.Class<A, E | CircuitOpenError, R> {
  private readonly breaker: Breaker
  private readonly effect: Effect.Effect<A, E, R>
  private readonly isFailure: ((value: A) => boolean) | undefined

  constructor(breaker: Breaker, effect: Effect.Effect<A, E, R>, isFailure: ((value: A) => boolean) | undefined) {
    super()
    this.breaker = breaker
    this.effect = effect
    this.isFailure = isFailure
  }

  commit(): Effect.Effect<A, E | CircuitOpenError, R> {
    const { breaker, effect, isFailure } = this
    const { healthy } = breaker.machine
    return healthy === undefined ? breaker.watch(effect, isFailure) : breaker.pass(effect, healthy, isFailure)
  }
}

type Mutable<A> = { -readonly [K in keyof A]: A[K] }

/** The end of a call in a healthy state. */
interface Handlers {
  readonly onFailure: <E>(cause: Cause.Cause<E>) => Effect.Effect<never, E>
  readonly onSuccess: <A>(value: A) => Effect.Effect<A>
}

interface Passing {
  readonly permit: CallPermit
  readonly isFailure: unknown
  readonly handlers: Handlers
}

/** `A` is what the calls succeed with for which {@link Breaker.pass} takes these. */
const handlersOf = <A>(
  machine: BreakerMachine,
  permit: CallPermit,
  isFailure: ((value: A) => boolean) | undefined
): Handlers => ({
  onFailure: (cause) => afterFailure(machine, permit, currentClock(), 0)(cause),
  onSuccess: (value) => {
    if (isFailure?.(value as never)) machine.fail(permit, currentClock(), 0)
    else machine.totalSuccesses++
    return Effect.succeed(value)
  }
})

const afterSuccess =
  <A>(
    machine: BreakerMachine,
    permit: CallPermit,
    clock: Clock.Clock,
    startedAt: number,
    isFailure: ((value: A) => boolean) | undefined
  ) =>
  (value: A): Effect.Effect<A> => {
    if (isFailure?.(value)) {
      machine.fail(permit, clock, startedAt)
    } else {
      machine.succeed(permit, clock, startedAt)
    }
    return Effect.succeed(value)
  }

/** A failure counts if the target can be blamed for one of the errors or defects in it; interruption alone is neutral. */
const afterFailure =
  (machine: BreakerMachine, permit: CallPermit, clock: Clock.Clock, startedAt: number) =>
  <E>(cause: Cause.Cause<E>): Effect.Effect<never, E> => {
    const { isExcluded } = machine.config
    const errors = Cause.failures(cause)
    // A predicate that throws must not keep the probe slot.
    const blamed = Either.try({ try: () => Chunk.some(errors, (error) => !isExcluded(error)), catch: identity })
    if (Either.isLeft(blamed)) {
      machine.fail(permit, clock, startedAt)
      return Effect.failCause(Cause.sequential(cause, Cause.die(blamed.left)))
    }
    if (blamed.right || !Chunk.isEmpty(Cause.defects(cause))) {
      machine.fail(permit, clock, startedAt)
    } else if (Chunk.isEmpty(errors)) {
      machine.release(permit)
    } else {
      machine.exclude(permit)
    }
    return Effect.failCause(cause)
  }
