/** What a benchmark is: subjects to run, and rows that say which is measured against which. */
import type { Credentials } from "./credentials.js"

/** What a number means, and which way is better. */
export interface Unit {
  readonly name: string
  readonly better: "higher" | "lower"
}

export const perSecond = (what: string): Unit => ({ name: `${what}/s`, better: "higher" })
export const nanoseconds: Unit = { name: "ns", better: "lower" }

/** What a subject or server is given when it starts. */
export interface Environment {
  readonly credentials: Credentials
  /** Ports of the servers that the pair at hand asked for, by the server's name. */
  readonly ports: Readonly<Record<string, number>>
}

/** Something that runs in a worker process and can be timed. */
export interface Subject {
  /** The server it talks to, started in a process of its own. */
  readonly server?: string
  readonly start: (environment: Environment) => Promise<Running>
}

export interface Running {
  /** Runs operations for about so many milliseconds (at least one) and answers how many. */
  readonly sample?: (millis: number) => Promise<number>
  /** For what is not timed (memory): the figure itself, in the benchmark's unit. */
  readonly measure?: () => Promise<number>
  /** What one operation gave. A pair whose two sides differ in it is not a comparison, and fails. */
  readonly check: () => Promise<unknown>
  readonly stop: () => Promise<void>
}

export interface ServerSubject {
  readonly start: (environment: Omit<Environment, "ports">) => Promise<{ readonly port: number }>
}

export interface Row {
  /** Names of subjects. */
  readonly contender: string
  readonly baseline: string
  /** The ratio to reach: at least it where higher is better, at most it where lower is. */
  readonly target?: number
  /** What the target is about. Default the ratio; else the contender's own value, in the benchmark's unit. */
  readonly targetOf?: "ratio" | "value"
  /** Rows of one group run one after another in one process. Default: a process for each row. */
  readonly group?: string
}

export interface Benchmark {
  readonly name: string
  readonly title: string
  readonly unit: Unit
  readonly subjects: Readonly<Record<string, Subject>>
  readonly servers?: Readonly<Record<string, ServerSubject>>
  readonly rows: ReadonlyArray<Row>
  /** Workload certificates to issue up front, all of one SPIFFE ID. Default 1. */
  readonly leaves?: number
  /** Certificates of different workloads to issue up front. Default none. */
  readonly peers?: number
  /** Whose CPU time is counted: the process that asks (default), the one that answers, or both together. */
  readonly cpuOf?: "load" | "server" | "both"
  /** Measure peak memory: each side once more, alone in a process. */
  readonly memory?: boolean
  /** Every sample in a process of its own, and not in rounds of one. */
  readonly isolated?: boolean
  /** Length of one side of one round, milliseconds. Default 80. */
  readonly millis?: number
  /** Operations each side does before it is timed: what V8 needs to settle on the code. Default 5,000. */
  readonly warmUp?: number
}
