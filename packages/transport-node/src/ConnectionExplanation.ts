/**
 * Why a connection would accept or refuse a peer: by the gate, and by Node's TLS, which must both accept.
 *
 * @since 0.1.0
 */
import * as Explanation from "@agentweave/spiffe/Explanation"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as X509Bundle from "@agentweave/spiffe/X509Bundle"
import * as Effect from "effect/Effect"
import { opensslRefusal } from "./internal/tls/opensslVerdict.js"

const rule = "tls-verification"
const expected = "a chain that OpenSSL verifies too, against the same authorities"

const step = (status: Explanation.Step["status"], seen: string): Explanation.Step => ({
  rule,
  subject: "chain",
  status,
  expected,
  seen
})

const withStep = (self: Explanation.Explanation, last: Explanation.Step): Explanation.Explanation => ({
  ...self,
  steps: [...self.steps, last]
})

/**
 * `Explanation.explain`, and as its last step the verdict of the OpenSSL that this Node is built with: it is stricter in a
 * few places, for example on names in the subject. It is asked about chains that the gate accepts, and judges by the clock of
 * the machine.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Explanation, PeerMatcher, SpiffeId, X509BundleSet } from "@agentweave/spiffe"
 * import { ConnectionExplanation } from "@agentweave/transport-node"
 * import { Effect } from "effect"
 *
 * const program = ConnectionExplanation.explain({
 *   chain: [],
 *   bundles: X509BundleSet.empty,
 *   matcher: PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/api"))
 * }).pipe(Effect.map(Explanation.render))
 * ```
 */
export const explain = (input: Explanation.ExplainInput): Effect.Effect<Explanation.Explanation> =>
  Effect.gen(function* () {
    const byGate = yield* Explanation.explain(input)
    const [leaf, ...rest] = input.chain
    if (!byGate.accepted || leaf === undefined) return withStep(byGate, step("NotReached", ""))
    const ca = Array.from(PeerMatcher.trustDomains(input.matcher)).flatMap((domain) => {
      const bundle = input.bundles.bundles.get(domain)
      return bundle === undefined ? [] : [X509Bundle.toPem(bundle)]
    })
    const purpose = input.purpose ?? "ServerAuth"
    const refusal = yield* opensslRefusal({ chain: [leaf, ...rest], ca, purpose })
    if (refusal === undefined) return withStep(byGate, step("Held", "one"))
    return {
      ...withStep(byGate, step("Broken", refusal)),
      accepted: false,
      failure: {
        rule,
        reason: "InvalidChain",
        expected,
        seen: refusal,
        hint: "the gate accepts this chain and Node's TLS does not: both must, so that a connection is refused",
        clockSkewMillis: undefined
      }
    }
  })
