import { PrometheusMetrics } from "@agentweave/transport"
import { HttpApp } from "@effect/platform"
import { expect, it } from "@effect/vitest"
import { Effect, Metric, MetricBoundaries } from "effect"

const lines = Effect.map(PrometheusMetrics.text, (text) =>
  text.split("\n").filter((line) => line.includes("prometheus_test"))
)

it.effect("each kind of metric has its Prometheus form, labels escaped", () =>
  Effect.gen(function* () {
    const counter = Metric.counter("prometheus_test_calls", { description: "calls\nmade", incremental: true })
    yield* Metric.incrementBy(Metric.tagged(counter, "peer", 'spiffe://a/"x"\\\n'), 3)
    yield* Metric.set(Metric.gauge("prometheus_test.open"), 2)
    const histogram = Metric.histogram("prometheus_test_seconds", MetricBoundaries.fromIterable([0.1, 1]))
    yield* Metric.update(histogram, 0.05)
    yield* Metric.update(histogram, 0.5)
    yield* Metric.update(histogram, 5)
    expect(yield* lines).toEqual([
      "# HELP prometheus_test_calls calls\\nmade",
      "# TYPE prometheus_test_calls counter",
      'prometheus_test_calls{peer="spiffe://a/\\"x\\"\\\\\\n"} 3',
      "# TYPE prometheus_test_open gauge",
      "prometheus_test_open 2",
      "# TYPE prometheus_test_seconds histogram",
      'prometheus_test_seconds_bucket{le="0.1"} 1',
      'prometheus_test_seconds_bucket{le="1"} 2',
      'prometheus_test_seconds_bucket{le="+Inf"} 3',
      "prometheus_test_seconds_sum 5.55",
      "prometheus_test_seconds_count 3"
    ])
  })
)

it.effect("several label sets of one metric stand under one heading", () =>
  Effect.gen(function* () {
    const counter = Metric.counter("prometheus_test_grouped", { incremental: true })
    yield* Metric.increment(Metric.tagged(counter, "side", "Client"))
    yield* Metric.increment(Metric.tagged(counter, "side", "Server"))
    const grouped = (yield* lines).filter((line) => line.includes("grouped"))
    expect(grouped.filter((line) => line.startsWith("#"))).toHaveLength(1)
    expect(grouped).toHaveLength(3)
  })
)

it.live("the app answers with the exposition format", () =>
  Effect.gen(function* () {
    yield* Metric.increment(Metric.counter("prometheus_test_served"))
    const answer = yield* Effect.promise(() =>
      HttpApp.toWebHandler(PrometheusMetrics.app)(new Request("https://localhost/metrics"))
    )
    expect(answer.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8")
    expect(yield* Effect.promise(() => answer.text())).toContain("prometheus_test_served 1")
  })
)
