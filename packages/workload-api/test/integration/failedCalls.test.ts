import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { WorkloadApi, WorkloadApiClient, WorkloadApiError, WorkloadEndpoint } from "@agentweave/workload-api"
import { expect, it } from "@effect/vitest"
import { Effect, Layer, Logger, LogLevel, Queue, Schedule, Stream } from "effect"

setFlagsFromString("--expose-gc")
const collectGarbage: unknown = runInNewContext("gc")

/** Bytes of the heap that are in use once the garbage is gone. */
const heapUsed = Effect.gen(function* () {
  for (let round = 0; round < 4; round++) {
    if (typeof collectGarbage === "function") collectGarbage()
    yield* Effect.yieldNow()
  }
  return process.memoryUsage().heapUsed
})

it.scopedLive("nothing is kept for a failed call to the agent", () =>
  Effect.gen(function* () {
    const failures = yield* Queue.unbounded<void>()
    const absent = yield* WorkloadEndpoint.parse("unix:///nonexistent/agent.sock")
    const client = WorkloadApiClient.make(absent)
    const error = yield* Effect.flip(Stream.runDrain(client.x509Svids))
    const failing = WorkloadApiClient.WorkloadApiClient.of({
      // A new error each time, as the wire makes them.
      x509Svids: Stream.suspend(() =>
        Stream.fail(new WorkloadApiError.WorkloadApiError({ reason: error.reason, description: error.description }))
      ),
      x509Bundles: Stream.never
    })
    yield* Layer.build(
      WorkloadApi.layerClient({
        reconnectSchedule: Schedule.spaced("1 nanos"),
        onEvent: ({ _tag }) => (_tag === "Disconnected" ? Queue.offer(failures, undefined) : Effect.void)
      }).pipe(
        Layer.provide(Layer.succeed(WorkloadApiClient.WorkloadApiClient, failing)),
        Layer.provide(Logger.minimumLogLevel(LogLevel.None))
      )
    )
    yield* Queue.takeN(failures, 1000)
    // Whatever is kept for each call shows in every part. Code that is compiled meanwhile shows in one of them.
    const bytesPerCall: Array<number> = []
    for (let part = 0; part < 3; part++) {
      const before = yield* heapUsed
      yield* Queue.takeN(failures, 2500)
      bytesPerCall.push(((yield* heapUsed) - before) / 2500)
    }
    expect(Math.min(...bytesPerCall)).toBeLessThan(200)
  })
)

it.scopedLive("an agent that is not there is told in one line, without a note that says nothing", () =>
  Effect.gen(function* () {
    const absent = yield* WorkloadEndpoint.parse("unix:///nonexistent/agent.sock")
    const error = yield* Effect.flip(Stream.runDrain(WorkloadApiClient.make(absent).x509Svids))
    expect(error.reason).toBe("Unavailable")
    expect(error.description).toContain("ENOENT")
    expect(error.description).not.toContain("Resolution note")
    expect(error.description).not.toMatch(/[\r\n]|\s$/)
  })
)
