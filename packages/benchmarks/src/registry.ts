import type { Benchmark } from "./harness/Benchmark.js"

/** Every benchmark there is, in the order in which all of them are run. Loaded only when asked for. */
const benchmarks: Readonly<Record<string, () => Promise<Benchmark>>> = {
  request: async () => (await import("./benchmarks/request.js")).request,
  breaker: async () => (await import("./benchmarks/breaker.js")).breaker,
  retry: async () => (await import("./benchmarks/retry.js")).retry,
  pool: async () => (await import("./benchmarks/pool.js")).pool,
  handshake: async () => (await import("./benchmarks/handshake.js")).handshake
}

export const names: ReadonlyArray<string> = Object.keys(benchmarks)

export const load = (name: string): Promise<Benchmark> => {
  const found = benchmarks[name]
  if (found === undefined) throw new Error(`expected one of ${names.join(", ")}, got "${name}"`)
  return found()
}
