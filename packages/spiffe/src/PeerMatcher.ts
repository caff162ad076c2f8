/**
 * Which peers are acceptable, as a value. There is no matcher that accepts everyone, and no way to write one.
 *
 * @since 0.1.0
 */
import { dual } from "effect/Function"
import * as SpiffeId from "./SpiffeId.js"
import type { TrustDomain } from "./TrustDomain.js"

/**
 * A closed description of acceptable SPIFFE IDs: data, so that it can be compared, logged and explained.
 *
 * @since 0.1.0
 * @category models
 */
export type PeerMatcher = Exactly | OneOf | MemberOf | And

/**
 * @since 0.1.0
 * @category models
 */
export interface Exactly {
  readonly _tag: "Exactly"
  readonly id: SpiffeId.SpiffeId
}

/**
 * @since 0.1.0
 * @category models
 */
export interface OneOf {
  readonly _tag: "OneOf"
  readonly ids: ReadonlyArray<SpiffeId.SpiffeId>
}

/**
 * @since 0.1.0
 * @category models
 */
export interface MemberOf {
  readonly _tag: "MemberOf"
  readonly trustDomain: TrustDomain
}

/**
 * @since 0.1.0
 * @category models
 */
export interface And {
  readonly _tag: "And"
  readonly left: PeerMatcher
  readonly right: PeerMatcher
}

/**
 * Accepts one ID.
 *
 * @since 0.1.0
 * @category constructors
 */
export const exactly = (id: SpiffeId.SpiffeId): PeerMatcher => ({ _tag: "Exactly", id })

/**
 * Accepts the IDs listed; an empty list accepts nobody.
 *
 * @since 0.1.0
 * @category constructors
 */
export const oneOf = (ids: Iterable<SpiffeId.SpiffeId>): PeerMatcher => ({ _tag: "OneOf", ids: Array.from(ids) })

/**
 * Accepts every workload of one trust domain.
 *
 * @since 0.1.0
 * @category constructors
 */
export const memberOf = (trustDomain: TrustDomain): PeerMatcher => ({ _tag: "MemberOf", trustDomain })

/**
 * Accepts what both matchers accept.
 *
 * @since 0.1.0
 * @category combinators
 */
export const and: {
  (that: PeerMatcher): (self: PeerMatcher) => PeerMatcher
  (self: PeerMatcher, that: PeerMatcher): PeerMatcher
} = dual(2, (left: PeerMatcher, right: PeerMatcher): PeerMatcher => ({ _tag: "And", left, right }))

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
  }
})

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
  }
}

/**
 * The matcher as a person reads it: `spiffe://a/x`, `one of (…)`, `any workload of a`, `(…) and (…)`.
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
  }
}
