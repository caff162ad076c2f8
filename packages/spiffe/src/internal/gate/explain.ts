import * as Either from "effect/Either"
import type { Explanation, Step } from "../../Explanation.js"
import { describe, matches, type PeerMatcher } from "../../PeerMatcher.js"
import * as SpiffeId from "../../SpiffeId.js"
import { readCertificate } from "../der/certificate.js"
import { makeReader } from "./anchors.js"
import { bundleOf, type GateInput, readCandidates, type Tools, verifyUncached } from "./gate.js"
import type { Guard, Refusal } from "./guard.js"
import { claimedId, leafGuards } from "./leafGuards.js"
import { caGuards, dateGuards, makeNameCheck, membersOf, type Path } from "./pathGuards.js"
import { findPath } from "./pathSearch.js"
import { hintFor } from "./refusalHints.js"
import { makeCheck } from "./signature.js"
import { sizeGuards, sizeRefusal } from "./sizeGuards.js"

interface Input extends GateInput {
  readonly matcher: PeerMatcher
}

const apply = <A>(guards: ReadonlyArray<Guard<A>>, subject: A, name: string): ReadonlyArray<Step> =>
  guards.map((guard) => ({
    rule: guard.rule,
    subject: name,
    status: guard.holds(subject) ? "Held" : "Broken",
    expected: guard.expected(subject),
    seen: guard.seen(subject)
  }))

const notReached = (rules: ReadonlyArray<string>, subject: string): ReadonlyArray<Step> =>
  rules.map((rule) => ({ rule, subject, status: "NotReached", expected: "what the rule asks for", seen: "" }))

const rulesOf = <A>(guards: ReadonlyArray<Guard<A>>): ReadonlyArray<string> => guards.map((guard) => guard.rule)

const broken = (refusal: Refusal, subject: string): Step => ({
  rule: refusal.rule,
  subject,
  status: "Broken",
  expected: refusal.expected,
  seen: refusal.seen
})

const pathRules = [...rulesOf(caGuards), ...rulesOf(dateGuards)]

/** The fault in the dates, read from the refusal: its rule names the one date that was missed. */
const skew = (refusal: Refusal, now: number): number | undefined => {
  if (refusal.reason !== "Expired" && refusal.reason !== "NotYetValid") return undefined
  const date = /\d{4,6}-\d\d-\d\dT[\d:.]+Z/.exec(refusal.expected)?.[0]
  return date === undefined ? undefined : Math.abs(now - Date.parse(date))
}

const memberName = (position: number, path: Path): string =>
  position === 0 ? "leaf" : position === path.length - 1 ? "anchor" : `intermediate ${position}`

