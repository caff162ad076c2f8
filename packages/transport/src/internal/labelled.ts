import type * as Metric from "effect/Metric"
import * as MetricLabel from "effect/MetricLabel"

/** Label sets a metric may have, so that it cannot grow for ever. */
const maxLabelSets = 1_000

export interface LabelledOptions {
  /** Label sets the metric may have. Default 1,000. */
  readonly max?: number
  /**
   * What becomes of the label sets after that: counted together under `other`, the default, or not at all, for a gauge
   * that says nothing of many at once.
   */
  readonly beyond?: "other" | "nothing"
}

/** A metric under the values of its labels: each set of labels is made once and remembered. */
export class Labelled<Type, In, Out> {
  private readonly known = new Map<string, ReadonlyArray<MetricLabel.MetricLabel>>()
  private readonly metric: Metric.Metric<Type, In, Out>
  private readonly names: ReadonlyArray<string>
  private readonly max: number
  private readonly other: ReadonlyArray<MetricLabel.MetricLabel> | undefined

  constructor(metric: Metric.Metric<Type, In, Out>, names: ReadonlyArray<string>, options: LabelledOptions = {}) {
    this.metric = metric
    this.names = names
    this.max = options.max ?? maxLabelSets
    this.other = options.beyond === "nothing" ? undefined : names.map((name) => MetricLabel.make(name, "other"))
  }

  update(input: In, ...values: ReadonlyArray<string>): void {
    const key = values.join("\n")
    const labels = this.known.get(key) ?? this.remember(key, values)
    if (labels !== undefined) this.metric.unsafeUpdate(input, labels)
  }

  /** Whether there is a metric with these labels. */
  knows(...values: ReadonlyArray<string>): boolean {
    return this.known.has(values.join("\n"))
  }

  private remember(key: string, values: ReadonlyArray<string>): ReadonlyArray<MetricLabel.MetricLabel> | undefined {
    if (this.known.size >= this.max) return this.other
    const labels = this.names.map((name, i) => MetricLabel.make(name, values[i] ?? ""))
    this.known.set(key, labels)
    return labels
  }
}
