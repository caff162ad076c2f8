/** Other programs, as Effects: run to their end, or running until the scope closes. */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { Data, Effect, Queue, Schema, type Scope } from "effect"

/** A program that could not be run, or said something else than was expected. */
export class ChildError extends Data.TaggedError("ChildError")<{ readonly message: string }> {}

export interface Program {
  readonly command: string
  readonly args: ReadonlyArray<string>
}

interface SpawnOptions {
  readonly cwd?: string | undefined
  readonly stdin?: string | undefined
  readonly env?: Readonly<Record<string, string>> | undefined
}

const start = (program: Program, { cwd, env }: SpawnOptions) =>
  Effect.acquireRelease(
    Effect.sync(
      (): ChildProcessWithoutNullStreams =>
        spawn(program.command, [...program.args], { cwd, env: { ...process.env, ...env } })
    ),
    (child) => Effect.sync(() => child.kill("SIGTERM"))
  )

export interface Ended {
  readonly code: number | null
  readonly output: string
}

/** Runs a program to its end; everything it printed is one text. */
export const run = (program: Program, options: SpawnOptions & { readonly timeout?: number } = {}) =>
  Effect.scoped(
    Effect.gen(function* () {
      const child = yield* start(program, options)
      return yield* Effect.async<Ended, ChildError>((resume) => {
        const chunks: Array<Buffer> = []
        child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk))
        child.stderr.on("data", (chunk: Buffer) => chunks.push(chunk))
        child.once("error", (cause) => resume(new ChildError({ message: `${program.command}: ${cause.message}` })))
        child.once("close", (code) => resume(Effect.succeed({ code, output: Buffer.concat(chunks).toString("utf8") })))
        child.stdin.on("error", () => {})
        child.stdin.end(options.stdin)
      }).pipe(
        Effect.timeoutFail({
          duration: options.timeout ?? 60_000,
          onTimeout: () => new ChildError({ message: `${program.command} did not end in time` })
        })
      )
    })
  )

/** What the peers of this run print, one JSON object a line. */
const Line = Schema.parseJson(
  Schema.Struct({
    error: Schema.optional(Schema.String),
    id: Schema.optional(Schema.String),
    serial: Schema.optional(Schema.String),
    url: Schema.optional(Schema.String),
    authorities: Schema.optional(Schema.Number),
    jwtAuthorities: Schema.optional(Schema.Number),
    ok: Schema.optional(Schema.Number),
    of: Schema.optional(Schema.Number),
    body: Schema.optional(Schema.String),
    problem: Schema.optional(Schema.String)
  })
)

export type Line = typeof Line.Type

/** The lines of a program that runs until the scope closes; each is waited for at most half a minute. */
export const lines = (
  program: Program,
  isLine: (line: string) => boolean = () => true
): Effect.Effect<Effect.Effect<string, ChildError>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const child = yield* start(program, {})
    const queue = yield* Queue.unbounded<string>()
    const others: Array<string> = []
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        if (isLine(line)) queue.unsafeOffer(line)
        else others.push(line)
      })
    }
    child.on("error", (cause) => others.push(cause.message))
    return Effect.timeoutFail(Queue.take(queue), {
      duration: "30 seconds",
      onTimeout: () =>
        new ChildError({ message: `${program.command} said nothing more; before: ${others.slice(-5).join(" | ")}` })
    })
  })

/** {@link lines} of one of this run's own peers. */
export const peerLines = (program: Program) =>
  Effect.map(
    lines(program, (line) => line.startsWith("{")),
    (next) =>
      Effect.flatMap(next, (line) =>
        Effect.mapError(Schema.decode(Line)(line), () => new ChildError({ message: `unexpected line ${line}` }))
      )
  )
