/**
 * The audit log that `layerFile` of `NodeAuditLog` describes: what waits, when it is written, and to which file.
 */
import { randomBytes } from "node:crypto"
import { open, statfs } from "node:fs/promises"
import { dirname } from "node:path"
import { forEachChange, IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import type { InvalidConfigError } from "@agentweave/spiffe/InvalidConfigError"
import { type AuditEvent, isRequest } from "@agentweave/transport/AuditEvent"
import { AuditError, type AuditLog } from "@agentweave/transport/AuditLog"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Options } from "../../NodeAuditLog.js"
import { forkScoped } from "../background.js"
import * as anchoring from "./anchoring.js"
import { Attempts } from "./attempts.js"
import { type Batch, Chain } from "./chain.js"
import type { Open } from "./files.js"
import { type Counts, type Header2, type Range, start } from "./format.js"
import * as lock from "./lock.js"
import { decode } from "./options.js"
import { findOrigin, outdated, removeAll } from "./rotation.js"
import { Starts } from "./starts.js"
import { type Displaced, Store } from "./store.js"
import { Svids } from "./svids.js"

/** From this many events on, writing does not wait for the window to pass. */
const batchSize = 1024

/** How long the last checkpoint waits for an identity: the end of the log waits behind it. */
const signTimeout = Duration.seconds(1)

/** How often the lock and the space on the disk are looked at, at most, in milliseconds. */
const lookEvery = 1_000

const none: Counts = { requests: 0, others: 0 }

const stateOf: { readonly [why in Displaced]: "Missing" | "Cut" | "Replaced" } = {
  PredecessorMissing: "Missing",
  PredecessorCut: "Cut",
  PredecessorReplaced: "Replaced"
}

