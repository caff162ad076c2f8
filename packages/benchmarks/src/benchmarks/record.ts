import { hash } from "node:crypto"
import { setImmediate } from "node:timers/promises"
import { type AuditEvent, AuditLog } from "@agentweave/transport"
import { Context, Effect, Exit, Layer, Scope } from "effect"
import { services } from "../clients/effects.js"
import { type Benchmark, nanoseconds, type Running } from "../harness/Benchmark.js"
import { serverId } from "../harness/credentials.js"

const common = (i: number) => ({
  time: 1_800_000_000_000 + i,
  side: "Client" as const,
  connectionId: `c${i % 10}`,
  address: "127.0.0.1:8443",
  requestId: `r${i}`,
  peerId: serverId,
  method: "GET",
  path: "/json",
  attempt: 1
})

const startOf = (i: number): AuditEvent.AuditEvent => ({ _tag: "RequestStarted", ...common(i) })
const endOf = (i: number): AuditEvent.AuditEvent => ({
  _tag: "RequestEnded",
  ...common(i),
  status: 200,
  durationMillis: 1
})

/** Requests between two turns of the event loop, in which a file can be written. */
const turn = 64

const recording = (take: (event: AuditEvent.AuditEvent) => unknown, stop: () => Promise<void>): Running => {
  let i = 0
  return {
    sample: async (millis) => {
      const end = performance.now() + millis
      const from = i
      do {
        for (const upTo = i + turn; i < upTo; i++) {
          take(startOf(i))
          take(endOf(i))
        }
        await setImmediate()
      } while (performance.now() < end)
      return i - from
    },
    check: async () => take(startOf(i++)) === undefined,
    stop
  }
}

/**
 * Measures the two events of a request on their way to the audit file, beside the least that two records cost which are
 * each chained by itself.
 */
export const record: Benchmark = {
  name: "record",
  title: "the two audit events of a request, without the request",
  unit: nanoseconds,
  warmUp: 50_000,
  subjects: {
    "NodeAuditLog.layerFile": {
      start: async (environment) => {
        const scope = Effect.runSync(Scope.make())
        const context = await Effect.runPromise(
          Effect.provideService(Layer.build(services(environment, "file")), Scope.Scope, scope)
        )
        return recording(Context.get(context, AuditLog.AuditLog).unsafeRecord, () =>
          Effect.runPromise(Scope.close(scope, Exit.void))
        )
      }
    },
    "JSON.stringify and SHA-256, nothing written": {
      start: async () => {
        let seq = 0
        let prev = ""
        return recording(
          (event) => {
            prev = hash("sha256", JSON.stringify({ seq: seq++, prev, event }), "hex")
          },
          async () => {}
        )
      }
    },
    "the events alone": {
      start: async () =>
        recording(
          () => undefined,
          async () => {}
        )
    }
  },
  rows: ["JSON.stringify and SHA-256, nothing written", "NodeAuditLog.layerFile", "the events alone"].map(
    (contender) => ({ contender, baseline: "JSON.stringify and SHA-256, nothing written" })
  )
}
