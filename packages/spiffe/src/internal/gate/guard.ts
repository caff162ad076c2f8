import type { PeerVerificationReason } from "../../PeerVerificationError.js"

/** A rule that was broken: which one, what it asks for, and what was met instead. */
export interface Refusal {
  readonly rule: string
  readonly reason: PeerVerificationReason
  readonly expected: string
  readonly seen: string
}

/** One rule. `seen` describes what the rule looks at, whether the rule holds or not. */
export interface Guard<in A> {
  readonly rule: string
  readonly reason: PeerVerificationReason
  readonly expected: (subject: A) => string
  readonly holds: (subject: A) => boolean
  readonly seen: (subject: A) => string
}

/** The refusal of the first guard that does not hold. */
export const firstRefusal = <A>(guards: ReadonlyArray<Guard<A>>, subject: A): Refusal | undefined => {
  for (const guard of guards) {
    if (!guard.holds(subject)) {
      return { rule: guard.rule, reason: guard.reason, expected: guard.expected(subject), seen: guard.seen(subject) }
    }
  }
  return undefined
}

/** A refusal as a person reads it. */
export const describeRefusal = (refusal: Refusal): string =>
  `expected ${refusal.expected}, got ${refusal.seen} [${refusal.rule}]`
