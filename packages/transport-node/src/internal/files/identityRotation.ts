import { forkScoped } from "@agentweave/spiffe/Background"
import { IdentityError } from "@agentweave/spiffe/IdentityError"
import { makeReporter } from "@agentweave/spiffe/IdentityProblem"
import { IdentityProvider, until } from "@agentweave/spiffe/IdentityProvider"
import * as PeerVerifier from "@agentweave/spiffe/PeerVerifier"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { IdentityFileEvent } from "../../IdentityFileEvent.js"
import * as Problems from "./fileProblems.js"
import * as Watch from "./fileWatch.js"
import type { IdentityFiles } from "./identityFiles.js"
import { type Fault, makeParser, type Parser, pathsOf, prepareBundles, reconcileParts, type Sources } from "./parts.js"
import { readSnapshot, type Snapshot } from "./snapshot.js"

export interface Settings {
  readonly sources: Sources
  readonly debounce: Duration.Duration
  readonly pollInterval: Duration.Duration
  readonly onEvent: (event: IdentityFileEvent) => Effect.Effect<void>
}

/** How often a changing set of files is waited for before it is taken as it is. */
const maxSettles = 10

/** One read: the identity, or the first fault. */
export const readOnce = Effect.fnUntraced(function* (
  files: IdentityFiles,
  sources: Sources
): Effect.fn.Return<X509Context, IdentityError> {
  const snapshot = yield* readSnapshot(files, pathsOf(sources))
  const judges = { parser: makeParser(), verifier: PeerVerifier.make() }
  yield* prepareBundles({ sources, snapshot, last: undefined, parser: judges.parser })
  return yield* first(sources, snapshot, judges, yield* Clock.currentTimeMillis)
})

/** State that outlives one look at the files. */
interface Judges {
  readonly parser: Parser
  readonly verifier: PeerVerifier.PeerVerifier
}

const first = (
  sources: Sources,
  snapshot: Snapshot,
  judges: Judges,
  now: number
): Either.Either<X509Context, IdentityError> => {
  const { context, faults } = reconcileParts({ sources, snapshot, last: undefined, now, ...judges })
  const fault = faults.find(({ isPartial }) => !isPartial)
  if (fault !== undefined) return Either.left(fault.error)
  return context === undefined
    ? Either.left(
        new IdentityError({ reason: "Unavailable", description: "expected an identity, the files hold none" })
      )
    : Either.right(context)
}

const loaded = ({ bundles, svid }: X509Context): IdentityFileEvent => ({
  _tag: "IdentityLoaded",
  spiffeId: svid.spiffeId,
  serialNumber: svid.serialNumber,
  fingerprint: svid.fingerprint,
  notAfter: svid.notAfter,
  bundleGeneration: bundles.generation
})

const isWarning = (event: IdentityFileEvent): boolean =>
  event._tag === "IdentityRejected" || event._tag === "WatchFailed" || event._tag === "KeyExposed"

/** Logs an event and hands it to the caller's hook, whose defects do not stop the rotation. */
const reporter =
  (onEvent: Settings["onEvent"]) =>
  (event: IdentityFileEvent): Effect.Effect<void> => {
    const { _tag, ...fields } = event
    return Effect.zipRight(
      Effect.annotateLogs(isWarning(event) ? Effect.logWarning(_tag) : Effect.logInfo(_tag), fields),
      Effect.catchAllCause(
        Effect.suspend(() => onEvent(event)),
        (cause) => Effect.logWarning("the onEvent hook of an identity failed", cause)
      )
    )
  }

const expired = ({ svid }: X509Context): IdentityError =>
  new IdentityError({
    reason: "Expired",
    description: `expected an SVID for ${svid.spiffeId} that is valid now, the newest one ended at ${new Date(svid.notAfter).toISOString()}`
  })

/** Fails at once when the identity has expired and no successor came. */
const unlessExpired = (context: X509Context): Effect.Effect<X509Context, IdentityError> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) =>
    now > context.svid.notAfter ? expired(context) : Effect.succeed(context)
  )

/**
 * The identity in files, kept current. A change is noticed by the watcher, or else by the poll; it is taken once two reads
 * a debounce apart found the same, so that a file being written in place is not taken for a short one.
 */
