/**
 * One bundle a trust domain; bundles are never merged (SPIFFE_Federation).
 *
 * @since 0.1.0
 */
import * as Either from "effect/Either"
import { dual } from "effect/Function"
import * as Option from "effect/Option"
import { IdentityError } from "./IdentityError.js"
import { sha256OfSet } from "./internal/digest.js"
import type { TrustDomain } from "./TrustDomain.js"
import type { X509Bundle } from "./X509Bundle.js"

/**
 * The bundles a workload trusts, one a trust domain.
 *
 * @since 0.1.0
 * @category models
 */
export interface X509BundleSet {
  readonly bundles: ReadonlyMap<TrustDomain, X509Bundle>
  /** A digest over all bundles' generations, lower-case hex. */
  readonly generation: string
}

const build = (bundles: ReadonlyMap<TrustDomain, X509Bundle>): X509BundleSet => ({
  bundles,
  generation: sha256OfSet(Array.from(bundles.values(), (bundle) => `${bundle.trustDomain} ${bundle.generation}`))
})

/**
 * A set of bundles. Two bundles for one trust domain are an `IdentityError` `Malformed`: merging them would let one
 * source of trust add authorities to another's domain.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { type X509Bundle, X509BundleSet } from "@agentweave/spiffe"
 * import { Either } from "effect"
 *
 * const bundlesOf = (own: X509Bundle.X509Bundle, federated: Iterable<X509Bundle.X509Bundle>) =>
 *   X509BundleSet.make([own, ...federated]).pipe(Either.getOrElse(() => X509BundleSet.of(own)))
 * ```
 */
export const make = (bundles: Iterable<X509Bundle>): Either.Either<X509BundleSet, IdentityError> => {
  const byDomain = new Map<TrustDomain, X509Bundle>()
  for (const bundle of bundles) {
    if (byDomain.has(bundle.trustDomain)) {
      return Either.left(
        new IdentityError({
          reason: "Malformed",
          description: `expected one bundle a trust domain, got two for ${bundle.trustDomain}`
        })
      )
    }
    byDomain.set(bundle.trustDomain, bundle)
  }
  return Either.right(build(byDomain))
}

/**
 * {@link make} of the arguments.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { TrustDomain, X509Bundle, X509BundleSet } from "@agentweave/spiffe"
 * import { Either } from "effect"
 *
 * const domain = TrustDomain.make("example.org")
 * const twice = X509BundleSet.fromBundles(X509Bundle.empty(domain), X509Bundle.empty(domain))
 * console.log(Either.isLeft(twice)) // true: one bundle a trust domain
 * ```
 */
export const fromBundles = (...bundles: ReadonlyArray<X509Bundle>): Either.Either<X509BundleSet, IdentityError> =>
  make(bundles)

/**
 * A set of one bundle.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { TrustDomain, type X509Bundle, X509BundleSet } from "@agentweave/spiffe"
 *
 * const own = (bundle: X509Bundle.X509Bundle) => X509BundleSet.get(X509BundleSet.of(bundle), TrustDomain.make("example.org"))
 * ```
 */
export const of = (bundle: X509Bundle): X509BundleSet => build(new Map([[bundle.trustDomain, bundle]]))

/**
 * No bundle: no peer of any trust domain can be verified.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { TrustDomain, X509BundleSet } from "@agentweave/spiffe"
 * import { Option } from "effect"
 *
 * console.log(Option.isNone(X509BundleSet.get(X509BundleSet.empty, TrustDomain.make("example.org")))) // true
 * ```
 */
export const empty: X509BundleSet = build(new Map())

/**
 * The bundle of a trust domain.
 *
 * @since 0.1.0
 * @category getters
 */
export const get: {
  (trustDomain: TrustDomain): (self: X509BundleSet) => Option.Option<X509Bundle>
  (self: X509BundleSet, trustDomain: TrustDomain): Option.Option<X509Bundle>
} = dual(2, (self: X509BundleSet, trustDomain: TrustDomain) => Option.fromNullable(self.bundles.get(trustDomain)))
