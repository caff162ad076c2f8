/**
 * A straight answer to "why was this peer refused?": every rule in order, with what was expected and what was seen.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { explainAt } from "./internal/gate/explain.js"
import type { PeerMatcher } from "./PeerMatcher.js"
import type { PeerVerificationReason } from "./PeerVerificationError.js"
import type { Purpose } from "./PeerVerifier.js"
import type { X509BundleSet } from "./X509BundleSet.js"

/**
 * One rule, applied to one subject (the chain, the leaf, an issuer, the ID).
 *
 * - `Held`: seen as expected.
 * - `Broken`: not as expected. The first one is what the peer was refused for; the leaf's rules are all looked at.
 * - `NotReached`: what it looks at was not known, because a rule before it was broken.
 *
 * @since 0.1.0
 * @category models
 */
export interface Step {
  readonly rule: string
  readonly subject: string
  readonly status: "Held" | "Broken" | "NotReached"
  readonly expected: string
  readonly seen: string
}

/**
 * A judgement on a peer with every step that led to it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Explanation {
  readonly accepted: boolean
  /** The SPIFFE ID the leaf claims, once it can be read. */
  readonly claimedId: string | null
  /** The matcher, as a person reads it. */
  readonly expectedId: string
  /** The time that was judged by, milliseconds since the epoch. */
  readonly now: number
  readonly steps: ReadonlyArray<Step>
  /** The bundle of the claimed ID's trust domain, if there is one. */
  readonly bundle:
    | { readonly trustDomain: string; readonly generation: string; readonly authorities: number }
    | undefined
  readonly failure:
    | {
        readonly rule: string
        readonly reason: PeerVerificationReason
        readonly expected: string
        readonly seen: string
        /** The first thing to look at. */
        readonly hint: string
        /** How far the clock is outside the validity, in milliseconds, when dates are the cause. */
        readonly clockSkewMillis: number | undefined
      }
    | undefined
}

/**
 * The peer to explain, and what it is judged against.
 *
 * @since 0.1.0
 * @category models
 */
export interface ExplainInput {
  /** The certificates the peer sent, DER: the leaf first. */
  readonly chain: ReadonlyArray<Uint8Array>
  readonly bundles: X509BundleSet
  readonly matcher: PeerMatcher
  /** The role in which the peer presents its certificate. Default `"ServerAuth"`. */
  readonly purpose?: Purpose | undefined
}

/**
 * Judges a peer as the gate does, at the time of Effect's Clock, and says all of it. The answer is the gate's own: it is
 * made of the same rules.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Explanation, PeerMatcher, SpiffeId, type X509BundleSet } from "@agentweave/spiffe"
 * import { Effect } from "effect"
 *
 * const why = (chain: ReadonlyArray<Uint8Array>, bundles: X509BundleSet.X509BundleSet) =>
 *   Effect.gen(function* () {
 *     const matcher = PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/billing"))
 *     const explanation = yield* Explanation.explain({ chain, bundles, matcher })
 *     return explanation.accepted ? "accepted" : explanation.failure?.hint
 *   })
 * ```
 */
export const explain = (input: ExplainInput): Effect.Effect<Explanation> =>
  Effect.map(Clock.currentTimeMillis, (now) => explainAt({ ...input, purpose: input.purpose ?? "ServerAuth", now }))

const marks = { Held: "ok  ", Broken: "NO  ", NotReached: "-   " } as const

const duration = (millis: number): string => {
  const seconds = Math.round(millis / 1000)
  if (seconds < 120) return `${seconds} s`
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} days`
}

/**
 * The explanation as lines for people.
 *
 * @since 0.1.0
 * @category conversions
 */
export const render = (self: Explanation): string => {
  const lines = [
    `${self.accepted ? "accepted" : "REFUSED"}: ${self.claimedId ?? "no readable SPIFFE ID"}, expected ${self.expectedId}`,
    `judged at ${new Date(self.now).toISOString()}${self.bundle === undefined ? "" : `, against the bundle of ${self.bundle.trustDomain} (generation ${self.bundle.generation.slice(0, 16)}, authorities: ${self.bundle.authorities})`}`
  ]
  for (const { expected, rule, seen, status, subject } of self.steps) {
    lines.push(
      `  ${marks[status]} ${rule.padEnd(26)} ${subject.padEnd(14)} expected ${expected}${status === "NotReached" ? "" : `; seen: ${seen}`}`
    )
  }
  if (self.failure !== undefined) {
    const { clockSkewMillis, expected, hint, reason, rule, seen } = self.failure
    lines.push(`${reason} (${rule}): expected ${expected}, got ${seen}`)
    if (clockSkewMillis !== undefined) lines.push(`the clock is ${duration(clockSkewMillis)} outside the validity`)
    lines.push(`hint: ${hint}`)
  }
  return lines.join("\n")
}
