/** The command, run in this process, and all that it prints. */
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Agentweave from "@agentweave/cli/Agentweave"
import { X509Bundle, X509Svid } from "@agentweave/spiffe"
import type { DevAuthority } from "@agentweave/testkit"
import { NodeContext } from "@effect/platform-node"
import { type Console, Effect, Fiber, Queue, Redacted } from "effect"

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

/** A command that goes on: the lines that it prints, and its exit code when it has ended. */
export interface Started {
  readonly lines: Queue.Dequeue<string>
  readonly exitCode: Effect.Effect<number>
}

/** Starts a command; it ends with the scope at the latest. */
export const launch = (args: ReadonlyArray<string>, terminal?: Agentweave.Terminal) =>
  Effect.gen(function* () {
    const lines = yield* Queue.unbounded<string>()
    const console = yield* recording((_, text) => Queue.offer(lines, text))
    const fiber = yield* Agentweave.run(args, terminal).pipe(
      Effect.withConsole(console),
      Effect.provide(NodeContext.layer),
      Effect.forkScoped
    )
    return { lines, exitCode: Fiber.join(fiber) } satisfies Started
  })

/** Starts a command that does not end by itself; it ends with the scope. Gives the lines that it prints. */
export const start = (args: ReadonlyArray<string>) => Effect.map(launch(args), ({ lines }) => lines)

export const directory = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "agentweave-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
)

/** An SVID of the authority in files, as the options that name them. */
export const identityFiles = (authority: DevAuthority.DevAuthority, name: string) =>
  Effect.gen(function* () {
    const folder = yield* directory
    const svid = yield* authority.issue({ path: `/${name}` })
    const write = (file: string, text: string) =>
      Effect.promise(async () => {
        await writeFile(join(folder, file), text, { mode: 0o600 })
        return join(folder, file)
      })
    return [
      ...["--cert", yield* write("svid.pem", X509Svid.certificatesPem(svid))],
      ...["--key", yield* write("key.pem", Redacted.value(X509Svid.privateKeyPem(svid)))],
      ...["--bundle", yield* write("bundle.pem", X509Bundle.toPem(authority.bundle))]
    ]
  })
