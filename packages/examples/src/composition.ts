/**
 * The same pieces in another order. `Transport` puts the retries outside: every attempt counts at the breaker. Here the
 * breaker is outside: it judges a request by what came of all its attempts, so one that a retry has saved is no failure.
 */
import { CircuitBreaker, CircuitBreakerRegistry, ConnectionPool, RetryPolicy } from "@agentweave/transport"
import { HttpClient } from "@effect/platform"
import { Effect } from "effect"

/** A client for one peer: breaker ∘ retry ∘ pool, only 2xx are successes to its user. */
export const breakerOutside = (peer: string) =>
  Effect.gen(function* () {
    const pool = yield* ConnectionPool.ConnectionPool
    const breakers = yield* CircuitBreakerRegistry.CircuitBreakerRegistry
    const policy = yield* RetryPolicy.make({ maxRetries: 2, baseDelay: "50 millis", totalTimeout: "2 seconds" })
    const breaker = yield* breakers.get(peer)
    return pool
      .client(peer)
      .pipe(RetryPolicy.withRetry(policy), CircuitBreaker.withBreaker(breaker), HttpClient.filterStatusOk)
  })

/** What is open or missing has an answer too; every other error stays in the type. */
export const greeting = (peer: string) =>
  Effect.gen(function* () {
    const client = yield* breakerOutside(peer)
    const response = yield* client.get("/hello")
    return yield* response.text
  }).pipe(
    Effect.catchTags({
      CircuitOpenError: (error) => Effect.succeed(`${error.target} is out of order, try again later`),
      PoolExhaustedError: () => Effect.succeed("too many of us are asking already")
    })
  )
