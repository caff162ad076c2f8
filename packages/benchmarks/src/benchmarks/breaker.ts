import { CircuitBreaker } from "@agentweave/transport"
import { ConsecutiveBreaker, circuitBreaker, handleAll } from "cockatiel"
import { Duration, Effect } from "effect"
import OpossumBreaker from "opossum"
import { type Benchmark, nanoseconds } from "../harness/Benchmark.js"
import { effects, promises } from "../harness/inProcess.js"

const long = Duration.toMillis("1 hour")

const rejected = async (operation: Promise<unknown>): Promise<unknown> => {
  try {
    return await operation
  } catch {
    return "rejected"
  }
}

const failing = () => Promise.reject(new Error("down"))

const ours = (failures: number) =>
  Effect.gen(function* () {
    const breaker = yield* CircuitBreaker.make({ target: "bench", failureThreshold: 5, timeout: long })
    for (let i = 0; i < failures; i++) yield* Effect.exit(breaker.protect(Effect.fail("down")))
    return breaker
  })

const cockatiel = async (failures: number) => {
  const breaker = circuitBreaker(handleAll, { halfOpenAfter: long, breaker: new ConsecutiveBreaker(5) })
  for (let i = 0; i < failures; i++) await rejected(breaker.execute(failing))
  return breaker
}

const subjects = {
  "CircuitBreaker, success": effects(
    Effect.map(ours(0), (breaker) => {
      const work = Effect.succeed(1)
      return () => breaker.protect(work)
    })
  ),
  /** The least that has a say before a call and after its failure. */
  "suspend and catchAllCause, no breaker": effects(
    Effect.sync(() => {
      const work = Effect.succeed(1)
      return () =>
        Effect.catchAllCause(
          Effect.suspend(() => work),
          Effect.failCause
        )
    })
  ),
  "cockatiel, success": promises(async () => {
    const breaker = await cockatiel(0)
    const work = async () => 1
    return () => breaker.execute(work)
  }),
  "opossum, success": promises(async () => {
    const breaker = new OpossumBreaker(async () => 1, { resetTimeout: long })
    return () => breaker.fire()
  }),
  "CircuitBreaker, open": effects(
    Effect.map(ours(5), (breaker) => {
      const work = Effect.succeed(1)
      return () => Effect.catchAll(breaker.protect(work), () => Effect.succeed("rejected"))
    })
  ),
  "cockatiel, open": promises(async () => {
    const breaker = await cockatiel(5)
    const work = async () => 1
    return () => rejected(breaker.execute(work))
  }),
  "opossum, open": promises(async () => {
    const breaker = new OpossumBreaker(failing, { resetTimeout: long, volumeThreshold: 1 })
    await rejected(breaker.fire())
    return () => rejected(breaker.fire())
  })
} satisfies Benchmark["subjects"]

export const breaker: Benchmark = {
  name: "breaker",
  title: "one call through a circuit breaker",
  unit: nanoseconds,
  millis: 40,
  warmUp: 100_000,
  subjects,
  rows: [
    { contender: "cockatiel, success", baseline: "cockatiel, success" },
    { contender: "CircuitBreaker, success", baseline: "opossum, success", target: 0.4 },
    { contender: "CircuitBreaker, success", baseline: "cockatiel, success", target: 1 },
    { contender: "suspend and catchAllCause, no breaker", baseline: "cockatiel, success" },
    { contender: "cockatiel, open", baseline: "cockatiel, open" },
    { contender: "CircuitBreaker, open", baseline: "cockatiel, open", target: 0.3 },
    { contender: "CircuitBreaker, open", baseline: "opossum, open" }
  ]
}
