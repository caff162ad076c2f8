import { IdentityError, IdentityProvider } from "@agentweave/spiffe"
import { WorkloadApi, WorkloadApiClient, WorkloadApiServer, WorkloadEndpoint } from "@agentweave/workload-api"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Either, Layer, Stream } from "effect"

const endpoint = "unix:///nowhere"

const api = (options: object) => Layer.build(WorkloadApi.layer({ endpoint, ...options }))

const client = (options: object) =>
  Layer.build(WorkloadApiClient.layer(Either.getOrThrow(WorkloadEndpoint.parse(endpoint)), options))

const unavailable = new IdentityError.IdentityError({ reason: "Unavailable", description: "there is none" })
const nobody = Layer.succeed(IdentityProvider.IdentityProvider, {
  x509Context: Effect.fail(unavailable),
  changes: Stream.fail(unavailable)
})

const refusals: ReadonlyArray<readonly [field: string, options: object, description: string]> = [
  ["maxSvids", { maxSvids: -1 }, "expected an integer of at least 1, got -1"],
  ["maxSvids", { maxSvids: Number.NaN }, "expected an integer of at least 1, got NaN"],
  ["maxBundles", { maxBundles: 0.5 }, "expected an integer of at least 0, got 0.5"],
  ["maxAuthorities", { maxAuthorities: 0 }, "expected an integer of at least 1, got 0"],
  ["maxMessageBytes", { maxMessageBytes: -5 }, "expected an integer of at least 1, got -5"],
  ["initialTimeout", { initialTimeout: "soon" }, 'expected a duration such as "30 seconds", got "soon"'],
  ["responseTimeout", { responseTimeout: "-5 seconds" }, "expected a duration that is not negative"],
  ["reconnectSchedule", { reconnectSchedule: 5 }, "expected a Schedule, got number"],
  ["select", { select: { name: "web" } }, "expected a hint or a spiffeId, got object"],
  ["onEvent", { onEvent: "log" }, "expected a function, got string"],
  ["maxSvid", { maxSvid: 5 }, "expected no field of this name"]
]

describe("options of the Workload API that break a rule are refused with the name of the field", () => {
  for (const [field, options, description] of refusals) {
    it.scoped(`${field}: ${JSON.stringify(options)}`, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(api(options))
        expect(error).toMatchObject({ _tag: "InvalidConfigError", config: "WorkloadApi", field })
        expect(error.message).toContain(description)
      })
    )
  }

  it.scoped("of its client alone too", () =>
    Effect.gen(function* () {
      for (const options of [{ maxMessageBytes: 0 }, { maxMessageBytes: 1, maxSvids: 1 }]) {
        expect(yield* Effect.flip(client(options))).toMatchObject({
          _tag: "InvalidConfigError",
          config: "WorkloadApiClient"
        })
      }
    })
  )

  it.scoped("of its server too: permissions that are none would hand out private keys", () =>
    Effect.gen(function* () {
      const source = yield* Effect.provide(IdentityProvider.IdentityProvider, nobody)
      const socketPath = "/nowhere/agent.sock"
      for (const [field, options] of [
        ["mode", { mode: 0o1777 }],
        ["mode", { mode: -1 }],
        ["socketPath", { socketPath: "" }],
        ["permissions", { permissions: 0o600 }]
      ] as const) {
        expect(yield* Effect.flip(WorkloadApiServer.make({ socketPath, source, ...options }))).toMatchObject({
          _tag: "InvalidConfigError",
          config: "WorkloadApiServer",
          field
        })
      }
    })
  )
})
