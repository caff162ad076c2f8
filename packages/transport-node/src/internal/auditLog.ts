/**
 * The audit log that {@link layerFile} of `NodeAuditLog` describes: what waits, when it is written, and to which file.
 */
import { open, readdir, readFile, rename, stat, truncate } from "node:fs/promises"
import { basename, dirname } from "node:path"
import { forEachChange, IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import type { X509Svid } from "@agentweave/spiffe/X509Svid"
import { isRequest } from "@agentweave/transport/AuditEvent"
import { AuditError, type AuditLog } from "@agentweave/transport/AuditLog"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as AuditFile from "../AuditFile.js"
import type { Options } from "../NodeAuditLog.js"
import { AuditBatch } from "./auditBatch.js"
import { forkScoped } from "./background.js"

/** What is done with an open file. */
export interface OpenFile {
  readonly appendFile: (bytes: Uint8Array) => Promise<void>
  readonly truncate: (size: number) => Promise<void>
  readonly stat: (options: {
    readonly bigint: true
  }) => Promise<{ readonly dev: bigint; readonly ino: bigint; readonly size: bigint }>
  readonly close: () => Promise<void>
}

/** From this many events on, writing does not wait for the window to pass. */
const batch = 1024

/** How long the last checkpoint of a file waits for an identity: the next file and the end of the log wait behind it. */
const patience = Duration.seconds(1)

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
  const [worst] = found.findings
  return worst?._tag === "Tampered" && text !== ""
    ? Effect.fail(
        new AuditError({
          reason: "Failed",
          description: `expected ${path} to be an intact audit file to go on with, line ${worst.line} is not: ${worst.description}`
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

/** A file as the system knows it: what has the name now may be another one. */
interface Identity {
  readonly inode: string
  readonly size: number
}

const identityOf = ({ dev, ino, size }: { readonly dev: bigint; readonly ino: bigint; readonly size: bigint }) => ({
  inode: `${dev}:${ino}`,
  size: Number(size)
})

/** What is at a path, if anything is. */
const lookAt = (path: string): Promise<Identity | undefined> =>
  stat(path, { bigint: true }).then(identityOf, (cause: NodeJS.ErrnoException) =>
    cause.code === "ENOENT" ? undefined : Promise.reject(cause)
  )

export const make = Effect.fnUntraced(function* (
  options: Options,
  openFile: (path: string, flags: string, mode: number) => Promise<OpenFile> = open
): Effect.fn.Return<AuditLog["Type"], AuditError, IdentityProvider | Scope.Scope> {
  const { checkpointEvery = 1000, maxFileSize = 64 * 1024 * 1024, maxPending = 65_536, path } = options
  const { whenFull = "FailClosed", whenFullOfRequests = "DropAndCount" } = options
  const flushWindow = Duration.decode(options.flushWindow ?? "100 millis")
  const identity = yield* IdentityProvider
  /** Something waits: the window has begun. */
  const filled = yield* Effect.makeLatch(false)
  /** The window is over, or there is much to write. */
  const due = yield* Effect.makeLatch(false)
  const attempt = <A>(run: () => Promise<A>) => Effect.tryPromise({ try: run, catch: failed(path) })

  /** What a write that failed has left, and what has come since; how many events that is. */
  let waiting: ReadonlyArray<AuditBatch> = []
  let pending = new AuditBatch(AuditFile.start)
  let count = 0
  /** Written, and to be used again. */
  let spare: AuditBatch | undefined
  let dropped = { requests: 0, others: 0 }
  let failure: AuditError | undefined
  /** Where the chain in the file ends. */
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
  /** The file at `path` that this chain is being written to; absent when there is none yet, or it was renamed. */
  let current: { readonly inode: string; readonly firstSeq: number } | undefined
  /** Absent between two files, and after something went wrong there. */
  let file: OpenFile | undefined
  let headerIsDue = false
  let lost: { readonly from: number; readonly to: number } | undefined

  /** Writes records that follow one another, and the first of them what is in the file. */
  const write = (batches: ReadonlyArray<AuditBatch>): Effect.Effect<void, AuditError> =>
    Effect.suspend(() => {
      const [first, ...more] = batches
      if (first === undefined) return Effect.void
      const bytes = more.length === 0 ? first.lines : Buffer.concat(batches.map(({ lines }) => lines))
      const { head: at } = more.at(-1) ?? first
      if (file === undefined) return Effect.fail(failed(path)(new Error("it is not open")))
      const to = file
      // One write call a batch: a record is whole or, after a crash within it, the last and torn.
      return attempt(() => to.appendFile(bytes)).pipe(
        // What a failed write left is not part of the chain.
        Effect.tapError(() => Effect.ignore(attempt(() => to.truncate(size)))),
        Effect.zipRight(
          Effect.sync(() => {
            sinceCheckpoint += at.seq - head.seq
            head = at
            size += bytes.length
          })
        )
      )
    })

  /** Writes one record of the log's own; events that wait are chained anew behind it. */
  const writeContent = (content: AuditFile.Content): Effect.Effect<void, AuditError> =>
    Effect.suspend(() => {
      const batch = new AuditBatch(head)
      batch.addContent(content)
      return write([batch])
    })

  const shut = Effect.suspend(() => {
    const before = file
    file = undefined
    return before === undefined ? Effect.void : attempt(() => before.close())
  })

  /**
   * Makes sure that there is a file to write to, and that it is the one with the name: somebody may have deleted, replaced
   * or cut short what was written. Then a new file goes on with the chain, and its header says what is lost; what stands in
   * its place is kept under another name.
   */
  const ready: Effect.Effect<void, AuditError> = Effect.gen(function* () {
    const found = yield* attempt(() => lookAt(path))
    if (current !== undefined && (found?.inode !== current.inode || found.size < size)) {
      const from = lost?.from ?? current.firstSeq
      if (head.seq >= from) lost = { from, to: head.seq }
      current = undefined
      yield* Effect.ignore(shut)
      yield* Effect.logError("the audit file was deleted, replaced or cut short, a new one is begun", { path, lost })
    }
    if (file === undefined) {
      const isOurs = current !== undefined
      if (!isOurs && found !== undefined && found.size > 0) {
        yield* attempt(() => rename(path, `${path}.replaced.${head.seq}`))
      }
      const opened = yield* attempt(() => openFile(path, "a", 0o600))
      file = opened
      if (!isOurs) {
        const { inode } = identityOf(yield* attempt(() => opened.stat({ bigint: true })))
        current = { inode, firstSeq: head.seq + 1 }
        size = 0
        headerIsDue = true
      }
    }
    if (!headerIsDue) return
    const time = yield* Clock.currentTimeMillis
    const flushWindowMillis = Duration.toMillis(flushWindow)
    const header = { version: 1, time, flushWindowMillis, ...(lost === undefined ? undefined : { lost }) } as const
    yield* writeContent({ header })
    headerIsDue = false
    lost = undefined
  })
  // What a crash left of a first record.
  yield* attempt(() => truncate(path, 0).catch(() => {}))
  yield* ready

  /** The newest SVID that was heard of. */
  let signer: X509Svid | undefined
  yield* forkScoped(
    forEachChange(identity, ({ svid }) =>
      Effect.sync(() => {
        signer = svid
      })
    )
  )

  /** Signs what is in the file, with the newest SVID there is; without one the records stay chained and unsigned. */
  const sign = (final: boolean): Effect.Effect<void, AuditError> =>
    Effect.gen(function* () {
      const newest = Effect.timeoutOption(Effect.interruptible(identity.x509Context), patience)
      const context = Option.flatten(yield* Effect.option(newest))
      signer = Option.match(context, { onNone: () => signer, onSome: ({ svid }) => svid })
      if (signer !== undefined) yield* writeContent(AuditFile.checkpoint(head, signer, final))
      sinceCheckpoint = 0
    })

  /** Where it fails half-way, the next flush finds the file under its old name and tries again, or none and begins one. */
  const rotate = Effect.gen(function* () {
    if (sinceCheckpoint > 0) yield* sign(false)
    yield* shut
    yield* attempt(() => rename(path, `${path}.${head.seq}`))
    current = undefined
    yield* ready
  })

  const flush: Effect.Effect<void, AuditError> = Effect.gen(function* () {
    due.unsafeClose()
    yield* ready
    const last = pending
    const batches = [...waiting, last]
    let at = head
    for (const batch of batches) {
      batch.follow(at)
      at = batch.head
    }
    const taken = count
    const missing = dropped
    const { mark } = last
    if (missing.requests + missing.others > 0) last.addContent({ dropped: missing })
    // In the batch: on its own it would come between it and the events of the meantime, to be chained anew for that.
    const signedBy = sinceCheckpoint + last.head.seq - head.seq >= checkpointEvery ? signer : undefined
    if (signedBy !== undefined) last.addContent(AuditFile.checkpoint(last.head, signedBy, false))
    const full = batches.filter(({ lines }) => lines.length > 0)
    waiting = []
    pending = spare?.reset(last.head) ?? new AuditBatch(last.head)
    spare = undefined
    count = 0
    dropped = { requests: 0, others: 0 }
    yield* Effect.tapError(write(full), () =>
      Effect.sync(() => {
        // Not written: they wait for the next try, in their order.
        last.backTo(mark)
        waiting = full
        count += taken
        dropped = { requests: dropped.requests + missing.requests, others: dropped.others + missing.others }
      })
    )
    spare = last
    if (signedBy !== undefined) sinceCheckpoint = 0
    if (size >= maxFileSize) yield* rotate
  }).pipe(Effect.tapError(() => Effect.sync(() => filled.unsafeOpen())))

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
      Effect.zipRight(Effect.ignore(shut))
    )
  )
  yield* forkScoped(Effect.forever(Effect.zipRight(due.await, flushAndNote)))
  // A fiber of its own: a race with the window for each batch would cost as much as writing it.
  yield* filled.await.pipe(
    Effect.zipRight(Effect.sleep(flushWindow)),
    Effect.zipRight(
      Effect.sync(() => {
        filled.unsafeClose()
        due.unsafeOpen()
      })
    ),
    Effect.forever,
    forkScoped
  )

  return {
    unsafeRecord: (event) => {
      if (closed || failure !== undefined || count >= maxPending) {
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
      pending.add(event)
      count++
      if (count === 1) filled.unsafeOpen()
      else if (count === batch) due.unsafeOpen()
      return undefined
    }
  }
})
