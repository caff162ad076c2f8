/** Programs of this package in processes of their own, for the tests in this folder. */
import { mkdtemp, rm } from "node:fs/promises"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { Command } from "@effect/platform"
import { Deferred, Effect, Stream } from "effect"

const loader = createRequire(import.meta.url).resolve("tsx")

/** The command of a program in `src`. */
export const example = (path: string) => [fileURLToPath(new URL(`../../src/${path}.ts`, import.meta.url))]

/** A development agent with a socket for each workload, `api.sock` for `/api`. */
export const agent = (...workloads: ReadonlyArray<string>) => [
  fileURLToPath(new URL("../../../cli/src/main.ts", import.meta.url)),
  ...["dev-agent", "--trust-domain", "example.org"],
  ...workloads.flatMap((name) => ["--socket", `${name}.sock`, "--workload", `/${name}`])
]

/** What tells a program in this folder that it is the workload of that name. */
export const asWorkload = (folder: string, name: string) => ({
  SPIFFE_ENDPOINT_SOCKET: `unix://${join(folder, `${name}.sock`)}`
})

export const directory = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "example-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
)

/** A program in a process of its own, which ends with the scope, and all that it prints. */
export const run = (program: ReadonlyArray<string>, folder: string, env: Readonly<Record<string, string>> = {}) =>
  Effect.gen(function* () {
    const process_ = yield* Command.make(
      process.execPath,
      "--conditions=@agentweave/source",
      "--import",
      loader,
      ...program
    ).pipe(Command.workingDirectory(folder), Command.env(env), Command.start)
    const output = Stream.merge(process_.stdout, process_.stderr).pipe(Stream.decodeText(), Stream.splitLines)
    return { output, process: process_ }
  })

/** Starts a program that goes on. `said` waits until it has said a sentence. */
export const start = (program: ReadonlyArray<string>, folder: string, env: Readonly<Record<string, string>> = {}) =>
  Effect.gen(function* () {
    const { output, process } = yield* run(program, folder, env)
    const lines: Array<string> = []
    let over = false
    const ended = Effect.suspend(() => Effect.fail(`${program.join(" ")} has ended:\n${lines.join("\n")}`))
    const waiting = new Set<{ readonly sentence: RegExp; readonly said: Deferred.Deferred<string, string> }>()
    yield* output.pipe(
      Stream.runForEach((line) =>
        Effect.sync(() => {
          lines.push(line)
          for (const { said, sentence } of waiting) {
            if (sentence.test(line)) Deferred.unsafeDone(said, Effect.succeed(line))
          }
        })
      ),
      Effect.zipRight(
        Effect.sync(() => {
          over = true
          for (const { said } of waiting) Deferred.unsafeDone(said, ended)
        })
      ),
      Effect.forkScoped
    )
    const said = (sentence: RegExp) =>
      Effect.gen(function* () {
        const line = lines.find((line) => sentence.test(line))
        if (line !== undefined) return line
        if (over) return yield* ended
        const said = yield* Deferred.make<string, string>()
        waiting.add({ sentence, said })
        return yield* Deferred.await(said)
      })
    return { said, process }
  })

/** Runs a program to its end. */
export const ended = (program: ReadonlyArray<string>, folder: string, env: Readonly<Record<string, string>>) =>
  Effect.gen(function* () {
    const { output, process } = yield* run(program, folder, env)
    return { output: Array.from(yield* Stream.runCollect(output)).join("\n"), exitCode: yield* process.exitCode }
  })
