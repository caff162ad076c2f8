import type * as Metric from "effect/Metric"
import * as MetricLabel from "effect/MetricLabel"

/** Label sets a metric may have, so that it cannot grow for ever. */
const maxLabelSets = 1_000

export interface LabelledOptions {
  /** Label sets the metric may have. Default 1,000. */
  readonly max?: number
  /**
   * The treatment of the label sets after that: counted together under `other`, the default, or not at all, for a gauge
   * that says nothing of many at once.
   */
  readonly beyond?: "other" | "nothing"
  /** Whether a label whose value is empty is left out. Default `false`. */
  readonly omitsEmpty?: boolean
}

type Labels = ReadonlyArray<MetricLabel.MetricLabel>

/** The labels of the values that lead here, if there are any, and where further values lead. */
class Branch {
  readonly next = new Map<string, Branch>()
  labels: Labels | undefined = undefined
}

/** A metric under the values of its labels: each set of labels is made once and remembered. */
export class BoundedLabels<Type, In, Out> {
  /** Value after value, and not joined to one key: strings that are used again need no new hash. */
  private readonly known = new Branch()
  private size = 0
  private readonly metric: Metric.Metric<Type, In, Out>
  private readonly names: ReadonlyArray<string>
  private readonly max: number
  private readonly other: Labels | undefined
  private readonly omitsEmpty: boolean

  constructor(metric: Metric.Metric<Type, In, Out>, names: ReadonlyArray<string>, options: LabelledOptions = {}) {
    this.metric = metric
    this.names = names
    this.omitsEmpty = options.omitsEmpty ?? false
    this.max = options.max ?? maxLabelSets
    this.other = options.beyond === "nothing" ? undefined : names.map((name) => MetricLabel.make(name, "other"))
  }

  update(input: In, ...values: ReadonlyArray<string>): void {
    const labels = this.find(values) ?? this.remember(values)
    if (labels !== undefined) this.metric.unsafeUpdate(input, labels)
  }

  /** Whether there is a metric with these labels. */
  knows(...values: ReadonlyArray<string>): boolean {
    return this.find(values) !== undefined
  }

  private find(values: ReadonlyArray<string>): Labels | undefined {
    let branch: Branch | undefined = this.known
    for (let i = 0; i < values.length && branch !== undefined; i++) branch = branch.next.get(values[i] ?? "")
    return branch?.labels
  }

  private remember(values: ReadonlyArray<string>): Labels | undefined {
    if (this.size >= this.max) return this.other
    let branch = this.known
    for (const value of values) {
      const next = branch.next.get(value) ?? new Branch()
      branch.next.set(value, next)
      branch = next
    }
    this.size++
    const labels = this.names.map((name, i) => MetricLabel.make(name, values[i] ?? ""))
    branch.labels = this.omitsEmpty ? labels.filter(({ value }) => value !== "") : labels
    return branch.labels
  }
}
