import { DevAuthority, FaultProxy } from "@agentweave/testkit"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"

const authority = (options: object) => DevAuthority.make({ trustDomain: "example.org", ...options })

const refusals: ReadonlyArray<readonly [options: object, field: string]> = [
  [{ intermediates: -1 }, "intermediates"],
  [{ intermediates: Number.NaN }, "intermediates"],
  [{ rootTtl: "-1 days" }, "rootTtl"],
  [{ keyAlgorithm: "DSA" }, "keyAlgorithm"],
  [{ intermediate: {}, rootTTL: "1 day" }, "rootTTL"]
]

describe("options that break a rule are refused with the field's name", () => {
  for (const [options, field] of refusals) {
    it.effect(`by DevAuthority: ${field} of ${JSON.stringify(options)}`, () =>
      Effect.gen(function* () {
        assert.deepInclude(yield* Effect.flip(authority(options)), { _tag: "InvalidConfigError", field })
        const good = yield* authority({})
        assert.deepInclude(yield* Effect.flip(good.rotateRoot(options)), { _tag: "InvalidConfigError", field })
      })
    )
  }

  it.scopedLive("by FaultProxy, also for a later target", () =>
    Effect.gen(function* () {
      for (const port of [-1, 0, Number.NaN, 65_536]) {
        assert.deepInclude(yield* Effect.flip(FaultProxy.make({ port })), { config: "FaultProxy", field: "port" })
      }
      const proxy = yield* FaultProxy.make({ port: 1 })
      assert.deepInclude(yield* Effect.flip(proxy.setTarget({ host: "", port: 1 })), { field: "host" })
    })
  )
})
