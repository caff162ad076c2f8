/**
 * The command `agentweave` and its subcommands.
 *
 * @since 0.1.0
 */
import { fileURLToPath } from "node:url"
import { stripVTControlCharacters } from "node:util"
import { CliConfig, Command, HelpDoc, ValidationError } from "@effect/cli"
import { FileSystem } from "@effect/platform"
import type { NodeContext } from "@effect/platform-node"
import { Cause, Console, Effect, Logger, LogLevel, Ref } from "effect"
import { commandPath, isCommand, optionsFirst } from "./internal/argumentOrder.js"
import { agentweave, summaries } from "./internal/commands.js"
import { Output, printError } from "./internal/report.js"
import { UsageError } from "./UsageError.js"

/**
 * How the command may show what it says.
 *
 * @since 0.1.0
 * @category models
 */
export interface Terminal {
  /** Whether the output may have colours: it goes to a terminal, and `NO_COLOR` is not set. Default `false`. */
  readonly hasColours?: boolean | undefined
  /** Whether a person looks on, who is told what takes long. Default `false`. */
  readonly isWatched?: boolean | undefined
  /** The height of the terminal that the output goes to, in lines, so that it can be drawn over. Default: it is no terminal. */
  readonly rows?: (() => number | undefined) | undefined
}

const version = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const manifest = yield* fs.readFileString(fileURLToPath(new URL("../package.json", import.meta.url)))
  return String(JSON.parse(manifest).version)
})

/** The output of the parser: its errors are printed once, by us, and colours are for terminals. */
const parserConsole = (console: Console.Console, hasColours: boolean, path: string): Console.Console => ({
  ...console,
  error: () => Effect.void,
  log: (...parts) =>
    console.log(
      ...parts.map((part) => {
        // The parser names a subcommand without the command it belongs to.
        const text = String(part)
          .trimEnd()
          .replace(`$ ${path.split(" ").at(-1)}`, () => `$ agentweave ${path}`)
        return hasColours ? text : stripVTControlCharacters(text)
      })
    )
})

/** The list of commands, where no command was named but at most a group of them. */
const overviewOf = (path: ReadonlyArray<string>, args: ReadonlyArray<string>, version: string): string | undefined => {
  const rest = args.slice(path.length)
  if (isCommand(path) || rest.some((word) => word !== "--help" && word !== "-h")) return undefined
  const prefix = path.map((word) => `${word} `).join("")
  const shown = summaries.filter(([name]) => name.startsWith(prefix))
  return [
    `agentweave ${version}: tools for services with SPIFFE identities`,
    "",
    ...shown.map(([name, summary]) => `  agentweave ${name.padEnd(14)} ${summary}`),
    "",
    "`agentweave COMMAND --help` explains a command and its exit codes. Everywhere: --json (errors too),",
    "--log-level LEVEL, --version, --completions bash|zsh|fish. Colours only on a terminal, and not with NO_COLOR."
  ].join("\n")
}

/** An error of the parser, as wrong use. */
const usageError = (error: ValidationError.ValidationError): UsageError =>
  new UsageError({ message: stripVTControlCharacters(HelpDoc.toAnsiText(error.error)).trim() })

/** Logs go beside the output, and only when `--log-level` asks for them. */
const logs = Effect.provide(Logger.replace(Logger.defaultLogger, Logger.withConsoleError(Logger.logfmtLogger)))

/**
 * Runs the command with arguments as a shell gives them, prints to Effect's `Console`, and gives the exit code. It never
 * fails: an error is printed, as JSON where `--json` asks for it.
 *
 * @since 0.1.0
 * @category programs
 * @example
 * ```ts
 * import { Agentweave } from "@agentweave/cli"
 * import { NodeContext } from "@effect/platform-node"
 * import { Effect } from "effect"
 *
 * const exitCode = Effect.provide(Agentweave.run(["svid", "show", "--json"]), NodeContext.layer)
 * ```
 */
export const run = (
  args: ReadonlyArray<string>,
  { hasColours = false, isWatched = false, rows = () => undefined }: Terminal = {}
): Effect.Effect<number, never, NodeContext.NodeContext> =>
  Console.consoleWith((console) =>
    Effect.gen(function* () {
      const exitCode = yield* Ref.make(0)
      const output = Output.of({
        print: (line) => console.log(line),
        progress: (line) => (isWatched ? console.error(line) : Effect.void),
        exitCode,
        hasColours,
        rows,
        args: args.slice(1)
      })
      if (args.includes("--wizard")) return yield* new UsageError({ message: "Received unknown argument: '--wizard'" })
      const path = commandPath(args)
      const overview = overviewOf(path, args, yield* version)
      if (overview !== undefined) return yield* Effect.as(console.log(overview), 0)
      const cli = Command.run(agentweave, { name: "agentweave", version: yield* version, executable: "agentweave" })
      yield* cli(["node", "agentweave", ...path, ...optionsFirst(args.slice(path.length))]).pipe(
        Effect.provideService(Output, output),
        Effect.provide(CliConfig.layer({ showBuiltIns: false, showTypes: false })),
        Effect.withConsole(parserConsole(console, hasColours, path.join(" "))),
        Logger.withMinimumLogLevel(LogLevel.None)
      )
      return yield* Ref.get(exitCode)
    }).pipe(
      logs,
      Effect.catchAllCause((cause) => {
        if (Cause.isInterruptedOnly(cause)) return Effect.interrupt
        const error = Cause.squash(cause)
        return Effect.as(
          printError(ValidationError.isValidationError(error) ? usageError(error) : error, args.includes("--json")),
          2
        )
      })
    )
  )
