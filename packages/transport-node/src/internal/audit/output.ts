/** Writes what waits to the files of the log: seals batches, begins files, moves on from lost ones, removes old ones. */
import { AuditError } from "@agentweave/transport/AuditLog"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Written } from "./anchoring.js"
import type { Settings } from "./auditOptions.js"
import type { Batch } from "./chain.js"
import { type Content, type Head, type Header2, type Range, start } from "./format.js"
import type { Origin } from "./origin.js"
import type { Pending } from "./pending.js"
import { outdated, removeAll } from "./retention.js"
import { isFileFull } from "./rotation.js"
import type { Displaced, Store } from "./store.js"

const stateOf: { readonly [why in Displaced]: "Missing" | "Cut" | "Replaced" } = {
  PredecessorMissing: "Missing",
  PredecessorCut: "Cut",
  PredecessorReplaced: "Replaced"
}

/** The parts that an {@link Output} works with. */
export interface OutputOptions {
  readonly settings: Settings
  readonly log: string
  readonly from: Origin & { readonly lost: Range | undefined }
  readonly store: Store
  readonly pending: Pending
  readonly now: () => number
  /** Is told each checkpoint that is in the file. */
  readonly onCheckpoint: (written: Written) => void
}

/** The error of a file that cannot be written. */
export const failedAt = (path: string) => (cause: unknown) =>
  new AuditError({
    reason: "Failed",
    description: `expected to write the audit file ${path}, it failed: ${cause instanceof Error ? cause.message : cause}`,
    cause
  })

export class Output {
  private readonly options: OutputOptions
  private readonly maxAgeMillis: number
  /** Batches that are not written yet, in their order. */
  private queue: Array<Batch> = []
  /** Where the chain in the file ends, the number of that file, and its first record. */
  private written: Head
  private fileNumber: number
  private firstSeq: number
  /** Records that were lost and are on record in no header yet. */
  private lost: Range | undefined
  private beganAt: number

  constructor(options: OutputOptions) {
    const { from, now, settings } = options
    this.options = options
    this.maxAgeMillis = settings.maxAge === undefined ? Number.POSITIVE_INFINITY : Duration.toMillis(settings.maxAge)
    this.written = from.predecessor?.head ?? start
    this.fileNumber = from.predecessor?.file ?? -1
    this.firstSeq = this.written.seq + 1
    this.lost = from.lost
    this.beganAt = now()
  }

  private attempt<A>(run: () => Promise<A>): Effect.Effect<A, AuditError> {
    return Effect.tryPromise({ try: run, catch: failedAt(this.options.settings.path) })
  }

  private header(fields: Omit<Header2, "version" | "log" | "flushWindowMillis">): Content {
    const { log, settings } = this.options
    const flushWindowMillis = Duration.toMillis(settings.flushWindow)
    return { header: { version: 2, log, flushWindowMillis, ...fields } }
  }

  /** Begins the first file. */
  get begin(): Effect.Effect<void, AuditError> {
    return Effect.suspend(() => {
      const { from, pending } = this.options
      const { begins, file, lost, predecessor } = from
      const before =
        predecessor === undefined
          ? undefined
          : { predecessor: { file: predecessor.file, ...predecessor.head, state: predecessor.state } }
      pending.chain.goOn(this.written)
      pending.chain.beginFile(file, this.header({ file, begins, ...before, ...(lost && { lost }) }))
      this.queue.push(pending.chain.take(false))
      return this.drain
    })
  }

  /** Writes everything that waits. */
  get flush(): Effect.Effect<void, AuditError> {
    return Effect.gen(this, function* () {
      yield* this.drain
      const before = this.fileNumber
      this.seal()
      yield* this.drain
      const { maxAge, maxTotalSize } = this.options.settings
      const isRetiring = maxAge !== undefined || maxTotalSize !== Number.MAX_SAFE_INTEGER
      if (isRetiring && this.fileNumber !== before) yield* this.retire
    })
  }

