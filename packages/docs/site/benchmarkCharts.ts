/** The charts of the benchmarks page, from the ratios that `npm run bench -- --record` keeps. */

/** Ratios by benchmark, and by `contender / baseline`. */
export type Recorded = Readonly<Record<string, Readonly<Record<string, number>>>>

export interface Bar {
  readonly contender: string
  readonly baseline: string
  readonly ratio: number
  /** Whether it is the library's own; the others are there to compare with. */
  readonly isOurs: boolean
}

export interface Chart {
  readonly title: string
  readonly better: "more" | "less"
  /** Of the longest bar's place; the baseline is at 1. */
  readonly largest: number
  readonly bars: ReadonlyArray<Bar>
}

interface Definition {
  readonly benchmark: string
  readonly title: string
  readonly better: "more" | "less"
  /** The part of the benchmark's rows that is shown; all of them where it is missing. */
  readonly rows?: RegExp
}

const definitions: ReadonlyArray<Definition> = [
  { benchmark: "request", title: "Requests a second, GET, 10 in flight", better: "more", rows: /GET, 10 / },
  { benchmark: "request", title: "Requests a second, GET, 50 in flight", better: "more", rows: /GET, 50 / },
  { benchmark: "request", title: "Requests a second, POST, 10 in flight", better: "more", rows: /POST, 10 / },
  { benchmark: "request", title: "Requests a second, POST, 50 in flight", better: "more", rows: /POST, 50 / },
  { benchmark: "audit", title: "Requests a second with the audit file", better: "more" },
  { benchmark: "rotation", title: "Requests a second while certificates rotate", better: "more" },
  { benchmark: "server", title: "Requests a second at a server", better: "more" },
  { benchmark: "handshake", title: "Handshakes a second", better: "more" },
  { benchmark: "stream", title: "Bodies, MiB a second", better: "more" },
  { benchmark: "stream-memory", title: "Peak memory while bodies are transferred", better: "less" },
  { benchmark: "breaker", title: "Time of a call through a circuit breaker", better: "less" },
  { benchmark: "retry", title: "Time of a call under a retry policy", better: "less" },
  { benchmark: "pool", title: "Time to lease a connection and give it back", better: "less" },
  { benchmark: "record", title: "Time of a request's audit record", better: "less" },
  { benchmark: "memory", title: "Memory of idle connections and of known peers", better: "less" },
  { benchmark: "scale", title: "Time of a request, many peers by turns", better: "less" }
]

/** Contenders that are no part of the library. */
const others = /^(?:undici|Effect |node |suspend |the events alone)/

const bar = (row: string, ratio: number): Bar => {
  const [contender = "", baseline = ""] = row.split(" / ")
  return { contender, baseline, ratio, isOurs: !others.test(contender) }
}

/** Every recorded ratio is in one chart. */
export const chartsOf = (recorded: Recorded): ReadonlyArray<Chart> =>
  definitions.flatMap(({ benchmark, better, rows, title }) => {
    const bars = Object.entries(recorded[benchmark] ?? {})
      .filter(([row]) => rows === undefined || rows.test(row))
      .map(([row, ratio]) => bar(row, ratio))
    if (bars.length === 0) return []
    return [{ title, better, bars, largest: Math.max(1.1, ...bars.map(({ ratio }) => ratio)) }]
  })
