/**
 * Effect's metrics in the Prometheus text exposition format, version 0.0.4.
 *
 * @since 0.1.0
 */
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Metric from "effect/Metric"
import type { MetricPair } from "effect/MetricPair"
import * as MetricState from "effect/MetricState"
import * as Option from "effect/Option"
import { uniqueNames } from "./internal/metrics/uniqueNames.js"
import { updateGauges } from "./internal/pool/telemetry.js"

type Labels = ReadonlyArray<readonly [name: string, value: string]>

const safeName = (name: string): string => name.replace(/[^a-zA-Z0-9_:]/g, "_").replace(/^(?=\d)/, "_")

/** Labels have no colons, and those that begin with two underscores are Prometheus' own. */
const safeLabel = (name: string): string => safeName(name).replace(/:/g, "_").replace(/^__+/, "_")

const escapeValue = (value: string): string => value.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n")

const escapeHelp = (text: string): string => text.replace(/\\/g, "\\\\").replace(/\n/g, "\\n")

const number = (value: number | bigint): string =>
  value === Number.POSITIVE_INFINITY ? "+Inf" : value === Number.NEGATIVE_INFINITY ? "-Inf" : String(value)

const sample = (name: string, labels: Labels, value: number | bigint): string => {
  const inside = labels.map(([key, text]) => `${key}="${escapeValue(text)}"`).join(",")
  return `${name}${inside === "" ? "" : `{${inside}}`} ${number(value)}`
}

type Type = "counter" | "gauge" | "histogram" | "summary"

/** The keys that are one metric: equal but for their tags. */
interface Family {
  readonly name: string
  /** Its name, with what tells it from an earlier family that has the same one. */
  readonly identity: string
  readonly type: Type
  readonly help: string
  readonly first: MetricPair.Untyped
  readonly pairs: Array<MetricPair.Untyped>
}

const typeOf = (state: MetricState.MetricState.Untyped): Type => {
  if (MetricState.isCounterState(state) || MetricState.isFrequencyState(state)) return "counter"
  if (MetricState.isHistogramState(state)) return "histogram"
  return MetricState.isSummaryState(state) ? "summary" : "gauge"
}

/** The names of the series of a family. */
const seriesOf: { readonly [Kind in Type]: (name: string) => ReadonlyArray<string> } = {
  counter: (name) => [name],
  gauge: (name) => [name],
  histogram: (name) => [name, `${name}_bucket`, `${name}_sum`, `${name}_count`],
  summary: (name) => [name, `${name}_sum`, `${name}_count`]
}

/** Labels that the format gives a meaning of its own. */
const ownLabels = (state: MetricState.MetricState.Untyped): ReadonlyArray<string> => {
  if (MetricState.isFrequencyState(state)) return ["word"]
  if (MetricState.isHistogramState(state)) return ["le"]
  return MetricState.isSummaryState(state) ? ["quantile"] : []
}

const familiesOf = (pairs: ReadonlyArray<MetricPair.Untyped>): ReadonlyArray<Family> => {
  const byName = new Map<string, Array<Family>>()
  for (const pair of pairs) {
    const { description, keyType, name } = pair.metricKey
    const named = byName.get(name) ?? []
    byName.set(name, named)
    const type = typeOf(pair.metricState)
    const help = Option.getOrElse(description, () => "")
    const same = named.find(
      (family) => family.type === type && family.help === help && Equal.equals(family.first.metricKey.keyType, keyType)
    )
    if (same === undefined) {
      const identity = named.length === 0 ? name : `${name} ${type} ${help}`
      named.push({ name, identity, type, help, first: pair, pairs: [pair] })
    } else same.pairs.push(pair)
  }
  return Array.from(byName.values()).flat()
}

/** Names of the families, whose series are not the series of any other. */
const familyNames = (families: ReadonlyArray<Family>): Map<Family, string> =>
  uniqueNames(
    families.map((family) => ({
      of: family,
      name: family.identity,
      safe: safeName(family.name),
      takes: seriesOf[family.type]
    }))
  )

/** Names of a family's labels, of which no two are one. */
const labelNames = ({ first, pairs }: Family): Map<string, string> => {
  const keys = new Set(pairs.flatMap(({ metricKey }) => metricKey.tags.map(({ key }) => key)))
  return uniqueNames(
    Array.from(keys, (key) => ({ of: key, name: key, safe: safeLabel(key), takes: (name: string) => [name] })),
    ownLabels(first.metricState)
  )
}

/** The samples of one metric under one set of labels, and the type of its family. */
const samplesOf = (name: string, labels: Labels, state: MetricState.MetricState.Untyped): ReadonlyArray<string> => {
  if (MetricState.isCounterState(state)) return [sample(name, labels, state.count)]
  if (MetricState.isGaugeState(state)) return [sample(name, labels, state.value)]
  if (MetricState.isFrequencyState(state)) {
    return Array.from(state.occurrences, ([word, count]) => sample(name, [...labels, ["word", word]], count))
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
    return [
      ...buckets,
      ...(infinite ? [] : [sample(`${name}_bucket`, [...labels, ["le", "+Inf"]], state.count)]),
      sample(`${name}_sum`, labels, state.sum),
      sample(`${name}_count`, labels, state.count)
    ]
  }
  if (MetricState.isSummaryState(state)) {
    const quantiles = state.quantiles.flatMap(([quantile, value]) =>
      Option.isSome(value) ? [sample(name, [...labels, ["quantile", number(quantile)]], value.value)] : []
    )
    return [...quantiles, sample(`${name}_sum`, labels, state.sum), sample(`${name}_count`, labels, state.count)]
  }
  return []
}

/**
 * Renders metrics, those of one name under one heading. Names and labels are made of letters, digits and `_`; where two
 * become one by that (`a.b` and `a_b`), or two metrics share a name and are not alike, one gets a suffix: no two series
 * are ever the same.
 *
 * @since 0.1.0
 * @category conversions
 */
export const render = (pairs: ReadonlyArray<MetricPair.Untyped>): string => {
  const families = familiesOf(pairs)
  const names = familyNames(families)
  let text = ""
  for (const family of families) {
    const name = names.get(family) ?? safeName(family.name)
    const labels = labelNames(family)
    const samples = family.pairs.flatMap(({ metricKey, metricState }) =>
      samplesOf(
        name,
        metricKey.tags.map(({ key, value }) => [labels.get(key) ?? safeLabel(key), value]),
        metricState
      )
    )
    if (family.help !== "") text += `# HELP ${name} ${escapeHelp(family.help)}\n`
    text += `# TYPE ${name} ${family.type}\n${samples.join("\n")}\n`
  }
  return text
}

/**
 * All metrics of the process, rendered; the gauges of pools and retry budgets are brought up to date before.
 *
 * @since 0.1.0
 * @category conversions
 */
export const text: Effect.Effect<string> = Effect.map(Effect.zipRight(updateGauges, Metric.snapshot), render)

/**
 * An HTTP app that answers with all metrics of the process; mount it at `/metrics` of a server.
 *
 * @since 0.1.0
 * @category constructors
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
