/** The processes of the cluster, and where they can listen. */
import { type ChildProcess, fork } from "node:child_process"
import { createServer } from "node:net"
import { fileURLToPath } from "node:url"
import { Effect, type Scope } from "effect"
import { host, type Place } from "./ledger.js"

/** What a runner tells of a connection that it refused, or that was refused to it. */
export interface Refusal {
  /** The runner that tells it. */
  readonly by: number
  readonly reason: string
  readonly address: string
}

const isFree = (port: number): Effect.Effect<boolean> =>
  Effect.async((resume) => {
    const server = createServer()
    server.once("error", () => resume(Effect.succeed(false)))
    server.listen(port, host, () => server.close(() => resume(Effect.succeed(true))))
  })

/** Ports that nobody listens on, below those that the system gives to outgoing connections. */
export const freePorts = (count: number): Effect.Effect<ReadonlyArray<number>> =>
  Effect.gen(function* () {
    const found: Array<number> = []
    for (let port = 10_000 + ((process.pid * 41) % 10_000); found.length < count; port++) {
      if (yield* isFree(port)) found.push(port)
    }
    return found
  })

/** Done when a process has ended, with its exit code; `null` where a signal has ended it. */
export const ended = (child: ChildProcess): Effect.Effect<number | null> =>
  Effect.async((resume) => {
    const done = () => resume(Effect.succeed(child.exitCode))
    if (child.exitCode !== null || child.signalCode !== null) return done()
    child.once("exit", done)
  })

/** Never done; fails with what a process has written where it ends by itself. */
export const goesOn = ({ child, output }: RunnerProcess): Effect.Effect<never, Error> =>
  Effect.flatMap(ended(child), () => Effect.fail(new Error(`a runner has ended:\n${output()}`)))

export interface RunnerProcess {
  readonly child: ChildProcess
  /** What it has written. */
  readonly output: () => string
}

/** Starts a runner, which ends with the scope, and keeps what it writes on standard output. */
export const startRunner = (
  place: Place,
  number: number,
  endpoint: string,
  options: { readonly lies?: boolean; readonly onRefusal?: (refusal: Refusal) => void } = {}
): Effect.Effect<RunnerProcess, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const args = [place.folder, place.ports.join(), String(number), endpoint, ...(options.lies ? ["--lie"] : [])]
      const child = fork(fileURLToPath(new URL("./runner.ts", import.meta.url)), args, {
        execArgv: process.execArgv,
        stdio: ["ignore", "pipe", "pipe", "ipc"]
      })
      let output = ""
      for (const stream of [child.stdout, child.stderr]) {
        stream?.setEncoding("utf8").on("data", (text: string) => {
          output += text
        })
      }
      child.on("message", (message: Omit<Refusal, "by">) => options.onRefusal?.({ by: number, ...message }))
      return { child, output: () => output }
    }),
    ({ child }) =>
      Effect.zipRight(
        Effect.sync(() => child.kill("SIGTERM")),
        ended(child)
      )
  )