/** The steps from the leaf to the anchor, in their order. */
const pathSteps = (input: Input, leafDer: Uint8Array, { anchorsOf, isSignedBy }: Tools): ReadonlyArray<Step> => {
  const leaf = readCertificate(leafDer)
  if (Either.isLeft(leaf)) {
    return [
      broken(
        { rule: "leaf-readable", reason: "InvalidLeaf", expected: "a leaf in strict DER", seen: leaf.left.message },
        "leaf"
      ),
      ...notReached([...rulesOf(leafGuards), "bundle", "trusted-path"], ""),
      ...notReached(pathRules, "")
    ]
  }
  const readable: Step = {
    rule: "leaf-readable",
    subject: "leaf",
    status: "Held",
    expected: "a leaf in strict DER",
    seen: "one"
  }
  const profile = apply(leafGuards, { certificate: leaf.right, purposes: [input.purpose] }, "leaf")
  const id = claimedId(leaf.right)
  const bundle = id === undefined ? undefined : bundleOf(input.bundles, SpiffeId.trustDomain(id))
  const bundleStep: Step = {
    rule: "bundle",
    subject: "trust domain",
    status: id === undefined ? "NotReached" : bundle === undefined ? "Broken" : "Held",
    expected: id === undefined ? "a bundle of the leaf's trust domain" : `a bundle of ${SpiffeId.trustDomain(id)}`,
    seen: bundle === undefined ? Array.from(input.bundles.bundles.keys()).slice(0, 20).join(", ") || "none" : "one"
  }
  if (id === undefined || bundle === undefined) {
    return [readable, ...profile, bundleStep, ...notReached(["trusted-path", ...pathRules], "")]
  }
  const candidates = readCandidates(input.chain.slice(1))
  const trustDomain = SpiffeId.trustDomain(id)
  const rules = { trustDomain, purpose: input.purpose, now: input.now, names: makeNameCheck() }
  const { outcome, signatureChecks } = findPath({
    leaf: leaf.right,
    candidates: candidates.usable,
    anchors: anchorsOf(bundle),
    rules,
    isSignedBy
  })
  const trusted: Step = {
    rule: "trusted-path",
    subject: "chain",
    status: Either.isRight(outcome) ? "Held" : outcome.left.reason === "UntrustedChain" ? "Broken" : "Held",
    expected: `a path to one of the ${bundle.authorities.length} authorities of ${trustDomain}`,
    seen: Either.isRight(outcome)
      ? `one, of ${outcome.right.length} certificates`
      : outcome.left.reason === "UntrustedChain"
        ? outcome.left.seen
        : `one that is refused below (${signatureChecks} signatures checked)`
  }
  if (Either.isLeft(outcome)) {
    const refusal = outcome.left
    const rest = pathRules.filter((rule) => rule !== refusal.rule)
    const failing = refusal.reason === "UntrustedChain" ? [] : [broken(refusal, "path")]
    return [readable, ...profile, bundleStep, trusted, ...failing, ...notReached(rest, "path")]
  }
  const path = outcome.right
  const members = membersOf(path, rules)
  return [
    readable,
    ...profile,
    bundleStep,
    trusted,
    ...members.slice(1).flatMap((member) => apply(caGuards, member, memberName(member.position, path))),
    ...members.flatMap((member) => apply(dateGuards, member, memberName(member.position, path)))
  ]
}

/** The gate's answer, with every rule that led to it. */
export const explainAt = (input: Input): Explanation => {
  const { bundles, chain, matcher, now } = input
  const size = apply(sizeGuards, chain, "chain")
  const tooLarge = sizeRefusal(chain)
  const tools = { anchorsOf: makeReader(), isSignedBy: makeCheck() }
  const judged =
    tooLarge === undefined ? verifyUncached(input, tools) : Either.left({ refusal: tooLarge, claimed: null })
  const id = Either.isRight(judged) ? judged.right.spiffeId : judged.left.claimed
  const [leaf] = chain
  const middle =
    tooLarge === undefined && leaf !== undefined
      ? pathSteps(input, leaf, tools)
      : notReached(["leaf-readable", ...rulesOf(leafGuards), "bundle", "trusted-path", ...pathRules], "")
  const expectedId = describe(matcher)
  const matched = id !== null && matches(matcher, id)
  const match: Step = {
    rule: "matcher",
    subject: "SPIFFE ID",
    status: id === null ? "NotReached" : matched ? "Held" : "Broken",
    expected: expectedId,
    seen: id ?? "none"
  }
  const refusal: Refusal | undefined = Either.isLeft(judged)
    ? judged.left.refusal
    : matched
      ? undefined
      : { rule: "matcher", reason: "UnexpectedPeer", expected: expectedId, seen: id ?? "none" }
  const bundle = id === null ? undefined : bundleOf(bundles, SpiffeId.trustDomain(id))
  const steps = [...size, ...middle, match]
  return {
    accepted: refusal === undefined,
    claimedId: id,
    expectedId,
    now,
    // A rule that only the gate looks at (an unreadable or over-named issuer) is a step of its own.
    steps:
      refusal === undefined || steps.some((step) => step.rule === refusal.rule && step.status === "Broken")
        ? steps
        : [...steps, broken(refusal, "chain")],
    bundle: bundle && {
      trustDomain: bundle.trustDomain,
      generation: bundle.generation,
      authorities: bundle.authorities.length
    },
    failure: refusal && { ...refusal, hint: hintFor(refusal), clockSkewMillis: skew(refusal, now) }
  }
}
