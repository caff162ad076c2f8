import { parseArgs } from "node:util"

export interface Options {
  readonly names: ReadonlyArray<string>
  /** Only rows whose contender holds this text. */
  readonly only: string | undefined
  readonly rounds: number
  /** Processes a row is measured in. */
  readonly processes: number
  /** Scales the length of samples and of the warm-up. */
  readonly scale: number
  readonly json: string | undefined
  readonly svg: string | undefined
  readonly check: boolean
  readonly record: boolean
  readonly list: boolean
}

export const usage = `usage: npm run bench -- [NAME...] [options]

  --json FILE      write the rows as JSON
  --svg DIR        write one chart a benchmark
  --check          compare with the recorded floors; a row that misses is measured again, in three processes, and fails
                   if it misses then too
  --record         record the ratios measured as the new floors of the rows that have one
  --only TEXT      only contenders whose name holds TEXT
  --rounds N       rounds a row (default 15, at least 5)
  --processes N    processes a row is measured in, one after another (default 1)
  --scale X        makes every sample and warm-up X times as long
  --quick          five short rounds: a first look, not a result
  --list           names of benchmarks and rows`

const number = (value: string | undefined, fallback: number, least: number): number => {
  if (value === undefined) return fallback
  const parsed = Number(value)
  if (!(parsed >= least)) throw new Error(`expected a number of at least ${least}, got ${value}`)
  return parsed
}

export const parse = (args: ReadonlyArray<string>): Options => {
  const { positionals, values } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      json: { type: "string" },
      svg: { type: "string" },
      only: { type: "string" },
      rounds: { type: "string" },
      processes: { type: "string" },
      scale: { type: "string" },
      check: { type: "boolean", default: false },
      record: { type: "boolean", default: false },
      quick: { type: "boolean", default: false },
      list: { type: "boolean", default: false }
    }
  })
  return {
    names: positionals,
    only: values.only,
    rounds: Math.ceil(number(values.rounds, values.quick ? 5 : 15, 5)),
    processes: Math.ceil(number(values.processes, 1, 1)),
    scale: number(values.scale, values.quick ? 0.4 : 1, 0.05),
    json: values.json,
    svg: values.svg,
    check: values.check,
    record: values.record,
    list: values.list
  }
}
