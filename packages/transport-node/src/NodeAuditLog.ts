/**
 * The audit log as a file that shows when it was tampered with.
 *
 * @since 0.1.0
 */
import { type FileHandle, open, readdir, readFile, rename, truncate } from "node:fs/promises"
import { basename, dirname } from "node:path"
import { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import type { X509Svid } from "@agentweave/spiffe/X509Svid"
import { type AuditEvent, isRequest } from "@agentweave/transport/AuditEvent"
import { AuditError, AuditLog } from "@agentweave/transport/AuditLog"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as AuditFile from "./AuditFile.js"

/**
 * What becomes of an event that the file cannot take, because the disk is slow or writing fails: `FailClosed` refuses what
 * the event stands for with `AuditError`; `DropAndCount` lets it happen. Either way the file says how many are missing.
 *
 * @since 0.1.0
 * @category models
 */
export type WhenFull = "FailClosed" | "DropAndCount"

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The file; a full one is renamed to `<path>.<sequence number of its last record>`. */
  readonly path: string
  /** For connections, refusals, identity and policies. Default `"FailClosed"`. */
  readonly whenFull?: WhenFull | undefined
  /** For requests. Default `"DropAndCount"`. */
  readonly whenFullOfRequests?: WhenFull | undefined
  /** What a killed process may lose at most: events are written this long after they came. Default 100 milliseconds. */
  readonly flushWindow?: Duration.DurationInput | undefined
  /** Events that may wait to be written. Default 65,536. */
  readonly maxPending?: number | undefined
  /** Size in bytes from which a new file is begun. Default 64 MiB. */
  readonly maxFileSize?: number | undefined
  /** A signed checkpoint after this many records, and at the end. Default 1,000. */
  readonly checkpointEvery?: number | undefined
}

/** From this many events on, writing does not wait for the window to pass. */
const batch = 256

const failed = (path: string) => (cause: unknown) =>
  new AuditError({ reason: "Failed", description: `expected to write the audit file ${path}, it failed`, cause })

/** What is in a file, up to the last whole record: the one after it was torn by a crash and is not part of the chain. */
const wholeRecords = (path: string): Effect.Effect<string, AuditError> =>
  Effect.map(
    Effect.tryPromise({
      try: () =>
        readFile(path, "utf8").catch((cause: NodeJS.ErrnoException) =>
          cause.code === "ENOENT" ? "" : Promise.reject(cause)
        ),
      catch: failed(path)
    }),
    (text) => text.slice(0, text.lastIndexOf("\n") + 1)
  )

/** Where the chain of an existing file ends. */
const resume = (path: string, text: string): Effect.Effect<AuditFile.Head, AuditError> => {
  const found = AuditFile.verify(text)
  return found._tag === "Tampered"
    ? Effect.fail(
        new AuditError({
          reason: "Failed",
          description: `expected ${path} to be an intact audit file to go on with, line ${found.line} is not: ${found.description}`
        })
      )
    : Effect.succeed(found.head)
}

/** The newest of the full files. A crash may come when it has its new name and the next one is not there yet. */
const newestFull = (path: string): Effect.Effect<string | undefined, AuditError> =>
  Effect.map(Effect.tryPromise({ try: () => readdir(dirname(path)), catch: failed(path) }), (names) => {
    const prefix = `${basename(path)}.`
    const numbers = names
      .filter((name) => name.startsWith(prefix) && /^\d+$/.test(name.slice(prefix.length)))
      .map((name) => Number(name.slice(prefix.length)))
    return numbers.length === 0 ? undefined : `${path}.${Math.max(...numbers)}`
  })

