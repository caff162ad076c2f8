/** The command, run in this process, and all that it prints. */
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Agentweave from "@agentweave/cli/Agentweave"
import { NodeContext } from "@effect/platform-node"
import { type Console, Effect, Queue } from "effect"

export interface Ran {
  readonly exitCode: number
  /** What it printed. */
  readonly out: string
  /** What it printed beside it. */
  readonly err: string
}

/** A console that hands each line on. */
const recording = (line: (where: "out" | "err", text: string) => Effect.Effect<unknown>) =>
  Effect.map(
    Effect.console,
    (console): Console.Console => ({
      ...console,
      log: (...parts) => Effect.asVoid(line("out", parts.join(" "))),
      error: (...parts) => Effect.asVoid(line("err", parts.join(" ")))
    })
  )

/** Runs the command to its end. */
export const run = (args: ReadonlyArray<string>, terminal?: Agentweave.Terminal): Effect.Effect<Ran> =>
  Effect.gen(function* () {
    const lines = { out: [] as string[], err: [] as string[] }
    const console = yield* recording((where, text) => Effect.sync(() => lines[where].push(text)))
    const exitCode = yield* Agentweave.run(args, terminal).pipe(
      Effect.withConsole(console),
      Effect.provide(NodeContext.layer)
    )
    return { exitCode, out: lines.out.join("\n"), err: lines.err.join("\n") }
  })

/** Starts a command that does not end by itself; it ends with the scope. Gives the lines that it prints. */
export const start = (args: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const lines = yield* Queue.unbounded<string>()
    const console = yield* recording((_, text) => Queue.offer(lines, text))
    yield* Effect.forkScoped(Agentweave.run(args).pipe(Effect.withConsole(console), Effect.provide(NodeContext.layer)))
    return lines
  })

export const directory = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "agentweave-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
)
