/** The files of a log: what it goes on from, their names, and how long they are kept. */
import type { FileHandle } from "node:fs/promises"
import { open, readdir, stat, unlink } from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { AuditError } from "@agentweave/transport/AuditLog"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { Verification } from "../auditVerification/verification.js"
import { openExisting, renameTo } from "./files.js"
import { type Begins, decode, type Head, type PredecessorState, type Retired, start } from "./format.js"

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

/** The header of a file: of which log it is, and what its first record follows. */
const headerOf = async (path: string) => {
  const file = await open(path, "r")
  const { buffer, bytesRead } = await file.read(Buffer.alloc(4096), 0, 4096, 0).finally(() => file.close())
  const [line = ""] = buffer.toString("utf8", 0, bytesRead).split("\n")
  const record = Either.getOrUndefined(decode(line))
  return record?.header === undefined ? undefined : { header: record.header, seq: record.seq, prev: record.prev ?? "" }
}

/** Full files that need not be kept any longer. */
export interface Outdated {
  readonly paths: ReadonlyArray<string>
  readonly retired: Retired
}

/**
 * Chooses the oldest full files, as many as are too old or too much: those of this log only, and never the newest.
 */
export const outdated = async (
  path: string,
  log: string,
  limits: {
    readonly maxTotalSize: number
    readonly maxAgeMillis: number
    readonly now: number
    readonly liveSize: number
  }
): Promise<Outdated | undefined> => {
  const files = await Promise.all(
    (await fullFiles(path)).map(async (file) => ({ ...file, ...(await stat(file.path)) }))
  )
  let total = limits.liveSize + files.reduce((sum, { size }) => sum + size, 0)
  const paths: Array<string> = []
  for (const { mtimeMs, path, size } of files.slice(0, -1)) {
    if (total <= limits.maxTotalSize && limits.now - mtimeMs <= limits.maxAgeMillis) break
    const found = await headerOf(path)
    if (found === undefined || (found.header.version === 2 && found.header.log !== log)) break
    paths.push(path)
    total -= size
  }
  const next = files[paths.length]
  if (paths.length === 0 || next === undefined) return undefined
  const successor = await headerOf(next.path)
  return successor === undefined
    ? undefined
    : { paths, retired: { files: paths.length, upTo: successor.seq - 1, hash: successor.prev } }
}

export const removeAll = async (paths: ReadonlyArray<string>): Promise<void> => {
  for (const path of paths) await unlink(path)
}
