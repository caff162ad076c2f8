import { PeerMatcher, type PeerVerifier } from "@agentweave/spiffe"
import * as PeerCase from "@agentweave/testkit/PeerCase"
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { itAtEpoch, makeShared, verdict } from "./support/gate.js"

const shared = makeShared()

const purposes = (peer: PeerCase.PeerCase): ReadonlyArray<PeerVerifier.Purpose> =>
  peer.purpose === undefined ? ["ServerAuth", "ClientAuth"] : [peer.purpose]

describe("the catalogue of peers, each in every role it is for", () => {
  for (const peer of PeerCase.all) {
    itAtEpoch(`${peer.verdict}: ${peer.name}`, () =>
      Effect.gen(function* () {
        const authority = yield* shared
        const { bundles, credentials, expects } = yield* peer.arrange(authority)
        for (const purpose of purposes(peer)) {
          const answer = yield* verdict({
            certificates: credentials.certificates,
            bundles,
            matcher: PeerMatcher.exactly(expects),
            purpose
          })
          assert.strictEqual(answer.split(" ")[0], peer.verdict, `${purpose}: ${answer}`)
        }
      })
    )
  }
})
