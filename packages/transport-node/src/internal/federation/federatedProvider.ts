import type { IdentityProblem } from "@agentweave/spiffe/IdentityProblem"
import { IdentityProvider, problems, until } from "@agentweave/spiffe/IdentityProvider"
import * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import type { TrustDomain } from "@agentweave/spiffe/TrustDomain"
import type { X509Bundle } from "@agentweave/spiffe/X509Bundle"
import * as X509BundleSet from "@agentweave/spiffe/X509BundleSet"
import * as X509Context from "@agentweave/spiffe/X509Context"
import type * as Context from "effect/Context"
import type * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import type * as SubscriptionRef from "effect/SubscriptionRef"

/** One bundle a trust domain. */
export type Federated = ReadonlyMap<TrustDomain, X509Bundle>

/** The trust domains we are members of: nobody else says what their bundles are. */
export const ownDomains = (context: X509Context.X509Context): ReadonlySet<TrustDomain> =>
  new Set(context.svids.map(({ spiffeId }) => SpiffeId.trustDomain(spiffeId)))

const combine = (context: X509Context.X509Context, federated: Federated): X509Context.X509Context => {
  const own = ownDomains(context)
  const bundles = new Map(context.bundles.bundles)
  for (const [domain, bundle] of federated) {
    if (!own.has(domain)) bundles.set(domain, bundle)
  }
  // A map has one bundle a trust domain, so that there is always a set.
  const set = Either.getOrElse(X509BundleSet.make(bundles.values()), () => context.bundles)
  if (set.generation === context.bundles.generation) return context
  const [svid, ...others] = context.svids
  return X509Context.make({ svid, others, bundles: set })
}

/** {@link combine}, with the very same snapshot for the same arguments. */
const makeCombine = (): typeof combine => {
  const known = new WeakMap<
    X509Context.X509Context,
    { readonly federated: Federated; readonly made: X509Context.X509Context }
  >()
  return (context, federated) => {
    const last = known.get(context)
    if (last?.federated === federated) return last.made
    const made = combine(context, federated)
    known.set(context, { federated, made })
    return made
  }
}

/**
 * A provider whose snapshots have the federated bundles too, each in place of another the provider has for its domain. It
 * tells the problems of both, and ends once it is closed.
 */
export const withFederated = (
  inner: Context.Tag.Service<IdentityProvider>,
  federated: SubscriptionRef.SubscriptionRef<Federated>,
  own: Stream.Stream<IdentityProblem>,
  closed: Deferred.Deferred<void>
): Context.Tag.Service<IdentityProvider> => {
  const together = makeCombine()
  const open = IdentityProvider.of({
    x509Context: Effect.zipWith(inner.x509Context, federated.get, together),
    changes: Stream.zipLatestWith(inner.changes, federated.changes, together).pipe(
      Stream.changesWith((before, after) => before === after)
    ),
    problems: Stream.interruptWhenDeferred(Stream.merge(problems(inner), own), closed)
  })
  return until(open, closed)
}
