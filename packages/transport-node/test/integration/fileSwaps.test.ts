import { NodeIdentity } from "@agentweave/transport-node"
import { assert, describe } from "@effect/vitest"
import { Effect, Either } from "effect"
import { directory, filesIn, type Generation, generations, publishers, quiet, run } from "./filePublishers.js"

const turn = Effect.async<void>((resume) => {
  const immediate = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(immediate))
})

describe("10,000 file swaps against a reader: no mixed pair, none lost", () => {
  const swaps = { linkSwap: 5_000, atomicRename: 2_000, inPlace: 2_000, kubernetes: 1_000 }

  for (const mode of ["linkSwap", "atomicRename", "inPlace", "kubernetes"] as const) {
    quiet(`${swaps[mode]} by ${mode}`, () =>
      Effect.gen(function* () {
        const all = yield* generations
        const indexOf = new Map(all.map(({ svid }, index) => [svid.fingerprint, index]))
        const at = (count: number): Generation => all[count % all.length] ?? assert.fail()
        const path = yield* directory
        const publish = publishers[mode](path)
        const read = Effect.either(NodeIdentity.readFiles(filesIn(path)))
        run(publish(at(0)))
        let completed = 0
        let good = 0
        const refused = new Set<string>()

        /** A reader that never rests. An SVID is a pair that belongs together: there is none of a mixed pair. */
        const reader = Effect.gen(function* () {
          const before = completed
          const result = yield* read
          if (Either.isLeft(result)) {
            refused.add(result.left.message.split(":", 1).join())
            return
          }
          const { bundles, svid } = result.right
          const index = indexOf.get(svid.fingerprint) ?? assert.fail("an SVID that was never written")
          // Nothing older than what stood when the read began.
          const possible = Math.min(completed + 1 - before, all.length - 1)
          assert.isAtMost((index - (before % all.length) + all.length) % all.length, possible)
          if (mode === "linkSwap" || mode === "kubernetes") {
            const { bundle } = at(index)
            const seen = bundles.bundles.get(bundle.trustDomain)?.generation
            assert.strictEqual(seen, bundle.generation, "SVID and bundle of one generation")
          }
          good++
        })

        const writer = Effect.gen(function* () {
          while (completed < swaps[mode]) {
            for (const step of publish(at(completed + 1))) {
              step()
              // Now and then the reader gets to see what is between two steps.
              if (completed % 8 === 0) yield* turn
            }
            completed++
            if (completed % 200 === 0) {
              const count = good
              while (good === count) yield* turn
              const rested = yield* Effect.flatten(read)
              assert.strictEqual(rested.svid.fingerprint, at(completed).svid.fingerprint, "the last swap is not lost")
            }
          }
        })
        yield* Effect.raceFirst(writer, Effect.forever(reader))
        assert.isTrue(Array.from(refused).every((reason) => reason === "Malformed" || reason === "Unavailable"))
        if (mode === "linkSwap") assert.deepStrictEqual(Array.from(refused), [])
        assert.isAtLeast(good, swaps[mode] / 200)
      })
    )
  }
})
