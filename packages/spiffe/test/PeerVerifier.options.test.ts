import { PeerVerifier } from "@agentweave/spiffe"
import { assert, it } from "@effect/vitest"
import { Effect, Either } from "effect"

it.effect("a size of the cache that breaks a rule is refused with the field's name", () =>
  Effect.gen(function* () {
    for (const cacheSize of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      const error = yield* Effect.flip(PeerVerifier.make({ cacheSize }))
      assert.deepInclude(error, { _tag: "InvalidConfigError", config: "PeerVerifier", field: "cacheSize" })
    }
    const misspelled: object = { cachesize: 16 }
    assert.deepInclude(yield* Effect.flip(PeerVerifier.make(misspelled)), { field: "cachesize" })
  })
)

it("with options that keep the rules, and without any, there is a verifier", () => {
  for (const cacheSize of [undefined, 0, 16]) assert.isTrue(Either.isRight(PeerVerifier.make({ cacheSize })))
  assert.isFunction(PeerVerifier.make().verify)
})
