import type { CircuitOpenError, InvalidConfigError } from "@agentweave/transport"
import {
  CircuitBreaker,
  CircuitBreakerRegistry,
  RetryBudget,
  RetryConfig,
  RetryPolicy,
  type TransportError
} from "@agentweave/transport"
import type { HttpClient } from "@effect/platform"
import type { ConfigError, Effect, Layer, Schedule } from "effect"
import { Config, Context, Effect as E } from "effect"
import { describe, expectTypeOf, it } from "vitest"

interface Boom {
  readonly _tag: "Boom"
}
interface Needs {
  readonly needs: true
}

// Only their types are looked at: `tsc` is what fails here.
declare const effect: Effect.Effect<number, Boom, Needs>
declare const client: HttpClient.HttpClient.With<Boom, Needs>
declare const breaker: CircuitBreaker.CircuitBreaker
declare const plain: RetryPolicy.RetryPolicy
declare const timed: RetryPolicy.RetryPolicy<"Timeout">
declare const budgeted: RetryPolicy.RetryPolicy<"Budget">
declare const both: RetryPolicy.RetryPolicy<"Timeout" | "Budget">
declare const budget: RetryBudget.RetryBudget
declare const schedule: Schedule.Schedule<string, unknown>
declare const needy: Schedule.Schedule<string, unknown, Needs>

class BreakerTag extends Context.Tag("test/Breaker")<BreakerTag, CircuitBreaker.CircuitBreaker>() {}
class PlainTag extends Context.Tag("test/Plain")<PlainTag, RetryPolicy.RetryPolicy>() {}
class AnyTag extends Context.Tag("test/Any")<AnyTag, RetryPolicy.RetryPolicy<RetryPolicy.Limit>>() {}
class BudgetTag extends Context.Tag("test/Budget")<BudgetTag, RetryBudget.RetryBudget>() {}

type Open = CircuitOpenError.CircuitOpenError
type TimedOut = TransportError.TimeoutError
type OverBudget<E> = RetryBudget.RetryBudgetExhaustedError<E>
type Call<Err> = Effect.Effect<number, Err, Needs>
type Client<Err> = HttpClient.HttpClient.With<Err, Needs>

const types = (_: () => unknown) => {}

