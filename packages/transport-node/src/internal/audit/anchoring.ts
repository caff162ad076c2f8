/** Asks the anchor of a log where the log was, and gives it each checkpoint. */

import { forkScoped } from "@agentweave/spiffe/Background"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import { type Anchored, AuditAnchor } from "../../AuditAnchor.js"
import { hashOf, type Range } from "./format.js"
import type { Origin } from "./origin.js"

/** How long the log waits for its anchor when it opens and when it closes. */
const anchorTimeout = "2 seconds"

/** Checkpoints that wait for an anchor that is slow; of more the oldest are left out, the newest says the most. */
const maxWaiting = 64

/** A checkpoint that is in the file. */
export interface Written {
  readonly log: string
  readonly file: number
  readonly seq: number
  readonly line: string
}

export interface Anchoring {
  /** The newest checkpoint that the anchor keeps, where there is an anchor, and it answers in time. */
  readonly latest: Effect.Effect<Option.Option<Anchored>>
  readonly unsafeOffer: (written: Written) => void
  /** Gives checkpoints to the anchor for as long as the scope is open, each after what it covers is on disk. */
  readonly run: (sync: () => Promise<void>) => Effect.Effect<void, never, Scope.Scope>
  /** Waits until the anchor has what was offered, but not for long. */
  readonly close: Effect.Effect<void>
}

const withoutAnchor: Anchoring = {
  latest: Effect.succeedNone,
  unsafeOffer: () => {},
  run: () => Effect.void,
  close: Effect.void
}

const anchoredOf = ({ file, line, log, seq }: Written): Anchored => ({
  log,
  file,
  seq,
  hash: hashOf(line),
  checkpoint: line
})

export const make: Effect.Effect<Anchoring> = Effect.gen(function* () {
  const service = yield* Effect.serviceOption(AuditAnchor)
  if (Option.isNone(service)) return withoutAnchor
  const anchor = service.value
  const waiting = yield* Queue.sliding<Written>(maxWaiting)
  let sync: () => Promise<void> = () => Promise.resolve()
  let isFailing = false
  const give = (written: Written): Effect.Effect<void> =>
    Effect.promise(() => sync().catch(() => {})).pipe(
      Effect.zipRight(anchor.store(anchoredOf(written))),
      Effect.matchEffect({
        onFailure: (error) => {
          const isFirst = !isFailing
          isFailing = true
          return isFirst ? Effect.logError("a checkpoint of the audit log could not be anchored", error) : Effect.void
        },
        onSuccess: () =>
          Effect.sync(() => {
            isFailing = false
          })
      })
    )
  const giveNext = Effect.uninterruptibleMask((restore) => Effect.flatMap(restore(Queue.take(waiting)), give))
  return {
    latest: Effect.timeoutOption(anchor.latest, anchorTimeout).pipe(
      Effect.map(Option.flatten),
      Effect.catchAll((error) =>
        Effect.as(Effect.logError("the anchor of the audit log does not answer", error), Option.none())
      )
    ),
    unsafeOffer: (written) => {
      Queue.unsafeOffer(waiting, written)
    },
    run: (how) =>
      Effect.suspend(() => {
        sync = how
        return Effect.asVoid(forkScoped(Effect.forever(giveNext)))
      }),
    close: Effect.flatMap(Queue.takeAll(waiting), (all) => Effect.forEach(all, give, { discard: true })).pipe(
      Effect.interruptible,
      Effect.timeoutOption(anchorTimeout),
      Effect.asVoid
    )
  }
})

/**
 * Where a log goes on, now that its anchor has said how far it was: when the files end before that, what is missing is on
 * record in the next header, and no number is used twice.
 */
export const apply = (
  origin: Origin,
  latest: Option.Option<Anchored>
): Origin & { readonly lost: Range | undefined } => {
  const { predecessor } = origin
  if (Option.isNone(latest)) return { ...origin, lost: undefined }
  const { file, hash, log, seq } = latest.value
  // Another log was anchored: verification with the anchor shows that.
  if (predecessor !== undefined && predecessor.log !== log) return { ...origin, lost: undefined }
  const last = predecessor?.head.seq ?? -1
  if (seq <= last) return { ...origin, lost: undefined }
  return {
    begins: predecessor === undefined || predecessor.file < file ? "PredecessorMissing" : "PredecessorCut",
    predecessor: { log, file, head: { seq, hash }, state: predecessor?.file === file ? "Cut" : "Missing" },
    file: file + 1,
    lost: { from: last + 1, to: seq }
  }
}
