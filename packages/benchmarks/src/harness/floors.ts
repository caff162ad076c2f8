/** Ratios that were reached once, and must not be lost again. */
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import type { Benchmark } from "./Benchmark.js"
import type { Result } from "./measure.js"

type Floors = Record<string, Record<string, number>>

const file = fileURLToPath(new URL("../../floors.json", import.meta.url))

/** A row may be this part worse than recorded before it counts as worse. */
export const slack = 0.1

const rowOf = (result: Result): string => `${result.contender} / ${result.baseline}`

export const read = (): Floors => (existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as Floors) : {})

/** What fell below its floor, each as a line that names the row. */
export const fallen = (benchmark: Benchmark, results: ReadonlyArray<Result>, floors: Floors): ReadonlyArray<string> =>
  results.flatMap((result) => {
    const floor = floors[benchmark.name]?.[rowOf(result)]
    if (floor === undefined) return []
    const higher = benchmark.unit.better === "higher"
    const limit = higher ? floor * (1 - slack) : floor * (1 + slack)
    const held = higher ? result.ratio >= limit : result.ratio <= limit
    return held
      ? []
      : [
          `${benchmark.name}: ${rowOf(result)}: expected a ratio of ${higher ? "at least" : "at most"} ` +
            `${limit.toFixed(3)} (recorded ${floor}), got ${result.ratio.toFixed(3)}`
        ]
  })

/** Keeps the rows that were not measured now. A baseline against itself has no floor. */
export const record = (results: ReadonlyArray<Result>): void => {
  const floors = read()
  for (const result of results) {
    if (result.contender === result.baseline) continue
    floors[result.benchmark] = { ...floors[result.benchmark], [rowOf(result)]: Number(result.ratio.toFixed(3)) }
  }
  writeFileSync(file, `${JSON.stringify(floors, null, 2)}\n`)
}
