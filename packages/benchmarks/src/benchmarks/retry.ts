import { RetryPolicy } from "@agentweave/transport"
import { retry as cockatielRetry, ExponentialBackoff, handleAll } from "cockatiel"
import { Effect, Schedule } from "effect"
import { type Benchmark, nanoseconds } from "../harness/Benchmark.js"
import { effects, promises } from "../harness/inProcess.js"

const work = Effect.succeed(1)

const schedule = Schedule.exponential("1 second").pipe(Schedule.jittered, Schedule.intersect(Schedule.recurs(3)))

export const retry: Benchmark = {
  name: "retry",
  title: "one call under a retry policy that succeeds at once",
  unit: nanoseconds,
  millis: 40,
  warmUp: 100_000,
  subjects: {
    RetryPolicy: effects(Effect.map(RetryPolicy.make(), (policy) => () => policy.retry(work))),
    "Effect.retry": effects(Effect.succeed(() => Effect.retry(work, schedule))),
    cockatiel: promises(async () => {
      const policy = cockatielRetry(handleAll, { maxAttempts: 3, backoff: new ExponentialBackoff() })
      const one = async () => 1
      return () => policy.execute(one)
    })
  },
  rows: [
    { contender: "cockatiel", baseline: "cockatiel" },
    { contender: "RetryPolicy", baseline: "Effect.retry", target: 0.04 },
    { contender: "RetryPolicy", baseline: "cockatiel", target: 1 }
  ]
}
