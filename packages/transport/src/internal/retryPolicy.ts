import type * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { RetryBudget } from "../RetryBudget.js"
import type { RetryConfig } from "../RetryConfig.js"
import type * as Api from "../RetryPolicy.js"
import { type Counters, plainRules, type Raised, type Rules, run, type Shared } from "./retry.js"
import { HttpRules } from "./retryHttp.js"

export const TypeId: Api.TypeId = Symbol.for("@agentweave/transport/RetryPolicy") as Api.TypeId

export class Policy<Limits extends Api.Limit> implements Api.RetryPolicy<Limits> {
  readonly [TypeId] = { _Limits: (limits: never): Limits => limits }
  readonly config: RetryConfig
  readonly stats: Effect.Effect<Api.RetryStats>
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
    const limited = config.attemptTimeout !== undefined || config.totalTimeout !== undefined || budget !== undefined
    this.shared = { config, target, limited, budget, counters }
    this.rules = plainRules(config)
    this.stats = Effect.sync(() => ({ ...counters, delayed: Duration.millis(counters.delayed) }))
  }

  retry<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | Api.Added<Limits, E>, R> {
    return asAdded(run(this.shared, effect, this.rules))
  }

  retryRequest<E, R>(
    response: Effect.Effect<HttpClientResponse.HttpClientResponse, E, R>,
    request: HttpClientRequest.HttpClientRequest
  ): Effect.Effect<HttpClientResponse.HttpClientResponse, E | Api.Added<Limits, E>, R> {
    const rules: Rules<HttpClientResponse.HttpClientResponse, E> = new HttpRules(this.config, request)
    return asAdded(run(this.shared, response, rules))
  }
}

/** `run` raises what the configuration has a limit for, and `Limits` is read off the same options. */
const asAdded = <A, E, R, Limits extends Api.Limit>(
  effect: Effect.Effect<A, Raised<E>, R>
): Effect.Effect<A, E | Api.Added<Limits, E>, R> => effect as Effect.Effect<A, E | Api.Added<Limits, E>, R>
