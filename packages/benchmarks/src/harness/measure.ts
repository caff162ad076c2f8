/** Runs the rows of a benchmark, each pair in processes of its own, and reduces the rounds to one line a row. */

import { make as makeCredentials } from "./authority.js"
import type { Benchmark, Row } from "./Benchmark.js"
import type { Credentials } from "./credentials.js"
import type { Options } from "./options.js"
import { Worker } from "./process.js"
import { median, shuffled, spread } from "./statistics.js"

/** One line of the table, and one element of the JSON. */
export interface Result {
  readonly benchmark: string
  readonly contender: string
  readonly baseline: string
  /** This contender's value over the baseline's: the median of the rounds' ratios. */
  readonly ratio: number
  /** The lowest and the highest ratio of a round. */
  readonly spread: readonly [low: number, high: number]
  readonly unit: string
  /** The contender's own value, median of the rounds. It depends on the machine; the ratio is the result. */
  readonly value: number
  /** CPU time an operation, microseconds, and its ratio to the baseline's: what the machine's other load spoils least. */
  readonly cpuMicros?: number
  readonly cpuRatio?: number
  readonly peakRssMiB?: number
  readonly target?: number
  readonly met?: boolean
}

/** One side of one round. */
interface Side {
  readonly value: number
  readonly cpuMicros?: number
}

interface Round {
  readonly contender: Side
  readonly baseline: Side
}

/** Milliseconds, at scale 1. */
const longestWarmUp = 8_000

class Measurement {
  readonly rounds = new Map<Row, Array<Round>>()
  readonly peaks = new Map<string, number>()
  private readonly benchmark: Benchmark
  private readonly options: Options
  private readonly credentials: Credentials
  private readonly progress: (text: string) => void

  constructor(benchmark: Benchmark, options: Options, credentials: Credentials, progress: (text: string) => void) {
    this.benchmark = benchmark
    this.options = options
    this.credentials = credentials
    this.progress = progress
  }

  private keep(row: Row, round: Round): void {
    const rounds = this.rounds.get(row) ?? []
    rounds.push(round)
    this.rounds.set(row, rounds)
  }

  /** By turns, until each has done enough, or has had enough time. */
  private async warmUp(load: Worker, subjects: ReadonlyArray<number>): Promise<void> {
    const { scale } = this.options
    const needed = (this.benchmark.warmUp ?? 5_000) * scale
    const done = subjects.map(() => 0)
    const until = performance.now() + longestWarmUp * scale
    while (performance.now() < until && done.some((operations) => operations < needed)) {
      for (const [i, subject] of subjects.entries()) {
        const { operations } = await load.call("sample", subject, 100)
        done[i] = (done[i] ?? 0) + operations
      }
    }
  }

  private subject(name: string) {
    const subject = this.benchmark.subjects[name]
    if (subject === undefined) throw new Error(`${this.benchmark.name} has no subject "${name}"`)
    return subject
  }

  /** Starts a worker for subjects and one for each server they talk to; ends them all when `use` is over. */
  private async withWorkers<A>(
    subjects: ReadonlyArray<string>,
    use: (load: Worker, servers: ReadonlyMap<string, Worker>, ports: Readonly<Record<string, number>>) => Promise<A>
  ): Promise<A> {
    const load = new Worker()
    const servers = new Map<string, Worker>()
    try {
      const names = new Set(subjects.flatMap((name) => this.subject(name).server ?? []))
      for (const name of names) servers.set(name, new Worker())
      const ports = Object.fromEntries(
        await Promise.all(
          Array.from(servers, async ([name, worker]) => [
            name,
            await worker.call("serve", this.benchmark.name, name, this.credentials)
          ])
        )
      )
      return await use(load, servers, ports)
    } finally {
      await Promise.all([load, ...servers.values()].map((worker) => worker.end()))
    }
  }

  private async sample(
    load: Worker,
    index: number,
    millis: number,
    server: Worker | undefined
  ): Promise<Side & { readonly operations: number }> {
    const before = await server?.call("usage")
    const sample = await load.call("sample", index, millis)
    const after = await server?.call("usage")
    const served = before === undefined || after === undefined ? 0 : after.cpuMicros - before.cpuMicros
    const cpu = served + (this.benchmark.cpuOf === "server" ? 0 : sample.cpuMicros)
    const { operations, wallMicros } = sample
    return {
      operations,
      value:
        this.benchmark.unit.better === "higher" ? (operations * 1e6) / wallMicros : (wallMicros * 1000) / operations,
      cpuMicros: cpu / operations
    }
  }

