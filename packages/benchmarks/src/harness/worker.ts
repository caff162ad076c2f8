/** The process that hosts servers or subjects. It does as the parent says, and ends with it. */
import { load } from "../registry.js"
import type { Benchmark, Running } from "./Benchmark.js"
import type { Credentials } from "./credentials.js"

export interface Sample {
  readonly operations: number
  readonly wallMicros: number
  readonly cpuMicros: number
}

export interface Usage {
  readonly cpuMicros: number
  readonly peakRssMiB: number
}

/** What a parent can ask of a worker. */
export interface Calls {
  readonly serve: (benchmark: string, server: string, credentials: Credentials) => Promise<number>
  readonly start: (
    benchmark: string,
    subject: string,
    credentials: Credentials,
    ports: Readonly<Record<string, number>>
  ) => Promise<number>
  readonly sample: (running: number, millis: number) => Promise<Sample>
  readonly measure: (running: number) => Promise<number>
  readonly check: (running: number) => Promise<string>
  readonly stop: (running: number) => Promise<void>
  readonly usage: () => Promise<Usage>
}

export interface Request {
  readonly id: number
  readonly call: keyof Calls
  readonly args: ReadonlyArray<unknown>
}

export type Reply = { readonly id: number; readonly value: unknown } | { readonly id: number; readonly error: string }

const cpuMicros = (): number => {
  const { system, user } = process.cpuUsage()
  return system + user
}

const started: Array<Running> = []

const running = (index: number): Running => {
  const found = started[index]
  if (found === undefined) throw new Error(`no subject ${index} was started`)
  return found
}

const named = <A>(benchmark: Benchmark, kind: string, all: Readonly<Record<string, A>>, name: string): A => {
  const found = all[name]
  if (found === undefined) throw new Error(`${benchmark.name} has no ${kind} "${name}"`)
  return found
}

const calls: Calls = {
  serve: async (name, server, credentials) => {
    const benchmark = await load(name)
    const { port } = await named(benchmark, "server", benchmark.servers ?? {}, server).start({ credentials })
    return port
  },
  start: async (name, subject, credentials, ports) => {
    const benchmark = await load(name)
    started.push(await named(benchmark, "subject", benchmark.subjects, subject).start({ credentials, ports }))
    return started.length - 1
  },
  sample: async (index, millis) => {
    const { sample } = running(index)
    if (sample === undefined) throw new Error("this subject is measured, not timed")
    const cpu = cpuMicros()
    const from = process.hrtime.bigint()
    const operations = await sample(millis)
    return {
      operations,
      wallMicros: Number(process.hrtime.bigint() - from) / 1000,
      cpuMicros: cpuMicros() - cpu
    }
  },
  measure: async (index) => {
    const { measure } = running(index)
    if (measure === undefined) throw new Error("this subject is timed, not measured")
    return measure()
  },
  check: async (index) => JSON.stringify(await running(index).check()),
  stop: (index) => running(index).stop(),
  usage: async () => ({ cpuMicros: cpuMicros(), peakRssMiB: process.resourceUsage().maxRSS / 1024 })
}

const textOf = (cause: unknown): string => (cause instanceof Error ? (cause.stack ?? cause.message) : String(cause))

process.on("message", (message) => {
  const { args, call, id } = message as Request
  const method = calls[call] as (...args: ReadonlyArray<unknown>) => Promise<unknown>
  const reply = (answer: Reply) => process.send?.(answer)
  Promise.resolve()
    .then(() => method(...args))
    .then(
      (value) => reply({ id, value }),
      (cause) => reply({ id, error: textOf(cause) })
    )
})
process.on("disconnect", () => process.exit(0))
