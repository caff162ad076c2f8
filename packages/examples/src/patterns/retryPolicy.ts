/** Backoff with full jitter. A policy is a `Schedule`: `Effect.retry(call, policy)` does as well. */
import { RetryPolicy } from "@agentweave/transport"
import { Effect } from "effect"

export const retryPolicy = <A, E, R>(unreliableCall: Effect.Effect<A, E, R>) =>
  Effect.flatMap(RetryPolicy.make({ maxRetries: 3, baseDelay: "1 second" }), (policy) => policy.retry(unreliableCall))
