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

const seriesOf = (text: string) =>
  text.split("\n").flatMap((line) => (line.startsWith("#") || line === "" ? [] : [line.replace(/ [^ ]*$/, "")]))

it.effect("names that become one in the alphabet of Prometheus are told apart, and the plain one keeps its name", () =>
  Effect.gen(function* () {
    for (const name of ["prometheus_test_same.name", "prometheus_test_same-name", "prometheus_test_same_name"]) {
      yield* Metric.incrementBy(Metric.counter(name), name.length)
    }
    const text = yield* PrometheusMetrics.text
    const same = seriesOf(text).filter((line) => line.includes("test_same_name"))
    expect(new Set(same).size).toBe(3)
    expect(same).toContain("prometheus_test_same_name")
    expect(same.filter((line) => /^prometheus_test_same_name_[0-9a-f]{8}$/.test(line))).toHaveLength(2)
  })
)

it.effect("labels that become one are told apart, also from those of the format", () =>
  Effect.gen(function* () {
    const counter = Metric.counter("prometheus_test_labels")
    yield* Metric.increment(Metric.tagged(Metric.tagged(counter, "a.b", "1"), "a_b", "2"))
    yield* Metric.increment(Metric.tagged(counter, "a.b", "2"))
    yield* Metric.increment(Metric.tagged(counter, "a_b", "2"))
    const histogram = Metric.histogram("prometheus_test_le", MetricBoundaries.fromIterable([1]))
    yield* Metric.update(Metric.tagged(histogram, "le", "mine"), 5)
    const series = seriesOf(yield* PrometheusMetrics.text)
    const labelled = series.filter((line) => line.startsWith("prometheus_test_labels"))
    expect(new Set(labelled).size).toBe(3)
    for (const line of series.filter((line) => line.startsWith("prometheus_test_l"))) {
      const labels = Array.from(line.matchAll(/([a-zA-Z0-9_]+)="/g), ([, label]) => label)
      expect(new Set(labels).size, line).toBe(labels.length)
    }
  })
)

it.effect("every series is there once, whatever metrics share a name", () =>
  Effect.gen(function* () {
    yield* Metric.update(Metric.histogram("prometheus_test_shared", MetricBoundaries.fromIterable([1])), 5)
    yield* Metric.update(Metric.histogram("prometheus_test_shared", MetricBoundaries.fromIterable([2])), 5)
    yield* Metric.increment(Metric.counter("prometheus_test_shared"))
    yield* Metric.increment(Metric.counter("prometheus_test_shared", { description: "the same with a description" }))
    yield* Metric.set(Metric.gauge("prometheus_test_shared"), 1)
    yield* Metric.increment(Metric.counter("prometheus_test_shared_count"))
    yield* Metric.increment(Metric.counter("prometheus_test:shared.count"))
    const text = yield* PrometheusMetrics.text
    const series = seriesOf(text)
    expect(series.filter((line, n) => series.indexOf(line) !== n)).toStrictEqual([])
    const types = text.split("\n").filter((line) => line.startsWith("# TYPE"))
    expect(new Set(types.map((line) => line.split(" ")[2])).size).toBe(types.length)
    expect(series.filter((line) => line.startsWith("prometheus_test_shared")).length).toBeGreaterThan(8)
  })
)
