/**
 * The audit log that `layerFile` of `NodeAuditLog` describes: when it writes, and what it answers to those that record.
 */
import { randomBytes } from "node:crypto"
import { open, statfs } from "node:fs/promises"
import { dirname } from "node:path"
import { forkScoped } from "@agentweave/spiffe/Background"
import { forEachChange, IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import type { InvalidConfigError } from "@agentweave/spiffe/InvalidConfigError"
import { type AuditEvent, isRequest } from "@agentweave/transport/AuditEvent"
import { AuditError, type AuditLog } from "@agentweave/transport/AuditLog"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Options } from "../../NodeAuditLog.js"
import * as anchoring from "./anchoring.js"
import { decode, type Settings } from "./auditOptions.js"
import type { Open } from "./files.js"
import * as lock from "./lock.js"
import { findOrigin } from "./origin.js"
import { failedAt, Output } from "./output.js"
import { Pending } from "./pending.js"
import { Store } from "./store.js"
import type { Svids } from "./svids.js"

/** From this many events on, writing does not wait for the window to pass. */
const batchSize = 1024

/** How long the last checkpoint waits for an identity: the end of the log waits behind it. */
const signTimeout = Duration.seconds(1)

/** How often the lock and the space on the disk are looked at, at most, in milliseconds. */
const lookEvery = 1_000

/** The blocks of a volume: their size in bytes, how many there are, and how many are free for this user. */
export interface Space {
  readonly bsize: number
  readonly blocks: number
  readonly bavail: number
}

/** Tells the space of the volume that a folder is on. */
export type SpaceOf = (folder: string) => Promise<Space>

/** Where the log is written: whether that is still ours, and how much space is left. */
class Place {
  isScarce = false
  private readonly settings: Settings
  private readonly heldLock: lock.HeldLock
  private readonly now: () => number
  private readonly spaceOf: SpaceOf
  private lookedAt = Number.NEGATIVE_INFINITY

  constructor(settings: Settings, heldLock: lock.HeldLock, now: () => number, spaceOf: SpaceOf) {
    this.spaceOf = spaceOf
    this.settings = settings
    this.heldLock = heldLock
    this.now = now
  }

  get look(): Effect.Effect<void, AuditError> {
    return Effect.gen(this, function* () {
      const since = this.now() - this.lookedAt
      if (since >= 0 && since < lookEvery) return
      const { path, reservedSpace } = this.settings
      if (!(yield* Effect.promise(() => this.heldLock.isHeld()))) {
        return yield* failedAt(path)(new Error("another process took the lock beside it"))
      }
      const space = yield* Effect.option(Effect.tryPromise(() => this.spaceOf(dirname(path))))
      // Where it cannot be told there is enough. Of a small volume no more than a twentieth is reserved.
      this.isScarce = Option.exists(
        space,
        ({ bavail, blocks, bsize }) => bavail * bsize < Math.min(reservedSpace, (blocks * bsize) / 20)
      )
      this.lookedAt = this.now()
    })
  }
}

type Identity = IdentityProvider["Type"]

/** Keeps the SVIDs to sign with; `onRotation` is called when another one takes the place of one that was used. */
const watchSvids = (identity: Identity, svids: Svids, onRotation: () => void) => {
  const changes = Stream.tapError(identity.changes, ({ reason }) =>
    Effect.sync(() => {
      if (reason === "Withdrawn") svids.withdraw()
    })
  )
  return forEachChange({ changes }, ({ svid }) =>
    Effect.sync(() => {
      if (svids.add(svid)) onRotation()
    })
  )
}

/** Waits for an identity to sign the end with, but not for long. */
const newestSvid = (identity: Identity, svids: Svids): Effect.Effect<void> =>
  Effect.timeoutOption(Effect.interruptible(identity.x509Context), signTimeout).pipe(
    Effect.matchEffect({
      onFailure: ({ reason }) => Effect.sync(() => (reason === "Withdrawn" ? svids.withdraw() : undefined)),
      onSuccess: (context) => Effect.sync(() => Option.map(context, ({ svid }) => svids.add(svid)))
    }),
    Effect.asVoid
  )

export const make = Effect.fnUntraced(function* (
  options: Options,
  openFile: Open = open,
  spaceOf: SpaceOf = statfs
): Effect.fn.Return<AuditLog["Type"], AuditError | InvalidConfigError, IdentityProvider | Scope.Scope> {
  const settings = yield* decode(options)
  const { maxPending, path } = settings
  const clock = yield* Effect.clock
  const now = () => clock.unsafeCurrentTimeMillis()
  const identity = yield* IdentityProvider
  const place = new Place(settings, yield* lock.acquire(path), now, spaceOf)
  const anchor = yield* anchoring.make
  const from = anchoring.apply(yield* findOrigin(path), yield* anchor.latest)
  const log = from.predecessor?.log ?? randomBytes(16).toString("hex")
  const store = new Store(path, openFile)
  const pending = new Pending(settings, now)
  const output = new Output({ settings, log, from, store, pending, now, onCheckpoint: anchor.unsafeOffer })

  /** Something waits: the window has begun. */
  const filled = yield* Effect.makeLatch(false)
  /** The window is over, or there is much to write. */
  const due = yield* Effect.makeLatch(false)
  let failure: AuditError | undefined
  let isClosed = false

  const flush = Effect.suspend(() => {
    due.unsafeClose()
    return Effect.zipRight(place.look, output.flush)
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

  yield* place.look
  yield* output.begin
  yield* forkScoped(
    watchSvids(identity, pending.svids, () => {
      if (pending.chain.unsigned === 0) return
      // Records until now are signed with the SVID that was in use.
      pending.signsSoon = true
      due.unsafeOpen()
    })
  )
  // Before the fiber that writes, so that it runs after that fiber has ended: they never write at once.
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      isClosed = true
      return output.flush
    }).pipe(
      Effect.zipRight(newestSvid(identity, pending.svids)),
      Effect.zipRight(output.end),
      Effect.zipRight(anchor.close),
      Effect.catchAll((error) => Effect.logError("the audit file could not be closed in order", error)),
      Effect.zipRight(Effect.ignore(Effect.tryPromise(() => store.close())))
    )
  )
  yield* anchor.run(() => store.sync())
  yield* forkScoped(Effect.forever(Effect.zipRight(due.await, flushAndNote)))
  // A fiber of its own: a race with the window for each batch would cost as much as writing it.
  yield* filled.await.pipe(
    Effect.zipRight(Effect.sleep(settings.flushWindow)),
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
    // Counted whatever becomes of it: what has already happened cannot be refused any more.
    pending.drop(event)
    if (!isClosed) filled.unsafeOpen()
    const policy = isRequest(event) ? settings.whenFullOfRequests : settings.whenFull
    if (policy === "DropAndCount" && !isClosed) return undefined
    if (failure !== undefined) return failure
    return isClosed
      ? new AuditError({ reason: "Closed", description: `expected an open audit file, ${path} is closed` })
      : new AuditError({
          reason: "Full",
          description: `expected room for an event, ${maxPending} wait to be written to ${path}`
        })
  }

  return {
    unsafeRecord: (event) => {
      if (isClosed || failure !== undefined || pending.count >= maxPending) return refuse(event)
      const before = pending.count
      pending.take(event, place.isScarce)
      if (before === 0) filled.unsafeOpen()
      else if (before < batchSize && pending.count >= batchSize) due.unsafeOpen()
      return undefined
    }
  }
})
