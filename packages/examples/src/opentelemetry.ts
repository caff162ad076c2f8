/**
 * Metrics and traces by way of OpenTelemetry: two workloads in one process, some requests, and what was exported of them.
 * The exporters keep everything in memory, so that the program runs without a collector; in an application their places
 * are taken by those of `@opentelemetry/exporter-trace-otlp-http` and `@opentelemetry/exporter-metrics-otlp-http`.
 */
import { IdentityProvider, PeerMatcher } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { AuditLog, PeerDirectory, PeerIdentity, Transport } from "@agentweave/transport"
import { NodeConnector, NodeSecureServer } from "@agentweave/transport-node"
import { NodeSdk } from "@effect/opentelemetry"
import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  PeriodicExportingMetricReader
} from "@opentelemetry/sdk-metrics"
import { InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base"
import { Context, Effect, Layer } from "effect"

const spans = new InMemorySpanExporter()
const metrics = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE)
const reader = new PeriodicExportingMetricReader({ exporter: metrics, exportIntervalMillis: 60_000 })

const Telemetry = NodeSdk.layer(() => ({
  resource: { serviceName: "web" },
  spanProcessor: new SimpleSpanProcessor(spans),
  metricReader: reader
}))

const routes = HttpRouter.empty.pipe(
  HttpRouter.get(
    "/hello",
    Effect.map(PeerIdentity.caller, ({ spiffeId }) => HttpServerResponse.text(`hello ${spiffeId}`))
  ),
  HttpRouter.get("/broken", HttpServerResponse.text("out of order", { status: 503 }))
)

/** Starts the server; the port it listens on. */
const serve = Effect.fnUntraced(function* (authority: DevAuthority.DevAuthority) {
  const identity = IdentityProvider.layerStatic(yield* authority.context({ path: "/api" }))
  const authorize = PeerMatcher.exactly(authority.id("/web"))
  const services = yield* HttpServer.serve(routes).pipe(
    Layer.provideMerge(NodeSecureServer.layer({ port: 0, host: "127.0.0.1", authorize })),
    Layer.provide(identity),
    Layer.build
  )
  const { address } = Context.get(services, HttpServer.HttpServer)
  return address._tag === "TcpAddress" ? address.port : yield* Effect.dieMessage("expected a TCP address")
})

const requests = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const port = yield* serve(authority)
  const api = authority.id("/api")

  const Client = Transport.layer({ retry: { maxRetries: 2, baseDelay: "10 millis" } }).pipe(
    Layer.provide(NodeConnector.layer),
    Layer.provide(PeerDirectory.layerStatic({ [api]: `https://127.0.0.1:${port}` })),
    Layer.provide(IdentityProvider.layerStatic(yield* authority.context({ path: "/web" })))
  )
  yield* Effect.gen(function* () {
    const transport = yield* Transport.Transport
    const client = yield* transport.client(api)
    for (let n = 0; n < 3; n++) yield* Effect.flatMap(client.get("/hello"), (response) => response.text)
    yield* Effect.flatMap(client.get("/broken"), (response) => response.text)
  }).pipe(Effect.provide(Client), Effect.withSpan("shopping"))
})

const show = Effect.sync(() => {
  console.log("spans")
  for (const span of spans.getFinishedSpans()) {
    const attributes = Object.entries(span.attributes).map(([key, value]) => `${key}=${value}`)
    console.log(`  ${span.spanContext().traceId.slice(0, 8)} ${span.name.padEnd(20)} ${attributes.join(" ")}`)
  }
  console.log("metrics")
  const latest = metrics.getMetrics().at(-1)?.scopeMetrics ?? []
  for (const { dataPoints, descriptor } of latest.flatMap((scope) => scope.metrics)) {
    for (const { attributes, value } of dataPoints) {
      const labels = Object.entries(attributes).map(([key, text]) => `${key}=${text}`)
      console.log(
        `  ${descriptor.name.padEnd(38)} ${typeof value === "object" ? `count ${value.count}` : value}  ${labels.join(" ")}`
      )
    }
  }
})

NodeRuntime.runMain(
  Effect.scoped(requests).pipe(
    Effect.zipRight(Effect.promise(() => reader.forceFlush())),
    Effect.zipRight(show),
    Effect.provide(AuditLog.layerLogger),
    Effect.provide(Telemetry)
  )
)
