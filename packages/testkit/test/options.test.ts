import { connect } from "node:net"
import {
  CertificateAuthority,
  DevAuthority,
  FakeWorkloadApi,
  Fault,
  FaultProxy,
  TestConnector
} from "@agentweave/testkit"
import { assert, describe, it } from "@effect/vitest"
import { type Duration, Effect, Logger, LogLevel } from "effect"

const authority = (options: object) => DevAuthority.make({ trustDomain: "example.org", ...options })

const refusals: ReadonlyArray<readonly [options: object, field: string]> = [
  [{ intermediates: -1 }, "intermediates"],
  [{ intermediates: Number.NaN }, "intermediates"],
  [{ rootTtl: "-1 days" }, "rootTtl"],
  [{ keyAlgorithm: "DSA" }, "keyAlgorithm"],
  [{ intermediate: {}, rootTTL: "1 day" }, "rootTTL"]
]

/** Profiles are read by JavaScript too, and from files. */
const profiles: ReadonlyArray<readonly [profile: object, field: string]> = [
  [{ ttl: "-1 hours" }, "ttl"],
  [{ ttl: "soon" }, "ttl"],
  [{ keyAlgorithm: "DSA" }, "keyAlgorithm"],
  [{ signature: "Forged" }, "signature"],
  [{ keyUsages: [] }, "keyUsages"]
]

const wrongFaults: ReadonlyArray<readonly [fault: Fault.Fault, field: string]> = [
  [Fault.delay("-1 seconds"), "by"],
  [Fault.delay(Number.NaN), "by"],
  [Fault.reset({ afterBytes: -1 }), "afterBytes"],
  [Fault.reset({ afterBytes: Number.NaN }), "afterBytes"],
  [Fault.finish({ afterBytes: 0.5 }), "afterBytes"]
]

/** Options of JavaScript, which no type looks at. */
const wrongNetworks: ReadonlyArray<readonly [options: object, field: string]> = [
  [{ handler: "204" }, "handler"],
  [{ onConnect: true }, "onConnect"],
  [{ streamHandler: {} }, "streamHandler"],
  [{ onconnect: TestConnector.reachable }, "onconnect"]
]

const wrongAgents: ReadonlyArray<readonly [options: object, field: string]> = [
  [{ socketPath: "" }, "socketPath"],
  [{ socketPath: 7 }, "socketPath"],
  [{ socketpath: "/tmp/agent.sock" }, "socketpath"]
]

const wrongDelays: ReadonlyArray<Duration.DurationInput> = [-1, Number.NaN, "-1 seconds", Number.POSITIVE_INFINITY]

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

  for (const [profile, field] of profiles) {
    it.effect(`by every certificate made of a profile: ${field} of ${JSON.stringify(profile)}`, () =>
      Effect.gen(function* () {
        const good = yield* authority({})
        const { issuer } = good
        const makers: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
          good.issue(profile),
          authority({ root: profile }),
          authority({ intermediates: 1, intermediate: profile }),
          CertificateAuthority.makeRoot({ trustDomain: "example.org", ...profile }),
          CertificateAuthority.makeIntermediate(issuer, profile),
          CertificateAuthority.makeImpostor(issuer, profile),
          CertificateAuthority.crossSign(issuer, issuer, profile),
          CertificateAuthority.issue(issuer, profile)
        ]
        for (const maker of makers) {
          assert.deepInclude(yield* Effect.flip(maker), {
            _tag: "MintError",
            reason: "InvalidProfile"
          })
        }
        const error = yield* Effect.flip(good.issue(profile))
        assert.include(error.message, `CertificateProfile.${field}: `)
      })
    )
  }

  it.effect("by makeLoop: a ring has two CAs or more", () =>
    Effect.gen(function* () {
      for (const size of [-1, 0, 1, 2.5, Number.NaN, Number.POSITIVE_INFINITY]) {
        const error = yield* Effect.flip(CertificateAuthority.makeLoop({ trustDomain: "example.org", size }))
        assert.deepInclude(error, { _tag: "InvalidConfigError", field: "size" })
      }
    })
  )

  for (const [options, field] of wrongNetworks) {
    it.scoped(`by TestConnector: ${field} of ${JSON.stringify(options)}`, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(TestConnector.make(options))
        assert.deepInclude(error, { _tag: "InvalidConfigError", config: "TestConnector", field })
      })
    )
  }

  for (const [options, field] of wrongAgents) {
    it.scoped(`by FakeWorkloadApi: ${field} of ${JSON.stringify(options)}`, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(FakeWorkloadApi.make(options))
        assert.deepInclude(error, { _tag: "InvalidConfigError", config: "FakeWorkloadApi", field })
      })
    )
  }

  it.scoped("by a fake agent's delay, which is finite and not negative", () =>
    Effect.gen(function* () {
      const agent = yield* FakeWorkloadApi.make()
      for (const wrong of wrongDelays) {
        const error = yield* Effect.flip(agent.delay(wrong))
        assert.deepInclude(error, { _tag: "InvalidConfigError", config: "FakeWorkloadApi.delay", field: "duration" })
      }
      yield* agent.delay("0 seconds")
    })
  )

  for (const [fault, field] of wrongFaults) {
    it.scopedLive(`by setFault: ${field} of ${JSON.stringify(fault)}`, () =>
      Effect.gen(function* () {
        const proxy = yield* FaultProxy.make({ port: 1 })
        assert.deepInclude(yield* Effect.flip(proxy.setFault(fault)), { _tag: "InvalidConfigError", field })
      })
    )
  }

  it.scopedLive("a fault that is chosen for one connection and breaks a rule resets it", () =>
    Effect.gen(function* () {
      const proxy = yield* FaultProxy.make({ port: 1 })
      yield* proxy.setFaults(() => Fault.delay("-1 seconds"))
      const code = yield* Effect.async<string | undefined>((resume) => {
        connect(proxy.port, proxy.host)
          .once("error", (error: NodeJS.ErrnoException) => resume(Effect.succeed(error.code)))
          .once("end", () => resume(Effect.succeed("end")))
      })
      assert.strictEqual(code, "ECONNRESET")
    }).pipe(Logger.withMinimumLogLevel(LogLevel.None))
  )

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
