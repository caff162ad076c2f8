import { Readable } from "node:stream"
import { HttpBody, HttpClientRequest, type HttpClientResponse } from "@effect/platform"
import { Chunk, Effect, Exit, Option, Runtime, Scope, Stream } from "effect"
import type { Pool } from "undici"
import * as clients from "../clients/effects.js"
import { undiciPool } from "../clients/promises.js"
import type { Benchmark, Row, Running, Subject, Unit } from "../harness/Benchmark.js"
import { plainServer } from "../servers/plain.js"

const server = "node:https"

const mebibytes: Unit = { name: "MiB/s", better: "higher" }

/** Transfers at the same time: a small one does not fill a connection. */
const inFlight = (size: number): number => (size === 1 ? 4 : 1)

const slice = Buffer.alloc(64 * 1024, "abcdefghijklmnopqrstuvwxyz")
const slices = (size: number): number => (size * 1024 * 1024) / slice.length

/** Transfers of `size` MiB by turns until the time is up; answers how many MiB. */
const transfers = (size: number, one: () => Promise<unknown>): Pick<Running, "sample" | "check"> => ({
  sample: async (millis) => {
    const end = performance.now() + millis
    let done = 0
    const loop = async () => {
      do {
        await one()
        done += size
      } while (performance.now() < end)
    }
    await Promise.all(Array.from({ length: inFlight(size) }, loop))
    return done
  },
  check: one
})

const bare =
  (transfer: (pool: Pool, size: number) => Promise<unknown>) =>
  (size: number): Subject => ({
    server,
    start: async (environment) => {
      const pool = undiciPool(environment, server)
      return { ...transfers(size, () => transfer(pool, size)), stop: () => pool.destroy() }
    }
  })

const bareDownload = bare(async (pool, size) => {
  const { body } = await pool.request({ method: "GET", path: `/bytes/${size}` })
  let total = 0
  for await (const chunk of body) total += (chunk as Buffer).length
  return total
})

const bareWhole = bare(async (pool, size) => {
  const { body } = await pool.request({ method: "GET", path: `/bytes/${size}` })
  return (await body.arrayBuffer()).byteLength
})

const bareUpload = bare(async (pool, size) => {
  let left = slices(size)
  const body = new Readable({
    read() {
      this.push(left-- > 0 ? slice : null)
    }
  })
  const response = await pool.request({ method: "POST", path: "/bytes", body })
  return ((await response.body.json()) as { readonly size: number }).size
})

type Transfer = (client: clients.Opened, size: number) => Effect.Effect<unknown, unknown>

const download: Transfer = ({ base, execute }, size) =>
  Effect.flatMap(
    execute(HttpClientRequest.get(`${base}/bytes/${size}`)),
    (response: HttpClientResponse.HttpClientResponse) =>
      Stream.runFold(response.stream, 0, (total, chunk) => total + chunk.length)
  )

const whole: Transfer = ({ base, execute }, size) =>
  Effect.flatMap(execute(HttpClientRequest.get(`${base}/bytes/${size}`)), (response) =>
    Effect.map(response.arrayBuffer, (buffer) => buffer.byteLength)
  )

/** One chunk a pull, as a file or another response gives them. */
const source = (size: number): Stream.Stream<Uint8Array> =>
  Stream.unfoldChunk(slices(size), (left) =>
    left === 0 ? Option.none() : Option.some([Chunk.of<Uint8Array>(slice), left - 1])
  )

const upload: Transfer = ({ base, execute }, size) =>
  Effect.flatMap(
    execute(HttpClientRequest.setBody(HttpClientRequest.post(`${base}/bytes`), HttpBody.stream(source(size)))),
    (response) => Effect.map(response.json, (body) => (body as { readonly size: number }).size)
  )

const effects = (open: clients.Open, transfer: Transfer, size: number): Subject => ({
  server,
  start: async (environment) => {
    const scope = Effect.runSync(Scope.make())
    const client = await Effect.runPromise(Scope.extend(open(environment, server), scope))
    const runPromise = Runtime.runPromise(Runtime.defaultRuntime)
    return {
      ...transfers(size, () => runPromise(transfer(client, size))),
      stop: () => Effect.runPromise(Scope.close(scope, Exit.void))
    }
  }
})

/**
 * The targets of small bodies are lower: a run of a `Stream` costs as much as 150 KiB and more of a body, even where all of it
 * is ready.
 */
const kinds = [
  { name: "download", size: 1, target: 0.7, bare: bareDownload, transfer: download },
  { name: "arrayBuffer", size: 1, target: 0.7, bare: bareWhole, transfer: whole },
  { name: "upload", size: 1, target: 0.8, bare: bareUpload, transfer: upload },
  { name: "download", size: 100, target: 0.85, bare: bareDownload, transfer: download },
  { name: "upload", size: 100, target: 0.85, bare: bareUpload, transfer: upload }
]

const cases = kinds.map(({ bare, name, size, target, transfer }) => ({
  name: `${name} of ${size} MiB`,
  size,
  target,
  subjects: {
    undici: bare(size),
    SecureChannel: effects(clients.secureChannel(), transfer, size),
    "Effect NodeHttpClient.layerUndici": effects(clients.undici, transfer, size)
  }
}))

const named = (subject: string, at: string): string => `${subject}, ${at}`

const shared = {
  servers: { [server]: plainServer },
  subjects: Object.fromEntries(
    cases.flatMap(({ name, subjects }) =>
      Object.entries(subjects).map(([subject, it]) => [named(subject, name), it] as const)
    )
  )
}

export const stream: Benchmark = {
  ...shared,
  name: "stream",
  title: "bodies as Effect streams, both ways, and as one buffer",
  unit: mebibytes,
  millis: 300,
  // MiB: after fewer, the compiler still works on the steps of a Stream, at twice their time.
  warmUp: 2_500,
  rows: cases.flatMap(({ name, target }): ReadonlyArray<Row> => {
    const baseline = named("undici", name)
    return [
      { contender: baseline, baseline },
      { contender: named("SecureChannel", name), baseline, target },
      { contender: named("Effect NodeHttpClient.layerUndici", name), baseline }
    ]
  })
}

/** The same transfers, each alone in a process: what they take at the most. */
const peaks = (subject: Subject): Subject => ({
  ...subject,
  start: async (environment) => {
    const running = await subject.start(environment)
    return {
      check: running.check,
      stop: running.stop,
      measure: async () => {
        await running.sample?.(1500)
        return process.resourceUsage().maxRSS / 1024
      }
    }
  }
})

export const streamMemory: Benchmark = {
  ...shared,
  name: "stream-memory",
  title: "peak memory of a process that transfers 100 MiB bodies",
  unit: { name: "MiB", better: "lower" },
  isolated: true,
  subjects: Object.fromEntries(Object.entries(shared.subjects).map(([name, subject]) => [name, peaks(subject)])),
  rows: cases
    .filter(({ size }) => size === 100)
    .map(({ name }) => ({
      contender: named("SecureChannel", name),
      baseline: named("Effect NodeHttpClient.layerUndici", name),
      target: 1.1
    }))
}
