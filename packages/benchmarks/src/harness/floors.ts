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

/** The worst ratio that holds a floor. */
const limitOf = (benchmark: Benchmark, floor: number): number =>
  benchmark.unit.better === "higher" ? floor * (1 - slack) : floor * (1 + slack)

/** The results that fell below their floor. */
export const fallen = (benchmark: Benchmark, results: ReadonlyArray<Result>, floors: Floors): ReadonlyArray<Result> =>
  results.filter((result) => {
    const floor = floors[benchmark.name]?.[rowOf(result)]
    if (floor === undefined) return false
    const limit = limitOf(benchmark, floor)
    return benchmark.unit.better === "higher" ? result.ratio < limit : result.ratio > limit
  })

/** One line about a result that fell below its floor. */
export const describe = (benchmark: Benchmark, result: Result, floors: Floors): string => {
  const floor = floors[benchmark.name]?.[rowOf(result)] ?? Number.NaN
  const bound = benchmark.unit.better === "higher" ? "at least" : "at most"
  return (
    `${benchmark.name}: ${rowOf(result)}: expected a ratio of ${bound} ` +
    `${limitOf(benchmark, floor).toFixed(3)} (recorded ${floor}), got ${result.ratio.toFixed(3)}`
  )
}

/**
 * Records anew the rows that have a floor and were measured now. The first floor of a row is written by hand: rows of other
 * libraries' code have none.
 */
export const record = (results: ReadonlyArray<Result>): void => {
  const floors = read()
  for (const result of results) {
    const rows = floors[result.benchmark]
    if (rows?.[rowOf(result)] !== undefined) rows[rowOf(result)] = Number(result.ratio.toFixed(3))
  }
  writeFileSync(file, `${JSON.stringify(floors, null, 2)}\n`)
}
