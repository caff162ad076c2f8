import { type AuditEvent, AuditLog, HttpMetrics } from "@agentweave/transport"
import { expect, it } from "@effect/vitest"
import { Context, Effect, Layer, Metric, MetricState } from "effect"

const ended = (
  side: "Client" | "Server",
  fields: Partial<typeof AuditEvent.RequestEnded.Type>
): AuditEvent.AuditEvent => ({
  _tag: "RequestEnded",
  time: 0,
  side,
  connectionId: "c1",
  address: "[2001:db8::7]:8443",
  requestId: "r1",
  peerId: "spiffe://example.org/api",
  method: "GET",
  path: "/",
  attempt: 1,
  durationMillis: 250,
  ...fields
})

/** The label sets of a metric, with the number and the sum of what was measured. */
const measured = (name: string) =>
  Effect.map(Metric.snapshot, (pairs) =>
    pairs.flatMap(({ metricKey, metricState }) => {
      if (metricKey.name !== name || !MetricState.isHistogramState(metricState)) return []
      const labels = Object.fromEntries(metricKey.tags.map(({ key, value }) => [key, value]))
      return [{ labels, count: metricState.count, sum: metricState.sum }]
    })
  )

it.scoped("requests are measured under the names and labels of OpenTelemetry's conventions, beside the record", () =>
  Effect.gen(function* () {
    const events: Array<AuditEvent.AuditEvent> = []
    const layer = HttpMetrics.layerAuditLog(AuditLog.layerMemory(events))
    const { unsafeRecord } = Context.get(yield* Layer.build(layer), AuditLog.AuditLog)
    unsafeRecord(ended("Client", { status: 200 }))
    unsafeRecord(ended("Client", { status: 200 }))
    unsafeRecord(ended("Client", { status: 404 }))
    unsafeRecord(ended("Client", { error: "TimeoutError" }))
    unsafeRecord(ended("Server", { status: 404, method: "PROPFIND" }))
    unsafeRecord(ended("Server", { status: 503 }))
    expect(events).toHaveLength(6)

    const at = { "http.request.method": "GET", "server.address": "2001:db8::7", "server.port": "8443" }
    const client = yield* measured("http.client.request.duration")
    expect(client).toHaveLength(3)
    expect(client).toContainEqual({ labels: { ...at, "http.response.status_code": "200" }, count: 2, sum: 0.5 })
    expect(client).toContainEqual({
      labels: { ...at, "http.response.status_code": "404", "error.type": "404" },
      count: 1,
      sum: 0.25
    })
    expect(client).toContainEqual({ labels: { ...at, "error.type": "TimeoutError" }, count: 1, sum: 0.25 })

    const server = (yield* measured("http.server.request.duration")).map(({ labels }) => labels)
    expect(server).toHaveLength(2)
    expect(server).toContainEqual({
      "http.request.method": "_OTHER",
      "http.response.status_code": "404",
      "url.scheme": "https"
    })
    expect(server).toContainEqual({
      "http.request.method": "GET",
      "http.response.status_code": "503",
      "error.type": "503",
      "url.scheme": "https"
    })
  })
)

it.scoped("a refusal of the audit log stays one", () =>
  Effect.gen(function* () {
    const refusal = new AuditLog.AuditError({ reason: "Full", description: "expected room, got none" })
    const full = Layer.succeed(AuditLog.AuditLog, { unsafeRecord: () => refusal })
    const log = Context.get(yield* Layer.build(HttpMetrics.layerAuditLog(full)), AuditLog.AuditLog)
    expect(log.unsafeRecord(ended("Client", { status: 200 }))).toBe(refusal)
  })
)