  /** Writes the end of the log. */
  get end(): Effect.Effect<void, AuditError> {
    return Effect.suspend(() => {
      const { pending } = this.options
      pending.collect(true)
      pending.chain.addContent({ end: { state: "Closed" } })
      pending.sign()
      this.queue.push(pending.chain.take(false))
      return this.drain
    })
  }

  /** Makes a batch of what waits; when the file is full with it, another of the header of the next file. */
  private seal(): void {
    const { now, pending, settings, store } = this.options
    const { chain } = pending
    pending.collect(false)
    const isFull = isFileFull(settings, { size: store.size, ageMillis: now() - this.beganAt }, chain)
    if (isFull) chain.addContent({ end: { state: "Rotated" } })
    if (isFull || pending.isCheckpointDue) pending.sign()
    if (chain.isEmpty) return
    const begins = chain.isSetBack ? "ClockSetBack" : "Rotated"
    this.queue.push(chain.take(isFull))
    if (!isFull) return
    const file = this.fileNumber + 1
    const predecessor = { file: this.fileNumber, ...chain.head, state: "Rotated" } as const
    chain.beginFile(file, this.header({ file, begins, predecessor }))
    this.queue.push(chain.take(false))
  }

  private get drain(): Effect.Effect<void, AuditError> {
    return Effect.gen(this, function* () {
      const { store } = this.options
      while (this.queue.length > 0) {
        const displaced = yield* this.attempt(() => store.displaced())
        if (displaced !== undefined) yield* this.moveOn(displaced)
        const [batch] = this.queue
        if (batch === undefined) return
        yield* Effect.tapError(
          this.attempt(() => store.append(batch.bytes, this.written.seq)),
          () => Effect.promise(() => store.takeBack())
        )
        this.wrote(batch)
        if (batch.isLast) yield* this.attempt(() => store.fill(this.written.seq))
      }
    })
  }

  private wrote(batch: Batch): void {
    const { log, now, onCheckpoint, pending } = this.options
    this.queue.shift()
    if (batch.begins !== undefined) {
      this.fileNumber = batch.begins
      this.firstSeq = this.written.seq + 1
      this.beganAt = now()
      this.lost = undefined
    }
    this.written = batch.head
    pending.count -= batch.events
    pending.chain.giveBack(batch)
    for (const { line, seq } of batch.checkpoints) onCheckpoint({ log, file: this.fileNumber, seq, line })
  }

  /** The file is no longer the one with the name: another goes on with the chain, and says what is lost. */
  private moveOn(why: Displaced): Effect.Effect<void> {
    const { pending, settings, store } = this.options
    const { written } = this
    const from = this.lost?.from ?? this.firstSeq
    if (written.seq >= from) this.lost = { from, to: written.seq }
    const { lost } = this
    const file = this.fileNumber + 1
    const predecessor = { file: this.fileNumber, ...written, state: stateOf[why] }
    const header = this.header({ file, begins: why, predecessor, ...(lost && { lost }) })
    pending.chain.follow(written, this.queue, file, header)
    this.queue = [pending.chain.take(false)]
    return Effect.zipRight(
      Effect.promise(() => store.leave()),
      Effect.logError("the audit file was deleted, replaced or cut short, a new one is begun", {
        path: settings.path,
        lost
      })
    )
  }

  /** Removes full files that are too old or too much, after it is on record that they are. */
  private get retire(): Effect.Effect<void, AuditError> {
    return Effect.gen(this, function* () {
      const { log, now, pending, settings, store } = this.options
      const limits = { maxTotalSize: settings.maxTotalSize, maxAgeMillis: this.maxAgeMillis }
      const old = yield* this.attempt(() =>
        outdated(settings.path, log, { ...limits, now: now(), liveSize: store.size })
      )
      if (old === undefined) return
      pending.chain.addContent({ retired: old.retired })
      pending.sign()
      this.queue.push(pending.chain.take(false))
      yield* this.drain
      yield* this.attempt(() => removeAll(old.paths))
    })
  }
}
