/** The tools of the machine, and the peers built with them in a temporary folder. */
import { cp, mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { Effect } from "effect"
import { ChildError, type Program, run } from "./child.js"

const sources = fileURLToPath(new URL("..", import.meta.url))

/** A folder outside of the tree that is gone when the scope closes. */
export const temporaryFolder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "agentweave-interop-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
)

const succeed = (program: Program, cwd: string, env?: Readonly<Record<string, string>>) =>
  Effect.flatMap(run(program, { cwd, env, timeout: 600_000 }), ({ code, output }) =>
    code === 0
      ? Effect.void
      : new ChildError({ message: `${program.command} ${program.args.join(" ")}: ${output.slice(-500)}` })
  )

/** A tool that is there, or the reason why what needs it is left out. */
export type Tool<A> = { readonly _tag: "There"; readonly value: A } | { readonly _tag: "Missing"; readonly why: string }

const there = <A>(value: A): Tool<A> => ({ _tag: "There", value })
const missing = (why: string): Tool<never> => ({ _tag: "Missing", why })

const orMissing = <A>(effect: Effect.Effect<A, ChildError>): Effect.Effect<Tool<A>> =>
  Effect.match(effect, { onFailure: ({ message }) => missing(message), onSuccess: there })

/** Whether a command is there. */
export const command = (name: string, versionFlag: string): Effect.Effect<Tool<string>> =>
  orMissing(Effect.as(run({ command: name, args: [versionFlag] }), name))

/** A peer of this run: the same verbs and flags, whatever it is written in. */
export type Peer = (verb: "sources" | "serve" | "get" | "verify", flags: Readonly<Record<string, string>>) => Program

const flagsOf = (flags: Readonly<Record<string, string>>): ReadonlyArray<string> =>
  Object.entries(flags).flatMap(([name, value]) => (value === "" ? [`--${name}`] : [`--${name}`, value]))

export const goPeer = (folder: string): Effect.Effect<Tool<Peer>> =>
  orMissing(
    Effect.gen(function* () {
      const work = join(folder, "go")
      const binary = join(folder, "go-peer")
      yield* run({ command: "go", args: ["version"] })
      yield* Effect.promise(() => cp(join(sources, "go"), work, { recursive: true }))
      yield* succeed({ command: "go", args: ["build", "-o", binary, "."] }, work, { GOFLAGS: "-mod=readonly" })
      return (verb, flags) => ({ command: binary, args: [...flagsOf(flags), verb] })
    })
  )

export const pythonPeer = (folder: string): Effect.Effect<Tool<Peer>> =>
  orMissing(
    Effect.gen(function* () {
      const work = join(folder, "python")
      const venv = join(folder, "venv")
      const python = join(venv, "bin", "python")
      yield* Effect.promise(() => cp(join(sources, "python"), work, { recursive: true }))
      yield* succeed({ command: "python3", args: ["-m", "venv", venv] }, work)
      const install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"]
      yield* succeed({ command: python, args: install }, work)
      return (verb, flags) => ({ command: python, args: [join(work, "peer.py"), verb, ...flagsOf(flags)] })
    })
  )
