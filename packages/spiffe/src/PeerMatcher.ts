/**
 * Which peers are acceptable, as a value. There is no matcher that accepts everyone, and no way to write one.
 *
 * @since 0.1.0
 */
import { dual } from "effect/Function"
import { hasProperty } from "effect/Predicate"
import * as SpiffeId from "./SpiffeId.js"
import { isTrustDomain, type TrustDomain } from "./TrustDomain.js"

/**
 * A closed description of acceptable SPIFFE IDs: data, so that it can be compared, logged and explained.
 *
 * @since 0.1.0
 * @category models
 */
export type PeerMatcher = Exactly | OneOf | MemberOf | And | Or

/**
 * Accepts one SPIFFE ID.
 *
 * @since 0.1.0
 * @category models
 */
export interface Exactly {
  readonly _tag: "Exactly"
  readonly id: SpiffeId.SpiffeId
}

/**
 * Accepts each SPIFFE ID of a list.
 *
 * @since 0.1.0
 * @category models
 */
export interface OneOf {
  readonly _tag: "OneOf"
  readonly ids: ReadonlyArray<SpiffeId.SpiffeId>
}

/**
 * Accepts every SPIFFE ID of a trust domain.
 *
 * @since 0.1.0
 * @category models
 */
export interface MemberOf {
  readonly _tag: "MemberOf"
  readonly trustDomain: TrustDomain
}

/**
 * Accepts a SPIFFE ID that all of its matchers accept.
 *
 * @since 0.1.0
 * @category models
 */
export interface And {
  readonly _tag: "And"
  readonly left: PeerMatcher
  readonly right: PeerMatcher
}

/**
 * Accepts a SPIFFE ID that at least one of its matchers accepts.
 *
 * @since 0.1.0
 * @category models
 */
export interface Or {
  readonly _tag: "Or"
  readonly left: PeerMatcher
  readonly right: PeerMatcher
}

/**
 * Accepts one ID.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { PeerMatcher, SpiffeId } from "@agentweave/spiffe"
 *
 * const billing = PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/billing"))
 * console.log(PeerMatcher.matches(billing, SpiffeId.make("spiffe://example.org/search"))) // false
 * ```
 */
export const exactly = (id: SpiffeId.SpiffeId): PeerMatcher => ({ _tag: "Exactly", id })

/**
 * Accepts the IDs listed; an empty list accepts nobody.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { PeerMatcher, SpiffeId } from "@agentweave/spiffe"
 *
 * const frontends = PeerMatcher.oneOf([
 *   SpiffeId.make("spiffe://example.org/web"),
 *   SpiffeId.make("spiffe://example.org/mobile-gateway")
 * ])
 * ```
 */
export const oneOf = (ids: Iterable<SpiffeId.SpiffeId>): PeerMatcher => ({ _tag: "OneOf", ids: Array.from(ids) })

/**
 * Accepts every workload of one trust domain.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { PeerMatcher, SpiffeId, TrustDomain } from "@agentweave/spiffe"
 *
 * const partner = PeerMatcher.memberOf(TrustDomain.make("partner.example"))
 * console.log(PeerMatcher.matches(partner, SpiffeId.make("spiffe://partner.example/any/path"))) // true
 * ```
 */
export const memberOf = (trustDomain: TrustDomain): PeerMatcher => ({ _tag: "MemberOf", trustDomain })

/**
 * Accepts what both matchers accept.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { PeerMatcher, type SpiffeId, TrustDomain } from "@agentweave/spiffe"
 * import { pipe } from "effect"
 *
 * // A list that others write: of its IDs only those of our own trust domain are accepted.
 * const callers = (listed: ReadonlyArray<SpiffeId.SpiffeId>) =>
 *   pipe(PeerMatcher.oneOf(listed), PeerMatcher.and(PeerMatcher.memberOf(TrustDomain.make("example.org"))))
 * ```
 */
export const and: {
  (that: PeerMatcher): (self: PeerMatcher) => PeerMatcher
  (self: PeerMatcher, that: PeerMatcher): PeerMatcher
} = dual(2, (left: PeerMatcher, right: PeerMatcher): PeerMatcher => ({ _tag: "And", left, right }))

/**
 * Accepts what either matcher accepts.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { PeerMatcher, SpiffeId, TrustDomain } from "@agentweave/spiffe"
 *
 * const callers = PeerMatcher.or(
 *   PeerMatcher.memberOf(TrustDomain.make("example.org")),
 *   PeerMatcher.exactly(SpiffeId.make("spiffe://partner.test/web"))
 * )
 * ```
 */
