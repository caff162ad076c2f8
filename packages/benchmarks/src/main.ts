/** `npm run bench`: measures, prints, and compares with what was recorded. */
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Benchmark } from "./harness/Benchmark.js"
import * as floors from "./harness/floors.js"
import { measure, type Result, selected } from "./harness/measure.js"
import { type Options, parse, usage } from "./harness/options.js"
import { chart } from "./harness/svg.js"
import { table } from "./harness/table.js"
import { load, names } from "./registry.js"

const note = (text: string): void => {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[2K${text.slice(0, (process.stderr.columns ?? 100) - 1)}`)
}

/**
 * A row that misses its floor is measured again in three processes: what V8 made of the code in one process, and what else the
 * machine did meanwhile, move a median by more than the slack. It has fallen only if it misses twice.
 */
const stillFallen = async (
  benchmark: Benchmark,
  options: Options,
  results: ReadonlyArray<Result>
): Promise<ReadonlyArray<string>> => {
  const recorded = floors.read()
  const missed = floors.fallen(benchmark, results, recorded)
  const rows = benchmark.rows.filter((row) =>
    missed.some(({ baseline, contender }) => row.contender === contender && row.baseline === baseline)
  )
  if (rows.length === 0) return []
  const again = await measure(
    benchmark,
    { ...options, processes: Math.max(3, options.processes) },
    (text) => note(`${benchmark.name}, once more: ${text}`),
    rows
  )
  note("")
  console.log(`${benchmark.name}: measured once more, in three processes\n${table(benchmark, again)}\n`)
  return floors.fallen(benchmark, again, recorded).map((result) => floors.describe(benchmark, result, recorded))
}

const run = async (options: Options): Promise<boolean> => {
  const all: Array<Result> = []
  const failures: Array<string> = []
  for (const name of options.names.length === 0 ? names : options.names) {
    const benchmark = await load(name)
    if (options.list) {
      console.log(`${name}: ${benchmark.title}`)
      for (const row of selected(benchmark, options)) console.log(`  ${row.contender} / ${row.baseline}`)
      continue
    }
    const from = performance.now()
    try {
      const results = await measure(benchmark, options, (text) => note(`${name}: ${text}`))
      note("")
      if (results.length === 0) continue
      console.log(`${table(benchmark, results)}\n${((performance.now() - from) / 1000).toFixed(0)} s\n`)
      all.push(...results)
      if (options.check) failures.push(...(await stillFallen(benchmark, options, results)))
      if (options.svg !== undefined) {
        mkdirSync(options.svg, { recursive: true })
        writeFileSync(join(options.svg, `${name}.svg`), `${chart(benchmark, results)}\n`)
      }
    } catch (cause) {
      note("")
      failures.push(`${name}: ${cause instanceof Error ? cause.message : cause}`)
    }
  }
  if (options.record) floors.record(all)
  if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(all, null, 2)}\n`)
  for (const failure of failures) console.error(failure)
  return failures.length === 0
}

try {
  process.exitCode = (await run(parse(process.argv.slice(2)))) ? 0 : 1
} catch (cause) {
  console.error(cause instanceof Error ? cause.message : cause)
  console.error(usage)
  process.exitCode = 2
}