describe("each combinator adds exactly its errors", () => {
  it("protect adds CircuitOpenError, catchTag takes it away", () =>
    types(() => {
      expectTypeOf(breaker.protect(effect)).toEqualTypeOf<Call<Boom | Open>>()
      expectTypeOf(CircuitBreaker.protect(effect, breaker)).toEqualTypeOf<Call<Boom | Open>>()
      expectTypeOf(effect.pipe(CircuitBreaker.protect(breaker))).toEqualTypeOf<Call<Boom | Open>>()
      expectTypeOf(breaker.protect(effect).pipe(E.catchTag("CircuitOpenError", () => E.succeed(0)))).toEqualTypeOf<
        Call<Boom>
      >()
      // @ts-expect-error the effect's values are numbers
      breaker.protect(effect, { isFailure: (value: string) => value === "" })
    }))

  it("withBreaker adds CircuitOpenError, to an effect and to a client", () =>
    types(() => {
      expectTypeOf(CircuitBreaker.withBreaker(effect, breaker)).toEqualTypeOf<Call<Boom | Open>>()
      expectTypeOf(effect.pipe(CircuitBreaker.withBreaker(breaker))).toEqualTypeOf<Call<Boom | Open>>()
      expectTypeOf(CircuitBreaker.withBreaker(client, breaker)).toEqualTypeOf<Client<Boom | Open>>()
      expectTypeOf(client.pipe(CircuitBreaker.withBreaker(breaker))).toEqualTypeOf<Client<Boom | Open>>()
    }))

  it("retry adds nothing without a limit", () =>
    types(() => {
      expectTypeOf(plain.retry(effect)).toEqualTypeOf<Call<Boom>>()
      expectTypeOf(RetryPolicy.retry(effect, plain)).toEqualTypeOf<Call<Boom>>()
      expectTypeOf(effect.pipe(RetryPolicy.retry(plain))).toEqualTypeOf<Call<Boom>>()
      expectTypeOf(RetryPolicy.withRetry(client, plain)).toEqualTypeOf<Client<Boom>>()
    }))

  it("retry adds what the policy's limits raise", () =>
    types(() => {
      expectTypeOf(timed.retry(effect)).toEqualTypeOf<Call<Boom | TimedOut>>()
      expectTypeOf(budgeted.retry(effect)).toEqualTypeOf<Call<Boom | OverBudget<Boom>>>()
      expectTypeOf(both.retry(effect)).toEqualTypeOf<Call<Boom | TimedOut | OverBudget<Boom | TimedOut>>>()
      expectTypeOf(client.pipe(RetryPolicy.withRetry(timed))).toEqualTypeOf<Client<Boom | TimedOut>>()
      expectTypeOf(RetryPolicy.withRetry(client, budgeted)).toEqualTypeOf<Client<Boom | OverBudget<Boom>>>()
      expectTypeOf(timed.retry(effect).pipe(E.catchTag("TimeoutError", () => E.succeed(0)))).toEqualTypeOf<Call<Boom>>()
      expectTypeOf(
        both.retry(effect).pipe(E.catchTag("RetryBudgetExhaustedError", (error) => E.fail(error.lastError)))
      ).toEqualTypeOf<Call<Boom | TimedOut>>()
    }))

  it("the limits are read off the options", () =>
    types(() => {
      type Made<L extends RetryPolicy.Limit> = Effect.Effect<
        RetryPolicy.RetryPolicy<L>,
        InvalidConfigError.InvalidConfigError
      >
      expectTypeOf(RetryPolicy.make()).toEqualTypeOf<Made<never>>()
      expectTypeOf(RetryPolicy.make({ maxRetries: 5, target: "billing" })).toEqualTypeOf<Made<never>>()
      expectTypeOf(RetryPolicy.make({ attemptTimeout: undefined, budget: undefined })).toEqualTypeOf<Made<never>>()
      expectTypeOf(RetryPolicy.make({ attemptTimeout: "1 second" })).toEqualTypeOf<Made<"Timeout">>()
      expectTypeOf(RetryPolicy.make({ totalTimeout: 1_000 })).toEqualTypeOf<Made<"Timeout">>()
      expectTypeOf(RetryPolicy.make({ budget })).toEqualTypeOf<Made<"Budget">>()
      expectTypeOf(RetryPolicy.make({ budget, totalTimeout: 1_000 })).toEqualTypeOf<Made<"Timeout" | "Budget">>()
      // Options of which nothing is known may set them.
      expectTypeOf(RetryPolicy.make(RetryConfig.defaults)).toEqualTypeOf<Made<"Timeout">>()
      // @ts-expect-error there is no such option
      RetryPolicy.make({ maxRetry: 5 })
    }))

  it("a policy with fewer limits stands in for one with more, not the other way", () =>
    types(() => {
      expectTypeOf(plain).toExtend<RetryPolicy.RetryPolicy<"Timeout">>()
      expectTypeOf(timed).toExtend<RetryPolicy.RetryPolicy<"Timeout" | "Budget">>()
      expectTypeOf(timed).not.toExtend<RetryPolicy.RetryPolicy>()
      expectTypeOf(budgeted).not.toExtend<RetryPolicy.RetryPolicy<"Timeout">>()
    }))

  it("a composition adds the sum", () =>
    types(() => {
      const composed = client.pipe(CircuitBreaker.withBreaker(breaker), RetryPolicy.withRetry(timed))
      expectTypeOf(composed).toEqualTypeOf<Client<Boom | Open | TimedOut>>()
    }))

  it("constructors, schedules and layers say what they need and refuse", () =>
    types(() => {
      type Refused = InvalidConfigError.InvalidConfigError
      expectTypeOf(plain).toExtend<Schedule.Schedule<number, unknown>>()
      expectTypeOf(both).toExtend<Schedule.Schedule<number, unknown>>()
      expectTypeOf(E.retry(effect, plain)).toEqualTypeOf<Call<Boom>>()
      expectTypeOf(CircuitBreaker.make({ target: "a" })).toEqualTypeOf<
        Effect.Effect<CircuitBreaker.CircuitBreaker, Refused>
      >()
      expectTypeOf(CircuitBreakerRegistry.layer()).toEqualTypeOf<
        Layer.Layer<CircuitBreakerRegistry.CircuitBreakerRegistry, Refused>
      >()
      expectTypeOf(RetryBudget.make()).toEqualTypeOf<Effect.Effect<RetryBudget.RetryBudget, Refused>>()
    }))

  it("a schedule of the caller's adds nothing, to an effect and to a client", () =>
    types(() => {
      expectTypeOf(RetryPolicy.withRetry(effect, schedule)).toEqualTypeOf<Call<Boom>>()
      expectTypeOf(effect.pipe(RetryPolicy.withRetry(schedule))).toEqualTypeOf<Call<Boom>>()
      expectTypeOf(effect.pipe(RetryPolicy.withRetry(timed))).toEqualTypeOf<Call<Boom | TimedOut>>()
      expectTypeOf(client.pipe(RetryPolicy.withRetry(schedule))).toEqualTypeOf<Client<Boom>>()
      // @ts-expect-error a schedule that needs a service would need it at every call
      RetryPolicy.withRetry(client, needy)
    }))

  it("a layer for a tag needs nothing and fails with what is refused", () =>
    types(() => {
      type Refused = InvalidConfigError.InvalidConfigError
      type FromConfig = Refused | ConfigError.ConfigError
      expectTypeOf(CircuitBreaker.layer(BreakerTag, { target: "a" })).toEqualTypeOf<Layer.Layer<BreakerTag, Refused>>()
      expectTypeOf(CircuitBreaker.layerConfig(BreakerTag, { target: Config.string("A") })).toEqualTypeOf<
        Layer.Layer<BreakerTag, FromConfig>
      >()
      expectTypeOf(RetryPolicy.layer(PlainTag, { maxRetries: 1 })).toEqualTypeOf<Layer.Layer<PlainTag, Refused>>()
      expectTypeOf(RetryPolicy.layer(PlainTag, schedule)).toEqualTypeOf<Layer.Layer<PlainTag, Refused>>()
      expectTypeOf(RetryPolicy.layer(AnyTag, { attemptTimeout: "1 second", budget })).toEqualTypeOf<
        Layer.Layer<AnyTag, Refused>
      >()
      expectTypeOf(RetryPolicy.layerConfig(AnyTag, RetryConfig.config)).toEqualTypeOf<Layer.Layer<AnyTag, FromConfig>>()
      expectTypeOf(RetryBudget.layer(BudgetTag)).toEqualTypeOf<Layer.Layer<BudgetTag, Refused>>()
      // @ts-expect-error the tag's type says that the policy has no limit of time
      RetryPolicy.layer(PlainTag, { totalTimeout: "1 second" })
      // @ts-expect-error the tag's type says that the policy has no budget
      RetryPolicy.layer(PlainTag, { budget })
      // @ts-expect-error configuration may set a limit of time
      RetryPolicy.layerConfig(PlainTag, RetryConfig.config)
    }))
})
