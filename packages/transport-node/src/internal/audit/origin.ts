/** Where a log that is opened goes on: after which file, and what became of that one. */
import type { FileHandle } from "node:fs/promises"
import { readdir } from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { AuditError } from "@agentweave/transport/AuditLog"
import * as Effect from "effect/Effect"
import { Verification } from "../auditVerification/verification.js"
import { openExisting, renameTo } from "./files.js"
import { type Begins, type Head, type PredecessorState, start } from "./format.js"

/** The file that a new one follows. */
export interface Predecessor {
  readonly log: string | undefined
  /** Number of the file; -1 for one of format 1, which has none. */
  readonly file: number
  readonly head: Head
  readonly state: PredecessorState
}

/** Where a log that is opened goes on. */
export interface Origin {
  readonly begins: Begins
  readonly predecessor: Predecessor | undefined
  /** Number of the file to begin. */
  readonly file: number
}

const refuse = (description: string) => new AuditError({ reason: "Failed", description })

const attempt = <A>(path: string, run: () => Promise<A>): Effect.Effect<A, AuditError> =>
  Effect.tryPromise({
    try: run,
    catch: (cause) =>
      new AuditError({
        reason: "Failed",
        description: `expected to go on with the audit file ${path}, it failed: ${cause instanceof Error ? cause.message : cause}`,
        cause
      })
  })

/** The full files of a log, with the number of their last record, oldest first. */
export const fullFiles = async (
  path: string
): Promise<ReadonlyArray<{ readonly path: string; readonly last: number }>> => {
  const prefix = `${basename(path)}.`
  return (await readdir(dirname(path)))
    .filter((name) => name.startsWith(prefix) && /^\d+$/.test(name.slice(prefix.length)))
    .map((name) => ({ path: join(dirname(path), name), last: Number(name.slice(prefix.length)) }))
    .toSorted((a, b) => a.last - b.last)
}

/** Reads a file of the log to its end: where its chain ends, and how. Refuses one that is not as it was written. */
const readFile = (path: string, text: string): Effect.Effect<Predecessor, AuditError> => {
  const verification = new Verification(undefined)
  verification.add(text, undefined)
  const { end } = verification
  const { findings } = verification.finish()
  const [worst] = findings
  if (worst?._tag === "Tampered") {
    return Effect.fail(
      refuse(
        `expected ${path} to be an intact audit file to go on with, line ${worst.line} is not: ${worst.description}`
      )
    )
  }
  return Effect.succeed({ log: end.log, file: end.file, head: end.head, state: end.state })
}

/** Whether a text is no more than the beginning of the first record that a log would write here: a crash left it. */
const isTornHeader = (text: string, head: Head): boolean => {
  const begins = `{"seq":${head.seq + 1},"prev":"${head.hash}",`
  return text.length <= begins.length ? begins.startsWith(text) : text.startsWith(begins) && !text.includes("\n")
}

/**
 * Gives the audit file of ours at the path the name of a full one. The record at
 * its end that a crash may have torn is cut off. Anything else is left as it is, and refused.
 */
const takeOver = (path: string, file: FileHandle, newest: Predecessor | undefined) =>
  Effect.gen(function* () {
    const text = yield* attempt(path, () => file.readFile("utf8"))
    if (text === "") return undefined
    const whole = text.slice(0, text.lastIndexOf("\n") + 1)
    if (whole === "") {
      if (!isTornHeader(text, newest?.head ?? start)) {
        return yield* refuse(`expected ${path} to be an audit file or not to be there, it is another file`)
      }
      yield* attempt(path, () => file.truncate(0))
      return undefined
    }
    const found = yield* readFile(path, whole)
    const isTorn = whole.length < text.length
    if (isTorn) yield* attempt(path, () => file.truncate(Buffer.byteLength(whole)))
    yield* attempt(path, () => renameTo(path, `${path}.${found.head.seq}`))
    return { ...found, state: isTorn ? ("Torn" as const) : found.state }
  })

/** Looks at the files there are, and says where the log goes on. */
export const findOrigin = (path: string): Effect.Effect<Origin, AuditError> =>
  Effect.gen(function* () {
    const full = (yield* attempt(path, () => fullFiles(path))).at(-1)
    const newest =
      full === undefined
        ? undefined
        : yield* Effect.acquireUseRelease(
            attempt(full.path, () => openExisting(full.path)),
            (file) =>
              Effect.flatMap(
                attempt(full.path, async () => (await file?.readFile("utf8")) ?? ""),
                (text) => readFile(full.path, text.slice(0, text.lastIndexOf("\n") + 1))
              ),
            (file) => Effect.promise(async () => file?.close())
          )
    const live = yield* Effect.acquireUseRelease(
      attempt(path, () => openExisting(path)),
      (file) => (file === undefined ? Effect.succeed(undefined) : takeOver(path, file, newest)),
      (file) => Effect.promise(async () => file?.close())
    )
    if (live !== undefined) return { begins: "Restarted", predecessor: live, file: live.file + 1 }
    if (newest === undefined) return { begins: "New", predecessor: undefined, file: 0 }
    // A file has its number in its name from the moment its successor begins: that is gone, or the process was killed then.
    return { begins: "PredecessorMissing", predecessor: newest, file: newest.file + 2 }
  })
