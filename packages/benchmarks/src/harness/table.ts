import type { Benchmark } from "./Benchmark.js"
import type { Result } from "./measure.js"

const digits = (value: number): string =>
  value >= 1000 ? Math.round(value).toLocaleString("en-US") : value >= 100 ? value.toFixed(0) : value.toPrecision(3)

const ratio = (value: number): string => (value < 0.1 ? value.toFixed(3) : value.toFixed(2))

const columns = [
  "contender",
  "against",
  "ratio",
  "lowest–highest",
  "value",
  "CPU µs",
  "CPU ratio",
  "peak MiB",
  "target",
  ""
]

const cells = (better: "higher" | "lower", row: Result): ReadonlyArray<string> => [
  row.contender,
  row.baseline === row.contender ? "itself: the noise" : row.baseline,
  ratio(row.ratio),
  `${ratio(row.spread[0])}–${ratio(row.spread[1])}`,
  `${digits(row.value)} ${row.unit}`,
  row.cpuMicros === undefined ? "" : digits(row.cpuMicros),
  row.cpuRatio === undefined ? "" : ratio(row.cpuRatio),
  row.peakRssMiB === undefined ? "" : row.peakRssMiB.toFixed(0),
  row.target === undefined ? "" : `${better === "higher" ? "≥" : "≤"} ${row.target}`,
  row.met === undefined ? "" : row.met ? "met" : "MISSED"
]

/** The results of one benchmark for people. */
export const table = (benchmark: Benchmark, results: ReadonlyArray<Result>): string => {
  const lines = [columns, ...results.map((result) => cells(benchmark.unit.better, result))]
  const used = columns.map((_, i) => lines.some((line, at) => at > 0 && line[i] !== ""))
  const widths = columns.map((_, i) => Math.max(...lines.map((line) => (line[i] ?? "").length)))
  const right = new Set([2, 3, 4, 5, 6, 7, 8])
  const text = lines.map((line) =>
    line
      .map((cell, i) => (right.has(i) ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0)))
      .filter((_, i) => used[i])
      .join("  ")
      .trimEnd()
  )
  const [head = "", ...rows] = text
  const direction = `${benchmark.unit.name}, ${benchmark.unit.better} is better`
  return [`${benchmark.name}: ${benchmark.title} (${direction})`, head, "─".repeat(head.length), ...rows].join("\n")
}
