import { type Explanation, PeerMatcher, PeerVerifier } from "@agentweave/spiffe"
import * as PeerCase from "@agentweave/testkit/PeerCase"
import { assert, describe } from "@effect/vitest"
import { Effect, Either } from "effect"
import { describeResult, inputOf, itAtEpoch, makeShared } from "./support/gate.js"

const shared = makeShared()

const purposes = (peer: PeerCase.PeerCase): ReadonlyArray<PeerVerifier.Purpose> =>
  peer.purpose === undefined ? ["ServerAuth", "ClientAuth"] : [peer.purpose]

/** An explanation is the gate's own answer. */
const agree = (
  { accepted, claimedId, failure, steps }: Explanation.Explanation,
  judged: ReturnType<PeerVerifier.PeerVerifier["verify"]>
) => {
  const broken = steps.filter(({ status }) => status === "Broken").map(({ rule }) => rule)
  assert.strictEqual(accepted, Either.isRight(judged))
  if (Either.isRight(judged)) {
    assert.strictEqual(claimedId, judged.right.spiffeId)
    assert.deepStrictEqual(
      steps.filter(({ status }) => status !== "Held"),
      []
    )
    return
  }
  const { actualId, description, reason } = judged.left
  assert.strictEqual(failure?.reason, reason)
  assert.strictEqual(claimedId, actualId)
  // The error's message is the explanation's one-line form.
  assert.strictEqual(description, `expected ${failure?.expected}, got ${failure?.seen} [${failure?.rule}]`)
  assert.include(broken, failure?.rule)
}

describe("the catalogue of peers, each in every role it is for: the verdict, and its explanation", () => {
  for (const peer of PeerCase.all) {
    itAtEpoch(`${peer.verdict}: ${peer.name}`, () =>
      Effect.gen(function* () {
        const { bundles, credentials, expects } = yield* peer.arrange(yield* shared)
        for (const purpose of purposes(peer)) {
          const matcher = PeerMatcher.exactly(expects)
          const input = inputOf({ certificates: credentials.certificates, bundles, matcher, purpose }, 0)
          const judged = PeerVerifier.make().verify(input)
          const answer = describeResult(judged)
          assert.strictEqual(answer.split(" ")[0], peer.verdict, `${purpose}: ${answer}`)
          agree(yield* PeerVerifier.explain(input), judged)
        }
      })
    )
  }
})
