/**
 * A process that has no file descriptor left, and then makes a request: what came of it, and what the breaker and the policy
 * around it counted, as JSON on standard output. Its limit on descriptors is set by the shell that starts it.
 */
import { openSync, writeSync } from "node:fs"
import { IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { AuditLog, CircuitBreaker, RetryPolicy, SecureChannel } from "@agentweave/transport"
import { NodeConnector } from "@agentweave/transport-node"
import { Effect, Either, Layer } from "effect"

const takeAll = Effect.sync(() => {
  while (Either.isRight(Either.try(() => openSync("/dev/null", "r"))));
})

const program = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const identity = IdentityProvider.layerStatic(yield* authority.context({ path: "/web" }))
  const breaker = yield* CircuitBreaker.make({ target: "api", failureThreshold: 1 })
  const policy = yield* RetryPolicy.make({ maxRetries: 3, baseDelay: 0, isRetryable: () => true })
  const request = Effect.gen(function* () {
    const channel = yield* SecureChannel.make({ peer: "spiffe://example.org/api", baseUrl: "https://127.0.0.1:9" })
    yield* takeAll
    return yield* Effect.flip(channel.pipe(CircuitBreaker.withBreaker(breaker), RetryPolicy.withRetry(policy)).get("/"))
  })
  const error = yield* Effect.scoped(request).pipe(
    Effect.provide(NodeConnector.layer.pipe(Layer.provideMerge(Layer.merge(identity, AuditLog.layerMemory([])))))
  )
  const { state, totalExcluded } = yield* breaker.metrics
  const { retries } = yield* policy.stats
  const reason = "reason" in error ? error.reason : undefined
  writeSync(1, JSON.stringify({ tag: error._tag, reason, state, totalExcluded, retries }))
})

Effect.runPromise(program)
