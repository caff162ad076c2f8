import type { Benchmark } from "./harness/Benchmark.js"

/** Every benchmark there is, in the order in which all of them are run. Loaded only when asked for. */
const benchmarks: Readonly<Record<string, () => Promise<Benchmark>>> = {
  request: async () => (await import("./benchmarks/request.js")).request,
  stream: async () => (await import("./benchmarks/stream.js")).stream,
  "stream-memory": async () => (await import("./benchmarks/stream.js")).streamMemory,
  handshake: async () => (await import("./benchmarks/handshake.js")).handshake,
  server: async () => (await import("./benchmarks/server.js")).server,
  rpc: async () => (await import("./benchmarks/rpc.js")).rpc,
  breaker: async () => (await import("./benchmarks/breaker.js")).breaker,
  retry: async () => (await import("./benchmarks/retry.js")).retry,
  pool: async () => (await import("./benchmarks/pool.js")).pool,
  rotation: async () => (await import("./benchmarks/rotation.js")).rotation,
  audit: async () => (await import("./benchmarks/audit.js")).audit,
  inspector: async () => (await import("./benchmarks/inspector.js")).inspector,
  record: async () => (await import("./benchmarks/record.js")).record,
  memory: async () => (await import("./benchmarks/memory.js")).memory,
  scale: async () => (await import("./benchmarks/scale.js")).scale
}

export const names: ReadonlyArray<string> = Object.keys(benchmarks)

export const load = (name: string): Promise<Benchmark> => {
  const found = benchmarks[name]
  if (found === undefined) throw new Error(`expected one of ${names.join(", ")}, got "${name}"`)
  return found()
}