export const make = Effect.fnUntraced(function* (
  files: IdentityFiles,
  settings: Settings
): Effect.fn.Return<Context.Tag.Service<IdentityProvider>, IdentityError, Scope.Scope> {
  const { debounce, pollInterval, sources } = settings
  const report = reporter(settings.onEvent)
  const { problems, report: publish } = yield* makeReporter
  const judges = { parser: makeParser(), verifier: PeerVerifier.make() }
  const read = readSnapshot(files, pathsOf(sources))

  const wakes = yield* Queue.sliding<void>(1)
  const watch = yield* Watch.make(files, () => wakes.unsafeOffer(undefined))

  const snapshot = yield* read
  yield* prepareBundles({ sources, snapshot, last: undefined, parser: judges.parser })
  const context = yield* first(sources, snapshot, judges, yield* Clock.currentTimeMillis)
  const current = yield* SubscriptionRef.make(context)
  let seen: Snapshot = snapshot
  let faults: ReadonlyArray<Fault> = []
  let unwatched: ReadonlyMap<string, string> = new Map()
  let exposed = false

  const reportWatch = Effect.fnUntraced(function* () {
    const failed = yield* watch.retarget(seen.watched)
    const before = unwatched
    unwatched = failed
    for (const [directory, code] of failed) {
      if (before.get(directory) === code) continue
      yield* publish(Problems.ofWatch(directory, code))
      yield* report({ _tag: "WatchFailed", directory, code })
    }
  })

  const reportExposure = Effect.fnUntraced(function* () {
    const before = exposed
    const content = seen.files.get(sources.key)?.content
    exposed = content !== undefined && Either.isRight(content) && content.right.worldReadable
    if (!exposed || before) return
    yield* publish(Problems.ofExposure(sources.key))
    yield* report({ _tag: "KeyExposed", path: sources.key })
  })

  const reportFaults = Effect.fnUntraced(function* (next: ReadonlyArray<Fault>, serving: X509Context) {
    const before = faults
    faults = next
    for (const fault of next) {
      const { error, key } = fault
      if (before.some((other) => other.key === key)) continue
      yield* publish(Problems.ofFault(fault))
      yield* report({ _tag: "IdentityRejected", reason: error.reason, description: error.description })
    }
    if (before.length > 0 && next.length === 0) {
      yield* report({ _tag: "IdentityRecovered", spiffeId: serving.svid.spiffeId })
    }
  })

  /** The files as they are now, or after a change as they are once they rest. */
  const settled = Effect.fnUntraced(function* () {
    let found = yield* read
    for (let settles = 0; found.digest !== seen.digest && settles < maxSettles; settles++) {
      yield* Effect.sleep(debounce)
      const again = yield* read
      if (again.digest === found.digest) return again
      found = again
    }
    return found
  })

  const round = Effect.fnUntraced(function* () {
    seen = yield* settled()
    const last = yield* SubscriptionRef.get(current)
    yield* prepareBundles({ sources, snapshot: seen, last, parser: judges.parser })
    const now = yield* Clock.currentTimeMillis
    const reconciled = reconcileParts({ sources, snapshot: seen, last, now, ...judges })
    const next = reconciled.context ?? last
    if (next !== last) {
      yield* SubscriptionRef.set(current, next)
      yield* report(loaded(next))
    }
    yield* reportFaults(reconciled.faults, next)
    yield* reportExposure()
    yield* reportWatch()
  })

  yield* report(loaded(context))
  const begun = reconcileParts({ sources, snapshot, last: context, now: yield* Clock.currentTimeMillis, ...judges })
  yield* reportFaults(begun.faults, context)
  yield* reportExposure()
  yield* reportWatch()
  yield* Queue.take(wakes).pipe(
    Effect.timeoutOption(pollInterval),
    Effect.zipRight(round()),
    Effect.forever,
    forkScoped
  )
  const closed = yield* Deferred.make<void>()
  yield* Effect.addFinalizer(() => Deferred.succeed(closed, undefined))

  const x509Context = Effect.flatMap(SubscriptionRef.get(current), unlessExpired)
  return until(IdentityProvider.of({ x509Context, changes: current.changes, problems }), closed)
})
