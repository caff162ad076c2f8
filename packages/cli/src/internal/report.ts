/** How a command answers: for people and for programs, and with which exit code. */
import { Console, Context, Effect, Ref } from "effect"
import { hasProperty } from "effect/Predicate"
import { asciiJson, printable } from "./printable.js"

/** The answer of a command. */
export interface Report {
  /** 0: as it should be. 1: it is not. 2: called wrongly, or what was asked about is not there. */
  readonly exitCode: number
  readonly text: string
  readonly json: unknown
}

/** Where a command answers. */
export class Output extends Context.Tag("@agentweave/cli/Output")<
  Output,
  {
    /** Prints a line. */
    readonly print: (line: string) => Effect.Effect<void>
    /** Says on a terminal what is going on; elsewhere it is silent. */
    readonly progress: (line: string) => Effect.Effect<void>
    readonly exitCode: Ref.Ref<number>
    /** Whether what is printed may have colours. */
    readonly hasColours: boolean
    /** The height of the terminal that is printed to; `undefined` where it is none. */
    readonly rows: () => number | undefined
    /** The arguments of the command, in their order. */
    readonly args: ReadonlyArray<string>
  }
>() {}

/** Prints the answer of a command. */
export const answer = <E, R>(report: Effect.Effect<Report, E, R>, json: boolean): Effect.Effect<void, E, R | Output> =>
  Effect.gen(function* () {
    const { exitCode, print } = yield* Output
    const given = yield* report
    yield* Ref.set(exitCode, given.exitCode)
    yield* print(json ? asciiJson(given.json) : given.text)
  })

/** An error as a program reads it. */
export const errorJson = (error: unknown) => ({
  _tag: hasProperty(error, "_tag") ? String(error._tag) : "Error",
  ...(hasProperty(error, "reason") ? { reason: String(error.reason) } : undefined),
  message: error instanceof Error ? error.message : String(error)
})

/** Prints an error: as JSON where all output is, else for people, beside the output. */
export const printError = (error: unknown, json: boolean): Effect.Effect<void> => {
  const { _tag, message, ...rest } = errorJson(error)
  if (json) return Console.log(asciiJson({ error: { _tag, ...rest, message } }))
  const text = _tag === "UsageError" || _tag === "Error" ? message : `${_tag}: ${message}`
  return Console.error(text.split("\n").map(printable).join("\n"))
}