const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<AuditLog["Type"], AuditError, IdentityProvider | Scope.Scope> {
  const { checkpointEvery = 1000, maxFileSize = 64 * 1024 * 1024, maxPending = 65_536, path } = options
  const { whenFull = "FailClosed", whenFullOfRequests = "DropAndCount" } = options
  const flushWindow = Duration.decode(options.flushWindow ?? "100 millis")
  const identity = yield* IdentityProvider
  const filled = yield* Effect.makeLatch(false)
  const urgent = yield* Effect.makeLatch(false)
  const attempt = <A>(run: () => Promise<A>) => Effect.tryPromise({ try: run, catch: failed(path) })

  let pending: Array<AuditEvent> = []
  let dropped = { requests: 0, others: 0 }
  let failure: AuditError | undefined
  let head = AuditFile.start
  let size = 0
  let sinceCheckpoint = 0

  const takeOver = Effect.gen(function* () {
    const text = yield* wholeRecords(path)
    if (text === "") {
      const before = yield* newestFull(path)
      if (before !== undefined) head = yield* resume(before, yield* wholeRecords(before))
      return
    }
    head = yield* resume(path, text)
    yield* attempt(() => truncate(path, Buffer.byteLength(text)))
    yield* attempt(() => rename(path, `${path}.${head.seq}`))
  })
  yield* takeOver
  const opened = attempt(() => open(path, "a", 0o600))
  let file: FileHandle = yield* opened
  // What a crash left of a first record.
  yield* attempt(() => file.truncate(0))

  /** Lines for the file, and the chain's head once they are there. */
  const compose = (contents: ReadonlyArray<AuditFile.Content>, from: AuditFile.Head) => {
    let text = ""
    let at = from
    for (const content of contents) {
      const appended = AuditFile.append(at, content)
      text += `${appended.line}\n`
      at = appended.head
    }
    return { text, at }
  }

  const write = (contents: ReadonlyArray<AuditFile.Content>): Effect.Effect<void, AuditError> =>
    Effect.suspend(() => {
      const { at, text } = compose(contents, head)
      const bytes = Buffer.from(text)
      // One write call a batch: a record is whole or, after a crash within it, the last and torn.
      return attempt(() => file.appendFile(bytes)).pipe(
        // What a failed write left is not part of the chain.
        Effect.tapError(() => Effect.ignore(attempt(() => file.truncate(size)))),
        Effect.zipRight(
          Effect.sync(() => {
            head = at
            size += bytes.length
            sinceCheckpoint += contents.length
          })
        )
      )
    })

  const header = Effect.flatMap(Clock.currentTimeMillis, (time) =>
    write([{ header: { version: 1, time, flushWindowMillis: Duration.toMillis(flushWindow) } }])
  )
  yield* header

  /** Signs with the newest SVID there is; without one the records stay chained and unsigned. */
  let signer: X509Svid | undefined
  const sign = (final: boolean): Effect.Effect<void, AuditError> =>
    Effect.gen(function* () {
      const context = yield* Effect.option(identity.x509Context)
      signer = Option.match(context, { onNone: () => signer, onSome: ({ svid }) => svid })
      if (signer !== undefined) yield* write([AuditFile.checkpoint(head, signer, final)])
      sinceCheckpoint = 0
    })

  const rotate = Effect.gen(function* () {
    yield* sign(false)
    yield* attempt(() => file.close())
    yield* attempt(() => rename(path, `${path}.${head.seq}`))
    file = yield* opened
    size = 0
    yield* header
  })

  const flush: Effect.Effect<void, AuditError> = Effect.gen(function* () {
    filled.unsafeClose()
    urgent.unsafeClose()
    const events = pending
    const missing = dropped
    pending = []
    dropped = { requests: 0, others: 0 }
    const contents: Array<AuditFile.Content> = events.map((event) => ({ event }))
    if (missing.requests + missing.others > 0) contents.push({ dropped: missing })
    if (contents.length === 0) return
    yield* Effect.tapError(write(contents), () =>
      Effect.sync(() => {
        // Not written: they wait for the next try, in their order.
        pending = events.concat(pending)
        dropped = { requests: dropped.requests + missing.requests, others: dropped.others + missing.others }
        filled.unsafeOpen()
      })
    )
    if (sinceCheckpoint >= checkpointEvery) yield* sign(false)
    if (size >= maxFileSize) yield* rotate
  })

  const flushAndNote = Effect.matchEffect(Effect.uninterruptible(flush), {
    onFailure: (error) =>
      Effect.suspend(() => {
        const first = failure === undefined
        failure = error
        return first ? Effect.logError("the audit file cannot be written", error) : Effect.void
      }),
    onSuccess: () =>
      Effect.sync(() => {
        failure = undefined
      })
  })

  // Before the fiber that writes, so that it runs after that fiber has ended: they never write at once.
  let closed = false
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      closed = true
      return flush
    }).pipe(
      Effect.zipRight(Effect.suspend(() => sign(true))),
      Effect.catchAll((error) => Effect.logError("the audit file could not be closed in order", error)),
      Effect.zipRight(Effect.ignore(attempt(() => file.close())))
    )
  )
  yield* filled.await.pipe(
    Effect.zipRight(Effect.raceFirst(Effect.sleep(flushWindow), urgent.await)),
    Effect.zipRight(flushAndNote),
    Effect.repeat(Schedule.forever),
    Effect.forkScoped
  )

  return {
    unsafeRecord: (event) => {
      if (closed || failure !== undefined || pending.length >= maxPending) {
        const request = isRequest(event)
        // Counted whatever becomes of it: what has already happened cannot be refused any more.
        if (request) dropped.requests++
        else dropped.others++
        if (!closed) filled.unsafeOpen()
        const policy = request ? whenFullOfRequests : whenFull
        if (policy === "DropAndCount" && !closed) return undefined
        if (failure !== undefined) return failure
        return closed
          ? new AuditError({ reason: "Closed", description: `expected an open audit file, ${path} is closed` })
          : new AuditError({
              reason: "Full",
              description: `expected room for an event, ${maxPending} wait to be written to ${path}`
            })
      }
      pending.push(event)
      if (pending.length === 1) filled.unsafeOpen()
      else if (pending.length === batch) urgent.unsafeOpen()
      return undefined
    }
  }
})

/**
 * Events as newline-delimited JSON in a file (mode 0600), in batches. Each record carries a gapless sequence number and the
 * SHA-256 of the record before; every `checkpointEvery` records and at the end a checkpoint is signed with the workload's
 * SVID. `AuditFile.verify` tells whether a file is as it was written.
 *
 * An existing file is continued under a new name: its chain goes on in the new one, without the record that a crash may
 * have torn at its end. Building the layer fails with
 * `AuditError` when the file cannot be written, or when the existing one is not intact.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerFile = (options: Options): Layer.Layer<AuditLog, AuditError, IdentityProvider> =>
  Layer.scoped(AuditLog, make(options))