export const or: {
  (that: PeerMatcher): (self: PeerMatcher) => PeerMatcher
  (self: PeerMatcher, that: PeerMatcher): PeerMatcher
} = dual(2, (left: PeerMatcher, right: PeerMatcher): PeerMatcher => ({ _tag: "Or", left, right }))

/**
 * Whether an ID is acceptable. IDs are compared byte by byte (SPIFFE-ID section 2: case-sensitive, no normalisation).
 *
 * @since 0.1.0
 * @category getters
 */
export const matches: {
  (id: SpiffeId.SpiffeId): (self: PeerMatcher) => boolean
  (self: PeerMatcher, id: SpiffeId.SpiffeId): boolean
} = dual(2, (self: PeerMatcher, id: SpiffeId.SpiffeId): boolean => {
  switch (self._tag) {
    case "Exactly":
      return self.id === id
    case "OneOf":
      return self.ids.includes(id)
    case "MemberOf":
      return SpiffeId.trustDomain(id) === self.trustDomain
    case "And":
      return matches(self.left, id) && matches(self.right, id)
    case "Or":
      return matches(self.left, id) || matches(self.right, id)
  }
})

/**
 * The IDs a matcher names and accepts, each once: all that it accepts, unless a {@link MemberOf} in it accepts others too.
 *
 * @since 0.1.0
 * @category getters
 */
export const ids = (self: PeerMatcher): ReadonlyArray<SpiffeId.SpiffeId> =>
  Array.from(new Set(named(self))).filter((id) => matches(self, id))

const named = (self: PeerMatcher): ReadonlyArray<SpiffeId.SpiffeId> => {
  switch (self._tag) {
    case "Exactly":
      return [self.id]
    case "OneOf":
      return self.ids
    case "MemberOf":
      return []
    case "And":
    case "Or":
      return [...named(self.left), ...named(self.right)]
  }
}

/**
 * The trust domains an acceptable peer can come from: what a client may limit its TLS trust anchors to.
 *
 * @since 0.1.0
 * @category getters
 */
export const trustDomains = (self: PeerMatcher): ReadonlySet<TrustDomain> => {
  switch (self._tag) {
    case "Exactly":
      return new Set([SpiffeId.trustDomain(self.id)])
    case "OneOf":
      return new Set(self.ids.map(SpiffeId.trustDomain))
    case "MemberOf":
      return new Set([self.trustDomain])
    case "And": {
      const right = trustDomains(self.right)
      return new Set(Array.from(trustDomains(self.left)).filter((domain) => right.has(domain)))
    }
    case "Or":
      return new Set([...trustDomains(self.left), ...trustDomains(self.right)])
  }
}

/**
 * The matcher as a person reads it: `spiffe://a/x`, `one of (…)`, `any workload of a`, `(…) and (…)`,
 * `(…) or (…)`. Two matchers with one description accept the same peers.
 *
 * @since 0.1.0
 * @category getters
 */
export const describe = (self: PeerMatcher): string => {
  switch (self._tag) {
    case "Exactly":
      return self.id
    case "OneOf":
      return `one of (${self.ids.join(", ")})`
    case "MemberOf":
      return `any workload of ${self.trustDomain}`
    case "And":
      return `(${describe(self.left)}) and (${describe(self.right)})`
    case "Or":
      return `(${describe(self.left)}) or (${describe(self.right)})`
  }
}

/**
 * Whether a value is a matcher through and through, with IDs and trust domains that keep their grammar.
 *
 * @since 0.1.0
 * @category guards
 */
export const isPeerMatcher = (u: unknown): u is PeerMatcher => {
  if (!hasProperty(u, "_tag")) return false
  switch (u._tag) {
    case "Exactly":
      return hasProperty(u, "id") && SpiffeId.isSpiffeId(u.id)
    case "OneOf":
      return hasProperty(u, "ids") && Array.isArray(u.ids) && u.ids.every(SpiffeId.isSpiffeId)
    case "MemberOf":
      return hasProperty(u, "trustDomain") && isTrustDomain(u.trustDomain)
    case "And":
    case "Or":
      return hasProperty(u, "left") && isPeerMatcher(u.left) && hasProperty(u, "right") && isPeerMatcher(u.right)
    default:
      return false
  }
}
