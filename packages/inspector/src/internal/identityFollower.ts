/** The latest state of our own identity, kept so that a snapshot reads it and never waits for it. */
import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import * as IdentityProvider from "@agentweave/spiffe/IdentityProvider"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import type { AuditLog } from "@agentweave/transport/AuditLog"
import * as IdentityMonitor from "@agentweave/transport/IdentityMonitor"
import type { InvalidConfigError } from "@agentweave/transport/InvalidConfigError"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Snapshot from "../Snapshot.js"
import { boundedText } from "./boundedEvent.js"

const maxBundles = 64

type State = Either.Either<X509Context, IdentityError>

/** Field by field: the private key of an SVID is in none of them. */
const svidOf = ({ fingerprint, notAfter, notBefore, serialNumber, spiffeId }: X509Context["svid"]): Snapshot.Svid => ({
  spiffeId,
  serialNumber,
  fingerprint,
  notBefore,
  notAfter
})

const bundlesOf = ({ bundles }: X509Context): Snapshot.Identity["bundles"] =>
  Array.from(bundles.bundles.values())
    .slice(0, maxBundles)
    .map(({ authorities, generation, trustDomain }) => ({ trustDomain, generation, authorities: authorities.length }))

/** Follows the identity for as long as the scope lives; what becomes of it is put on record. */
export const follow: Effect.Effect<
  () => Omit<Snapshot.Identity, "history">,
  InvalidConfigError,
  IdentityProvider.IdentityProvider | AuditLog | Scope.Scope
> = Effect.gen(function* () {
  const monitor = yield* IdentityMonitor.make()
  const provider = yield* IdentityProvider.IdentityProvider
  let freshness: IdentityMonitor.Freshness = yield* monitor.freshness
  let state: State | undefined
  const fork = (stream: Stream.Stream<void>) => Effect.forkScoped(Effect.interruptible(Stream.runDrain(stream)))
  yield* fork(
    Stream.map(monitor.changes, (next) => {
      freshness = next
    })
  )
  yield* fork(
    Stream.map(IdentityProvider.states(provider), (next) => {
      state = next
    })
  )
  return () => {
    const context = state === undefined ? undefined : Either.getOrUndefined(state)
    const error = state !== undefined && Either.isLeft(state) ? state.left : undefined
    return {
      freshness,
      svid: context === undefined ? null : svidOf(context.svid),
      problem: error === undefined ? null : { reason: error.reason, description: boundedText(error.description) },
      bundles: context === undefined ? [] : bundlesOf(context)
    }
  }
})
