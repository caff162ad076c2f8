/** Programs of the examples, each in a process of its own. */
import { createRequire } from "node:module"
import { fileURLToPath } from "node:url"
import { Command } from "@effect/platform"
import { Deferred, Effect, Stream } from "effect"

const loader = createRequire(import.meta.url).resolve("tsx")

/** A program of `src`. */
export const example = (name: string) => [fileURLToPath(new URL(`../../src/${name}.ts`, import.meta.url))]

/** A program of the guide in a process of its own, which ends with the scope, and all that it prints. */
const run = (program: ReadonlyArray<string>, folder: string, env: Readonly<Record<string, string>> = {}) =>
  Effect.gen(function* () {
    const process_ = yield* Command.make(
      process.execPath,
      "--conditions=@agentweave/source",
      "--import",
      loader,
      ...program
    ).pipe(Command.workingDirectory(folder), Command.env(env), Command.start)
    const output = Stream.merge(process_.stdout, process_.stderr).pipe(Stream.decodeText(), Stream.splitLines)
    return { output, exitCode: process_.exitCode }
  })

/** Starts a program that goes on, and waits until it has said a sentence. */
export const started = (
  program: ReadonlyArray<string>,
  sentence: RegExp,
  folder: string,
  env: Readonly<Record<string, string>> = {}
) =>
  Effect.gen(function* () {
    const { output } = yield* run(program, folder, env)
    const said = yield* Deferred.make<string, string>()
    const lines: Array<string> = []
    yield* output.pipe(
      Stream.runForEach((line) => {
        lines.push(line)
        return sentence.test(line) ? Deferred.succeed(said, line) : Effect.void
      }),
      Effect.zipRight(
        Effect.suspend(() => Deferred.fail(said, `${program.join(" ")} has ended:\n${lines.join("\n")}`))
      ),
      Effect.forkScoped
    )
    return yield* Deferred.await(said)
  })

/** Runs a program to its end. */
export const ended = (program: ReadonlyArray<string>, folder: string, env: Readonly<Record<string, string>>) =>
  Effect.gen(function* () {
    const { exitCode, output } = yield* run(program, folder, env)
    return { output: Array.from(yield* Stream.runCollect(output)).join("\n"), exitCode: yield* exitCode }
  })
