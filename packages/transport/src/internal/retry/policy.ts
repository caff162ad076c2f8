import * as HttpClient from "@effect/platform/HttpClient"
import type * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { pipeArguments } from "effect/Pipeable"
import * as Schedule from "effect/Schedule"
import type * as ScheduleDecision from "effect/ScheduleDecision"
import type { RetryBudget } from "../../RetryBudget.js"
import type { RetryConfig } from "../../RetryConfig.js"
import type * as Api from "../../RetryPolicy.js"
import { HttpRules, plainRules } from "./idempotency.js"
import { type Counters, type Raised, type Rules, run, type Shared } from "./retry.js"
import { initial, type State, step } from "./schedule.js"

export const TypeId: Api.TypeId = Symbol.for("@agentweave/transport/RetryPolicy") as Api.TypeId

const variance: Schedule.Schedule.Variance<number, unknown, never>[typeof Schedule.ScheduleTypeId] = {
  _Out: (_: never) => _,
  _In: (_: unknown) => _,
  _R: (_: never) => _
}

type Decided = readonly [State, number, ScheduleDecision.ScheduleDecision]

export class Policy<Limits extends Api.Limit> implements Api.RetryPolicy<Limits> {
  readonly [TypeId] = { _Limits: (limits: never): Limits => limits }
  readonly [Schedule.ScheduleTypeId] = variance
  readonly config: RetryConfig
  readonly budget: RetryBudget | undefined
  readonly stats: Effect.Effect<Api.RetryStats>
  readonly initial: State
  private readonly shared: Shared
  private readonly rules: Rules<unknown, unknown>

  constructor(config: RetryConfig, target: string | undefined, budget: RetryBudget | undefined) {
    const counters: Counters = {
      retries: 0,
      recovered: 0,
      exhausted: 0,
      notRetryable: 0,
      outOfTime: 0,
      overBudget: 0,
      attemptTimeouts: 0,
      totalTimeouts: 0,
      delayed: 0
    }
    this.config = config
    this.budget = budget
    const timed = config.attemptTimeout !== undefined || config.totalTimeout !== undefined
    this.shared = { config, target, timed, budget, counters }
    this.rules = plainRules(config)
    this.initial = initial(config)
    this.stats = Effect.sync(() => ({ ...counters, delayed: Duration.millis(counters.delayed) }))
  }

  step(now: number, input: unknown, state: State): Effect.Effect<Decided> {
    return step(this.config, this.budget, this.rules, now, input, state)
  }

  retry<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | Api.AddedError<Limits, E>, R> {
    return asAdded(run(this.shared, effect, this.rules))
  }

  /** Retries what answers a request. */
  retryRequest<E, R>(
    response: Effect.Effect<HttpClientResponse.HttpClientResponse, E, R>,
    request: HttpClientRequest.HttpClientRequest
  ): Effect.Effect<HttpClientResponse.HttpClientResponse, E | Api.AddedError<Limits, E>, R> {
    const rules: Rules<HttpClientResponse.HttpClientResponse, E> = new HttpRules(this.config, request)
    return asAdded(run(this.shared, response, rules))
  }

  retryClient<E, R>(
    client: HttpClient.HttpClient.With<E, R>
  ): HttpClient.HttpClient.With<E | Api.AddedError<Limits, E>, R> {
    return HttpClient.transform(client, (response, request) => this.retryRequest(response, request))
  }

  pipe() {
    // biome-ignore lint/complexity/noArguments: the signature of Pipeable
    return pipeArguments(this, arguments)
  }
}

/** `run` raises what the configuration has a limit for, and `Limits` is read off the same options. */
const asAdded = <A, E, R, Limits extends Api.Limit>(
  effect: Effect.Effect<A, Raised<E>, R>
): Effect.Effect<A, E | Api.AddedError<Limits, E>, R> => effect as Effect.Effect<A, E | Api.AddedError<Limits, E>, R>
