import type * as Metric from "effect/Metric"
import * as MetricLabel from "effect/MetricLabel"

/** Label sets a metric may have; what comes after that is counted under `other`, so that a metric cannot grow for ever. */
const maxLabelSets = 1_000

/** A metric under the values of its labels: each set of labels is made once and remembered. */
export class Labelled<Type, In, Out> {
  private readonly known = new Map<string, ReadonlyArray<MetricLabel.MetricLabel>>()
  private readonly metric: Metric.Metric<Type, In, Out>
  private readonly names: ReadonlyArray<string>

  constructor(metric: Metric.Metric<Type, In, Out>, names: ReadonlyArray<string>) {
    this.metric = metric
    this.names = names
  }

  update(input: In, ...values: ReadonlyArray<string>): void {
    const key = values.join("\n")
    const labels = this.known.get(key) ?? this.remember(key, values)
    this.metric.unsafeUpdate(input, labels)
  }

  private remember(key: string, values: ReadonlyArray<string>): ReadonlyArray<MetricLabel.MetricLabel> {
    if (this.known.size >= maxLabelSets) return this.names.map((name) => MetricLabel.make(name, "other"))
    const labels = this.names.map((name, i) => MetricLabel.make(name, values[i] ?? ""))
    this.known.set(key, labels)
    return labels
  }
}
