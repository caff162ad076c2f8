import { IdentityError, PeerVerificationError } from "@agentweave/spiffe"
import { CircuitBreaker, CircuitOpenError, TransportError } from "@agentweave/transport"
import { HttpClient, type HttpClientRequest, HttpClientResponse } from "@effect/platform"
import { assert } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, TestClock } from "effect"

export const target = "spiffe://example.org/billing"

export const errors = {
  peer: new PeerVerificationError.PeerVerificationError({
    expectedId: target,
    actualId: null,
    reason: "UntrustedChain",
    description: "no path"
  }),
  identity: new IdentityError.IdentityError({ reason: "Expired", description: "it ended" }),
  pool: new TransportError.PoolExhaustedError({ targetId: target, maxConnections: 10, limit: "Target" }),
  closed: new TransportError.PoolClosedError({ targetId: target })
}

export const calls: Record<string, Effect.Effect<unknown, unknown>> = {
  ok: Effect.succeed("ok"),
  fail: Effect.fail("failed"),
  die: Effect.die("died"),
  both: Effect.all([Effect.fail("failed"), Effect.never], { concurrency: 2 }),
  peer: Effect.fail(errors.peer),
  identity: Effect.fail(errors.identity),
  pool: Effect.fail(errors.pool),
  closed: Effect.fail(errors.closed),
  peerAndFail: Effect.failCause(Cause.parallel(Cause.fail<unknown>(errors.peer), Cause.fail("failed"))),
  peerAndDie: Effect.failCause(Cause.parallel(Cause.fail(errors.peer), Cause.die("died")))
}

/** A client that answers with the status in the path. */
export const client = HttpClient.makeWith<never, never, never, never>(
  Effect.map((request: HttpClientRequest.HttpClientRequest) =>
    HttpClientResponse.fromWeb(request, new Response(null, { status: Number(request.url.slice(1)) }))
  ),
  Effect.succeed
)

export const states: Record<string, string> = { closed: "Closed", open: "Open", halfOpen: "HalfOpen" }

/**
 * Runs a script against a breaker: `ok`, `fail`, `die` and so on are calls, a number is the status of a response to a
 * client's request, `interrupt` an interrupted call, `refused` a call that has to be rejected, `+30s` time that passes,
 * `=open` the state that has to be; `isolate` and `reset` are themselves.
 */
export const play = (breaker: CircuitBreaker.CircuitBreaker, script: string) =>
  Effect.forEach(script.split(/\s+/), (step, index) =>
    Effect.gen(function* () {
      const at = `step ${index} (${step}) of "${script}"`
      const call = calls[step]
      if (call !== undefined) {
        const ran = yield* Effect.exit(breaker.protect(call))
        assert.isFalse(Exit.isFailure(ran) && String(ran.cause).includes("CircuitOpenError"), at)
      } else if (/^\d+$/.test(step)) {
        yield* CircuitBreaker.withBreaker(client, breaker).get(`/${step}`)
      } else if (step === "interrupt") {
        const fiber = yield* Effect.fork(breaker.protect(Effect.never))
        yield* Effect.yieldNow()
        yield* Fiber.interrupt(fiber)
      } else if (step === "refused") {
        const error = yield* Effect.flip(breaker.protect(Effect.dieMessage("it was let through")))
        assert.instanceOf(error, CircuitOpenError.CircuitOpenError, at)
      } else if (step.startsWith("+")) {
        yield* TestClock.adjust(Duration.decode(step.slice(1).replace("s", " seconds") as Duration.DurationInput))
      } else if (step.startsWith("=")) {
        assert.strictEqual(yield* breaker.state, states[step.slice(1)], at)
      } else {
        yield* step === "reset" ? breaker.reset : breaker.isolate
      }
    })
  )
