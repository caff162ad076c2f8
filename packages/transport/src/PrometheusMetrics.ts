/**
 * Effect's metrics in the Prometheus text exposition format, version 0.0.4.
 *
 * @since 0.1.0
 */
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type { MetricPair } from "effect/MetricPair"
import * as MetricState from "effect/MetricState"
import * as Option from "effect/Option"
import { updateGauges } from "./internal/pool/telemetry.js"

type Labels = ReadonlyArray<readonly [name: string, value: string]>

const safeName = (name: string): string => name.replace(/[^a-zA-Z0-9_:]/g, "_").replace(/^(?=\d)/, "_")

const escapeValue = (value: string): string => value.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n")

const escapeHelp = (text: string): string => text.replace(/\\/g, "\\\\").replace(/\n/g, "\\n")

const number = (value: number | bigint): string =>
  value === Number.POSITIVE_INFINITY ? "+Inf" : value === Number.NEGATIVE_INFINITY ? "-Inf" : String(value)

const sample = (name: string, labels: Labels, value: number | bigint): string => {
  const inside = labels.map(([key, text]) => `${safeName(key)}="${escapeValue(text)}"`).join(",")
  return `${name}${inside === "" ? "" : `{${inside}}`} ${number(value)}`
}

interface Family {
  readonly type: "counter" | "gauge" | "histogram" | "summary"
  readonly help: string
  readonly samples: Array<string>
}

/** The samples of one metric under one set of labels, and the type of its family. */
const samplesOf = (
  name: string,
  labels: Labels,
  state: MetricState.MetricState.Untyped
): { readonly type: Family["type"]; readonly samples: ReadonlyArray<string> } => {
  if (MetricState.isCounterState(state)) return { type: "counter", samples: [sample(name, labels, state.count)] }
  if (MetricState.isGaugeState(state)) return { type: "gauge", samples: [sample(name, labels, state.value)] }
  if (MetricState.isFrequencyState(state)) {
    const samples = Array.from(state.occurrences, ([word, count]) => sample(name, [...labels, ["word", word]], count))
    return { type: "counter", samples }
  }
  if (MetricState.isHistogramState(state)) {
    const buckets = state.buckets.map(([limit, count]) =>
      sample(
        `${name}_bucket`,
        [...labels, ["le", number(limit === Number.MAX_VALUE ? Number.POSITIVE_INFINITY : limit)]],
        count
      )
    )
    const infinite = buckets.at(-1)?.includes('le="+Inf"') === true
    return {
      type: "histogram",
      samples: [
        ...buckets,
        ...(infinite ? [] : [sample(`${name}_bucket`, [...labels, ["le", "+Inf"]], state.count)]),
        sample(`${name}_sum`, labels, state.sum),
        sample(`${name}_count`, labels, state.count)
      ]
    }
  }
  if (MetricState.isSummaryState(state)) {
    const quantiles = state.quantiles.flatMap(([quantile, value]) =>
      Option.isSome(value) ? [sample(name, [...labels, ["quantile", number(quantile)]], value.value)] : []
    )
    return {
      type: "summary",
      samples: [...quantiles, sample(`${name}_sum`, labels, state.sum), sample(`${name}_count`, labels, state.count)]
    }
  }
  return { type: "gauge", samples: [] }
}

/**
 * Renders metrics, those of one name under one heading.
 *
 * @since 0.1.0
 * @category rendering
 */
export const render = (pairs: ReadonlyArray<MetricPair.Untyped>): string => {
  const families = new Map<string, Family>()
  for (const { metricKey, metricState } of pairs) {
    const name = safeName(metricKey.name)
    const labels = metricKey.tags.map((tag): readonly [string, string] => [tag.key, tag.value])
    const { samples, type } = samplesOf(name, labels, metricState)
    const family = families.get(name)
    if (family === undefined) {
      const help = Option.getOrElse(metricKey.description, () => "")
      families.set(name, { type, help, samples: [...samples] })
    } else family.samples.push(...samples)
  }
  let text = ""
  for (const [name, { help, samples, type }] of families) {
    if (help !== "") text += `# HELP ${name} ${escapeHelp(help)}\n`
    text += `# TYPE ${name} ${type}\n${samples.join("\n")}\n`
  }
  return text
}

/**
 * All metrics of the process, rendered; the gauges of pools and retry budgets are brought up to date before.
 *
 * @since 0.1.0
 * @category rendering
 */
export const text: Effect.Effect<string> = Effect.map(Effect.zipRight(updateGauges, Metric.snapshot), render)

/**
 * An HTTP app that answers with all metrics of the process; mount it at `/metrics` of a server.
 *
 * @since 0.1.0
 * @category apps
 * @example
 * ```ts
 * import { PrometheusMetrics } from "@agentweave/transport"
 * import { HttpRouter } from "@effect/platform"
 *
 * const router = HttpRouter.empty.pipe(HttpRouter.get("/metrics", PrometheusMetrics.app))
 * ```
 */
export const app: HttpApp.Default = Effect.map(text, (body) =>
  HttpServerResponse.text(body, { contentType: "text/plain; version=0.0.4; charset=utf-8" })
)
