import type { Benchmark } from "./Benchmark.js"
import type { Result } from "./measure.js"

const escape = (text: string): string => text.replace(/[&<>"]/g, (char) => `&#${char.charCodeAt(0)};`)

const bar = { height: 18, gap: 10, left: 430, width: 380 }

/** One chart: a bar for each row's ratio, its spread as a line, the baseline at one, the target as a mark. */
export const chart = (benchmark: Benchmark, results: ReadonlyArray<Result>): string => {
  const largest = Math.max(1.1, ...results.map(({ ratio, spread, target = 0 }) => Math.max(ratio, spread[1], target)))
  const x = (ratio: number): string => (bar.left + (Math.min(ratio, largest) / largest) * bar.width).toFixed(1)
  const top = 48
  const height = top + results.length * (bar.height + bar.gap) + 24
  const rows = results.map((row, i) => {
    const y = top + i * (bar.height + bar.gap)
    const middle = y + bar.height / 2
    const color = row.met === false ? "#c2410c" : row.contender === row.baseline ? "#94a3b8" : "#2563eb"
    const [low, high] = row.spread
    return [
      `<text x="${bar.left - 8}" y="${y + 8}" text-anchor="end">${escape(row.contender)}</text>`,
      `<text x="${bar.left - 8}" y="${y + 19}" text-anchor="end" class="small">against ${escape(row.baseline)}</text>`,
      `<rect x="${bar.left}" y="${y}" width="${(Number(x(row.ratio)) - bar.left).toFixed(1)}" height="${bar.height}" fill="${color}"/>`,
      `<line x1="${x(low)}" x2="${x(high)}" y1="${middle}" y2="${middle}" stroke="#111"/>`,
      row.target === undefined
        ? ""
        : `<line x1="${x(row.target)}" x2="${x(row.target)}" y1="${y - 3}" y2="${y + bar.height + 3}" stroke="#16a34a" stroke-width="2"/>`,
      `<text x="${bar.left + bar.width + 8}" y="${y + 13}">${row.ratio.toFixed(row.ratio < 0.1 ? 3 : 2)}</text>`
    ].join("")
  })
  const width = bar.left + bar.width + 60
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">`,
    `<style>text{font:12px sans-serif;fill:#111}.small{font-size:9px;fill:#555}.title{font:bold 14px sans-serif}</style>`,
    `<rect width="100%" height="100%" fill="#fff"/>`,
    `<text x="12" y="22" class="title">${escape(`${benchmark.name}: ${benchmark.title}`)}</text>`,
    `<text x="12" y="38" class="small">ratio of ${escape(benchmark.unit.name)} to the baseline, ${benchmark.unit.better} is better; black: all rounds; green: target</text>`,
    `<line x1="${x(1)}" x2="${x(1)}" y1="${top - 6}" y2="${height - 20}" stroke="#111" stroke-dasharray="3 3"/>`,
    ...rows,
    "</svg>"
  ].join("\n")
}