  /** The rows of one group, timed in rounds within one process. */
  async timed(group: ReadonlyArray<Row>): Promise<void> {
    const { benchmark, credentials, options } = this
    await this.withWorkers(
      group.flatMap((row) => [row.contender, row.baseline]),
      async (load, servers, ports) => {
        for (const row of shuffled(group)) {
          this.progress(`${row.contender} / ${row.baseline}`)
          const start = (name: string) => load.call("start", benchmark.name, name, credentials, ports)
          const contender = await start(row.contender)
          const baseline = await start(row.baseline)
          const [did, expected] = [await load.call("check", contender), await load.call("check", baseline)]
          if (did !== expected) {
            throw new Error(`${row.contender} did other work than ${row.baseline}: ${did}, expected ${expected}`)
          }
          const counted = (name: string) =>
            (benchmark.cpuOf ?? "load") === "load" ? undefined : servers.get(this.subject(name).server ?? "")
          const millis = (benchmark.millis ?? 80) * options.scale
          const run = {
            contender: () => this.sample(load, contender, millis, counted(row.contender)),
            baseline: () => this.sample(load, baseline, millis, counted(row.baseline))
          }
          await this.warmUp(load, [baseline, contender])
          for (let round = 0; round < options.rounds; round++) {
            // The order alternates, so that a drift of the machine falls on both.
            if (round % 2 === 0) {
              const first = await run.baseline()
              this.keep(row, { baseline: first, contender: await run.contender() })
            } else {
              const first = await run.contender()
              this.keep(row, { contender: first, baseline: await run.baseline() })
            }
          }
          await load.call("stop", contender)
          await load.call("stop", baseline)
        }
      }
    )
  }

  /** One figure of one subject, alone in a process. */
  private alone(name: string): Promise<Side> {
    return this.withWorkers([name], async (load, _servers, ports) => {
      const index = await load.call("start", this.benchmark.name, name, this.credentials, ports)
      await load.call("check", index)
      const value = await load.call("measure", index)
      await load.call("stop", index)
      return { value }
    })
  }

  async isolated(row: Row): Promise<void> {
    for (let round = 0; round < Math.min(this.options.rounds, 3); round++) {
      this.progress(`${row.contender} / ${row.baseline}, round ${round + 1}`)
      const sides = new Map<string, Side>()
      for (const name of shuffled([row.contender, row.baseline])) sides.set(name, await this.alone(name))
      const [contender, baseline] = [sides.get(row.contender), sides.get(row.baseline)]
      if (contender !== undefined && baseline !== undefined) this.keep(row, { contender, baseline })
    }
  }

  /** The peak memory of a subject that has a process to itself. */
  async peak(name: string): Promise<void> {
    if (this.peaks.has(name)) return
    this.progress(`${name}, memory`)
    const peak = await this.withWorkers([name], async (load, _servers, ports) => {
      const index = await load.call("start", this.benchmark.name, name, this.credentials, ports)
      await this.warmUp(load, [index])
      const { peakRssMiB } = await load.call("usage")
      await load.call("stop", index)
      return peakRssMiB
    })
    this.peaks.set(name, peak)
  }

  result(row: Row): Result {
    const { benchmark } = this
    const rounds = this.rounds.get(row) ?? []
    const ratios = rounds.map(({ baseline, contender }) => contender.value / baseline.value)
    const cpu = rounds.flatMap(({ contender }) => contender.cpuMicros ?? [])
    const cpuRatios = rounds.map(({ baseline, contender }) => (contender.cpuMicros ?? 0) / (baseline.cpuMicros ?? 0))
    const ratio = median(ratios)
    const { target } = row
    const peak = this.peaks.get(row.contender)
    const value = median(rounds.map(({ contender }) => contender.value))
    const reached = row.targetOf === "value" ? value : ratio
    return {
      benchmark: benchmark.name,
      contender: row.contender,
      baseline: row.baseline,
      ratio,
      spread: spread(ratios),
      unit: benchmark.unit.name,
      value,
      ...(cpu.length === 0 ? undefined : { cpuMicros: median(cpu), cpuRatio: median(cpuRatios) }),
      ...(peak === undefined ? undefined : { peakRssMiB: peak }),
      ...(target === undefined
        ? undefined
        : { target, met: benchmark.unit.better === "higher" ? reached >= target : reached <= target })
    }
  }
}

const groups = (rows: ReadonlyArray<Row>): ReadonlyArray<ReadonlyArray<Row>> => {
  const grouped = new Map<string, Array<Row>>()
  for (const row of rows) {
    const key = row.group ?? `${row.contender} / ${row.baseline}`
    grouped.set(key, [...(grouped.get(key) ?? []), row])
  }
  return Array.from(grouped.values())
}

/** The rows that are to be run: a baseline against itself always is, for it is the noise floor. */
export const selected = (benchmark: Benchmark, options: Options): ReadonlyArray<Row> =>
  benchmark.rows.filter(
    ({ baseline, contender }) => options.only === undefined || `${contender} / ${baseline}`.includes(options.only)
  )

/** Measures the rows of a benchmark; all that the options select, unless told which. */
export const measure = async (
  benchmark: Benchmark,
  options: Options,
  progress: (text: string) => void,
  rows: ReadonlyArray<Row> = selected(benchmark, options)
): Promise<ReadonlyArray<Result>> => {
  if (rows.length === 0) return []
  const measurement = new Measurement(
    benchmark,
    options,
    await makeCredentials(benchmark.leaves ?? 1, benchmark.peers),
    progress
  )
  for (let turn = 0; turn < options.processes; turn++) {
    for (const group of shuffled(groups(rows))) {
      if (benchmark.isolated === true) for (const row of group) await measurement.isolated(row)
      else await measurement.timed(group)
    }
  }
  if (benchmark.memory === true) {
    for (const row of rows) for (const name of [row.contender, row.baseline]) await measurement.peak(name)
  }
  return rows.map((row) => measurement.result(row))
}
