import { constants, type FSWatcher, watch } from "node:fs"
import * as fs from "node:fs/promises"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { codeOf } from "../errors.js"

/** Why a file cannot be read: the platform's code where there is one, else what was met. */
export interface FileProblem {
  readonly reason: "Unavailable" | "Malformed"
  readonly problem: string
}

export interface FileContent {
  readonly bytes: Uint8Array
  /** Whether everybody on the machine may read the file. */
  readonly worldReadable: boolean
}

/** All that reading and watching needs of a file system. */
export interface IdentityFiles {
  /** Where a symbolic link points; `undefined` for what is no link. Fails with the platform's error code. */
  readonly readLink: (path: string) => Effect.Effect<string | undefined, string>
  readonly read: (path: string) => Effect.Effect<FileContent, FileProblem>
  /**
   * Watches one directory until the scope closes. `notify` is called with the name that changed, as far as the platform
   * knows it; `broken` once, when the watcher has died. Fails with the platform's error code.
   */
  readonly watch: (
    directory: string,
    notify: (name: string | null) => void,
    broken: (code: string) => void
  ) => Effect.Effect<void, string, Scope.Scope>
}

/** More than any credential needs. */
export const maxFileBytes = 1024 * 1024

/** The system's code of an error, such as `ENOENT`. */
const problemOf = (cause: unknown): string => codeOf(cause) || "an error"

const attempt = <A>(run: () => Promise<A>): Effect.Effect<A, string> =>
  Effect.tryPromise({ try: run, catch: problemOf })

const unavailable = (problem: string): FileProblem => ({ reason: "Unavailable", problem })

const malformed = (problem: string): FileProblem => ({ reason: "Malformed", problem })

const chunkBytes = 16 * 1024

/** Reads to the end, or to past the limit. */
const readAll = Effect.fnUntraced(function* (handle: fs.FileHandle) {
  const chunks: Array<Uint8Array> = []
  let length = 0
  while (length <= maxFileBytes) {
    const { buffer, bytesRead } = yield* attempt(() => handle.read(Buffer.alloc(chunkBytes)))
    if (bytesRead === 0) break
    chunks.push(buffer.subarray(0, bytesRead))
    length += bytesRead
  }
  return Buffer.concat(chunks)
})

const readHandle = Effect.fnUntraced(function* (handle: fs.FileHandle): Effect.fn.Return<FileContent, FileProblem> {
  const stat = yield* Effect.mapError(
    attempt(() => handle.stat()),
    unavailable
  )
  if (!stat.isFile()) return yield* Effect.fail(malformed("something that is not a regular file"))
  const bytes = yield* Effect.mapError(readAll(handle), unavailable)
  if (bytes.length > maxFileBytes) return yield* Effect.fail(malformed(`more than ${maxFileBytes} bytes`))
  return { bytes, worldReadable: process.platform !== "win32" && (stat.mode & constants.S_IROTH) !== 0 }
})

/** A directory watcher of Node. It does not keep the process alive. */
const openWatcher = (directory: string, notify: (name: string | null) => void, broken: (code: string) => void) =>
  Effect.try({
    try: (): FSWatcher =>
      watch(directory, { persistent: false })
        .on("change", (_event, name) => notify(name === null ? null : name.toString()))
        .on("error", (cause) => broken(problemOf(cause))),
    catch: problemOf
  })

/** The file system of Node: where its callbacks and promises enter Effect. */
export const nodeFiles: IdentityFiles = {
  readLink: (path) =>
    Effect.catchIf(
      attempt(() => fs.readlink(path)),
      // A path that is no link answers EINVAL (UNKNOWN on Windows).
      (code) => code === "EINVAL" || code === "UNKNOWN",
      () => Effect.succeed(undefined)
    ),
  read: (path) =>
    Effect.acquireUseRelease(
      // Not blocking: a pipe in place of a file must not hold a thread until somebody writes to it.
      Effect.mapError(
        attempt(() => fs.open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))),
        unavailable
      ),
      readHandle,
      (handle) => Effect.ignore(attempt(() => handle.close()))
    ),
  watch: (directory, notify, broken) =>
    Effect.asVoid(
      Effect.acquireRelease(openWatcher(directory, notify, broken), (watcher) => Effect.sync(() => watcher.close()))
    )
}