export const make = Effect.fnUntraced(function* (
  options: Options,
  openFile: Open = open
): Effect.fn.Return<AuditLog["Type"], AuditError | InvalidConfigError, IdentityProvider | Scope.Scope> {
  const { checkpointEvery, flushWindow, maxAge, maxFileSize, maxPending, maxTotalSize, path, ...settings } =
    yield* decode(options)
  const { whenFull, whenFullOfRequests } = settings
  const maxAgeMillis = maxAge === undefined ? Number.POSITIVE_INFINITY : Duration.toMillis(maxAge)
  const signIntervalMillis = Duration.toMillis(settings.checkpointInterval)
  const flushWindowMillis = Duration.toMillis(flushWindow)
  const clock = yield* Effect.clock
  const now = () => clock.unsafeCurrentTimeMillis()
  const identity = yield* IdentityProvider
  const failed = (cause: unknown) =>
    new AuditError({
      reason: "Failed",
      description: `expected to write the audit file ${path}, it failed: ${cause instanceof Error ? cause.message : cause}`,
      cause
    })
  const attempt = <A>(run: () => Promise<A>) => Effect.tryPromise({ try: run, catch: failed })

  /** Something waits: the window has begun. */
  const filled = yield* Effect.makeLatch(false)
  /** The window is over, or there is much to write. */
  const due = yield* Effect.makeLatch(false)

  const heldLock = yield* lock.acquire(path)
  const anchor = yield* anchoring.make
  const from = anchoring.apply(yield* findOrigin(path), yield* anchor.latest)
  const log = from.predecessor?.log ?? randomBytes(16).toString("hex")
  const store = new Store(path, openFile)
  const chain = new Chain(now)
  const svids = new Svids()
  const starts = new Starts()
  const attempts = new Attempts(settings.maxStrangers)
  const holdsStarts = whenFullOfRequests === "DropAndCount"

  /** Batches that are not written yet, in their order. */
  let queue: Array<Batch> = []
  /** Events that wait, in the queue, in the chain and as open starts. */
  let count = 0
  let dropped = none
  /** Dropped in all, since the log was opened. */
  let droppedInAll = none
  let failure: AuditError | undefined
  let isClosed = false
  /** Where the chain in the file ends, and the number of that file. */
  let written = from.predecessor?.head ?? start
  let fileNumber = from.predecessor?.file ?? -1
  let firstSeq = written.seq + 1
  let lost: Range | undefined = from.lost
  let beganAt = now()
  let isScarce = false
  let lookedAt = Number.NEGATIVE_INFINITY
  let signsSoon = false

  const headerOf = (header: Omit<Header2, "version" | "log" | "flushWindowMillis">) => ({
    header: { version: 2, log, flushWindowMillis, ...header } as const
  })

  /** Signs what no checkpoint covers yet, with the SVID of its time; without one the records stay chained and unsigned. */
  const sign = (): void => {
    signsSoon = false
    const svid = svids.choose(chain.since, now())
    // A key that cannot sign is as no key.
    if (svid !== undefined) Either.try(() => chain.addCheckpoint(svid, droppedInAll))
  }

  const isCheckpointDue = (): boolean => {
    if (chain.unsigned === 0) return false
    const time = now()
    if (signsSoon || chain.unsigned >= checkpointEvery || time - chain.since >= signIntervalMillis) return true
    const svid = svids.choose(chain.since, time)
    // The last chance of an SVID that no successor may cover for.
    return svid !== undefined && svid.notAfter - time < signIntervalMillis
  }

  /** Puts into the chain what is to be on record now besides the events that came. */
  const collect = (isEnd: boolean): void => {
    for (const event of starts.takeAll()) {
      // It was counted when it came.
      chain.add(event)
    }
    const sum = attempts.takeSum(now(), isEnd)
    for (const event of [...(isEnd ? attempts.takeAll() : []), ...(sum === undefined ? [] : [sum])]) {
      chain.add(event)
      count++
    }
    if (dropped.requests + dropped.others === 0) return
    droppedInAll = {
      requests: droppedInAll.requests + dropped.requests,
      others: droppedInAll.others + dropped.others
    }
    chain.addContent({ dropped })
    dropped = none
  }

  const isFileFull = (): boolean =>
    chain.isSetBack || store.size + chain.size >= maxFileSize || now() - beganAt >= maxAgeMillis / 2

  const predecessor = (state: "Rotated" | "Closed") => ({ file: fileNumber, ...chain.head, state })

  /** Makes a batch of what waits; when the file is full with it, another of the header of the next file. */
  const seal = (): void => {
    collect(false)
    const isFull = !chain.isEmpty && isFileFull()
    if (isFull) chain.addContent({ end: { state: "Rotated" } })
    if (isFull || isCheckpointDue()) sign()
    if (chain.isEmpty) return
    const begins = chain.isSetBack ? "ClockSetBack" : "Rotated"
    queue.push(chain.take(isFull))
    if (!isFull) return
    const number = fileNumber + 1
    chain.beginFile(number, headerOf({ file: number, begins, predecessor: predecessor("Rotated") }))
    queue.push(chain.take(false))
  }

  /** The file is no longer the one with the name: another goes on with the chain, and says what is lost. */
  const moveOn = (why: Displaced): Effect.Effect<void> =>
    Effect.suspend(() => {
      const first = lost?.from ?? firstSeq
      if (written.seq >= first) lost = { from: first, to: written.seq }
      const number = fileNumber + 1
      const header = headerOf({
        file: number,
        begins: why,
        predecessor: { file: fileNumber, ...written, state: stateOf[why] },
        ...(lost === undefined ? undefined : { lost })
      })
      chain.follow(written, queue, number, header)
      queue = [chain.take(false)]
      const message = "the audit file was deleted, replaced or cut short, a new one is begun"
      return Effect.zipRight(
        Effect.promise(() => store.leave()),
        Effect.logError(message, { path, lost })
      )
    })

  const wrote = (batch: Batch): void => {
    queue.shift()
    if (batch.begins !== undefined) {
      fileNumber = batch.begins
      firstSeq = written.seq + 1
      beganAt = now()
      lost = undefined
    }
    written = batch.head
    count -= batch.events
    chain.giveBack(batch)
    for (const { line, seq } of batch.checkpoints) anchor.unsafeOffer({ log, file: fileNumber, seq, line })
  }

  const drain: Effect.Effect<void, AuditError> = Effect.gen(function* () {
    while (queue.length > 0) {
      const displaced = yield* attempt(() => store.displaced())
      if (displaced !== undefined) yield* moveOn(displaced)
      const [batch] = queue
      if (batch === undefined) return
      yield* Effect.tapError(
        attempt(() => store.append(batch.bytes, written.seq)),
        () => Effect.promise(() => store.takeBack())
      )
      wrote(batch)
      if (batch.isLast) yield* attempt(() => store.fill(written.seq))
    }
  })

  /** Removes full files that are too old or too much, after it is on record that they are. */
  const retire: Effect.Effect<void, AuditError> = Effect.gen(function* () {
    const liveSize = store.size
    const old = yield* attempt(() => outdated(path, log, { maxTotalSize, maxAgeMillis, now: now(), liveSize }))
    if (old === undefined) return
    chain.addContent({ retired: old.retired })
    sign()
    queue.push(chain.take(false))
    yield* drain
    yield* attempt(() => removeAll(old.paths))
  })
  const isRetiring = maxAge !== undefined || maxTotalSize !== Number.MAX_SAFE_INTEGER

  /** Is the lock still ours, and how much space is left? */
  const look = Effect.gen(function* () {
    if (!(yield* Effect.promise(() => heldLock.isHeld()))) {
      return yield* failed(new Error("another process took the lock beside it"))
    }
    const space = yield* Effect.option(attempt(() => statfs(dirname(path))))
    // Where it cannot be told there is enough. Of a small volume no more than a twentieth is reserved.
    isScarce = Option.exists(
      space,
      ({ bavail, blocks, bsize }) => bavail * bsize < Math.min(settings.reservedSpace, (blocks * bsize) / 20)
    )
    lookedAt = now()
  })
  const isLookDue = () => now() - lookedAt >= lookEvery || now() < lookedAt

  const flush: Effect.Effect<void, AuditError> = Effect.gen(function* () {
    due.unsafeClose()
    if (isLookDue()) yield* look
    yield* drain
    const before = fileNumber
    seal()
    yield* drain
    if (isRetiring && fileNumber !== before) yield* retire
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

  chain.goOn(from.predecessor?.head ?? start)
  chain.beginFile(
    from.file,
    headerOf({
      file: from.file,
      begins: from.begins,
      ...(from.predecessor === undefined
        ? undefined
        : { predecessor: { file: from.predecessor.file, ...from.predecessor.head, state: from.predecessor.state } }),
      ...(lost === undefined ? undefined : { lost })
    })
  )
  queue.push(chain.take(false))
  yield* look
  yield* drain

  const changes = Stream.tapError(identity.changes, ({ reason }) =>
    Effect.sync(() => {
      if (reason === "Withdrawn") svids.withdraw()
    })
  )
  yield* forkScoped(
    forEachChange({ changes }, ({ svid }) =>
      Effect.sync(() => {
        // What was recorded until now is signed with the SVID that was in use.
        if (!svids.add(svid) || chain.unsigned === 0) return
        signsSoon = true
        due.unsafeOpen()
      })
    )
  )

  /** Waits for an identity to sign the end with, but not for long. */
  const newestSvid = Effect.matchEffect(Effect.timeoutOption(Effect.interruptible(identity.x509Context), signTimeout), {
    onFailure: ({ reason }) => Effect.sync(() => (reason === "Withdrawn" ? svids.withdraw() : undefined)),
    onSuccess: (context) => Effect.sync(() => Option.map(context, ({ svid }) => svids.add(svid)))
  })

  // Before the fiber that writes, so that it runs after that fiber has ended: they never write at once.
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      isClosed = true
      return drain
    }).pipe(
      Effect.zipRight(newestSvid),
      Effect.zipRight(
        Effect.suspend(() => {
          collect(true)
          chain.addContent({ end: { state: "Closed" } })
          sign()
          queue.push(chain.take(false))
          return drain
        })
      ),
      Effect.zipRight(anchor.close),
      Effect.catchAll((error) => Effect.logError("the audit file could not be closed in order", error)),
      Effect.zipRight(Effect.ignore(attempt(() => store.close())))
    )
  )
  yield* anchor.run(() => store.sync())
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
  // Without events nothing else asks whether a checkpoint or a sum is due.
  yield* forkScoped(
    Effect.forever(
      Effect.zipRight(
        Effect.sleep(settings.checkpointInterval),
        Effect.sync(() => due.unsafeOpen())
      )
    )
  )

  const refuse = (event: AuditEvent): AuditError | undefined => {
    const isOfRequest = isRequest(event)
    // Counted whatever becomes of it: what has already happened cannot be refused any more.
    dropped = isOfRequest
      ? { requests: dropped.requests + 1, others: dropped.others }
      : { requests: dropped.requests, others: dropped.others + 1 }
    if (!isClosed) filled.unsafeOpen()
    const policy = isOfRequest ? whenFullOfRequests : whenFull
    if (policy === "DropAndCount" && !isClosed) return undefined
    if (failure !== undefined) return failure
    return isClosed
      ? new AuditError({ reason: "Closed", description: `expected an open audit file, ${path} is closed` })
      : new AuditError({
          reason: "Full",
          description: `expected room for an event, ${maxPending} wait to be written to ${path}`
        })
  }

  const counted = (): void => {
    count++
    if (count === 1) filled.unsafeOpen()
    else if (count === batchSize) due.unsafeOpen()
  }

  return {
    unsafeRecord: (event) => {
      if (isClosed || failure !== undefined || count >= maxPending) return refuse(event)
      if (holdsStarts) {
        if (event._tag === "RequestStarted") {
          starts.hold(event)
          counted()
          return undefined
        }
        if (event._tag === "RequestEnded" && starts.release(event.requestId)) {
          // It takes the place of its start.
          chain.add(event)
          return undefined
        }
      }
      if (event._tag === "RequestStarted" || event._tag === "RequestEnded") {
        chain.add(event)
        counted()
        return undefined
      }
      for (const taken of attempts.take(event, isScarce || count > maxPending * 0.75)) {
        chain.add(taken)
        counted()
      }
      return undefined
    }
  }
})
