/** Audit events at an OpenTelemetry collector, as `@effect/opentelemetry` sends them. */
import { AuditLog } from "@agentweave/transport"
import * as OtlpLogger from "@effect/opentelemetry/OtlpLogger"
import * as OtlpSerialization from "@effect/opentelemetry/OtlpSerialization"
import { HttpClient, HttpClientResponse } from "@effect/platform"
import { expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"

it.live("audit events reach a collector by OTLP with their fields, their time and a level", () =>
  Effect.gen(function* () {
    const bodies: Array<string> = []
    const collector = HttpClient.make((request) => {
      if (request.body._tag === "Uint8Array") bodies.push(new TextDecoder().decode(request.body.body))
      return Effect.succeed(HttpClientResponse.fromWeb(request, new Response()))
    })
    const Audit = AuditLog.layerFromLogger(
      OtlpLogger.make({ url: "http://collector.test/v1/logs", resource: { serviceName: "web" } })
    ).pipe(Layer.provide([Layer.succeed(HttpClient.HttpClient, collector), OtlpSerialization.layerJson]))
    // What was recorded is sent when the layer's scope closes at the latest.
    yield* AuditLog.record({
      _tag: "LeaseLeaked",
      time: 1_767_225_600_000,
      targetId: "spiffe://example.org/api",
      heldMillis: 60_000,
      origin: "invoices"
    }).pipe(Effect.provide(Audit))
    const [record] = bodies.flatMap((body) => JSON.parse(body).resourceLogs[0].scopeLogs[0].logRecords)
    expect(record).toMatchObject({
      timeUnixNano: "1767225600000000000",
      severityText: "WARN",
      body: { stringValue: "LeaseLeaked" }
    })
    expect(record.attributes).toContainEqual({ key: "targetId", value: { stringValue: "spiffe://example.org/api" } })
  })
)
