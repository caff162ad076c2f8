import { WorkloadApi, WorkloadEndpoint } from "@agentweave/workload-api"
import { describe, expect, it } from "@effect/vitest"
import { Cause, ConfigError, ConfigProvider, Effect, Either, Layer } from "effect"
import fc from "fast-check"

const unixOfLength = (bytes: number) => WorkloadEndpoint.unix(`/${"x".repeat(bytes - 1)}`)

const accepted: ReadonlyArray<readonly [text: string, endpoint: WorkloadEndpoint.WorkloadEndpoint]> = [
  ["unix:///run/spire/agent.sock", { _tag: "Unix", path: "/run/spire/agent.sock" }],
  ["unix:/run/spire/agent.sock", { _tag: "Unix", path: "/run/spire/agent.sock" }],
  ["UNIX:///run/agent.sock", { _tag: "Unix", path: "/run/agent.sock" }],
  ["unix:///run/my%20agent%3F.sock", { _tag: "Unix", path: "/run/my agent?.sock" }],
  ["unix:///run/%C3%A4", { _tag: "Unix", path: "/run/ä" }],
  [`unix:///${"x".repeat(WorkloadEndpoint.maxPathBytes - 1)}`, unixOfLength(WorkloadEndpoint.maxPathBytes)],
  ["tcp://127.0.0.1:8000", { _tag: "Tcp", host: "127.0.0.1", port: 8000 }],
  ["tcp://[::1]:65535", { _tag: "Tcp", host: "::1", port: 65_535 }],
  ["tcp://10.0.0.1:1", { _tag: "Tcp", host: "10.0.0.1", port: 1 }]
]

const refused: ReadonlyArray<readonly [text: string, rule: string]> = [
  ["", "Missing"],
  ["/run/agent.sock", "Scheme"],
  ["http://127.0.0.1:8000", "Scheme"],
  ["unixgram:///run/agent.sock", "Scheme"],
  ["unix", "Scheme"],
  [" unix:///run/agent.sock", "Character"],
  ["unix:///run/agent.sock\n", "Character"],
  ["unix:///run/a b", "Character"],
  ["unix:///run/%zz", "PercentEncoding"],
  ["unix:///run/%ff", "PercentEncoding"],
  ["unix:///run/%00", "PercentEncoding"],
  ["unix:///run/%0a", "PercentEncoding"],
  ["unix://host/run/agent.sock", "AuthorityNotAllowed"],
  ["unix://run", "AuthorityNotAllowed"],
  ["unix:", "PathMissing"],
  ["unix:/", "PathMissing"],
  ["unix://", "PathMissing"],
  ["unix:///", "PathMissing"],
  ["unix:agent.sock", "PathNotAbsolute"],
  [`unix:///${"x".repeat(WorkloadEndpoint.maxPathBytes)}`, "PathTooLong"],
  [`unix:///${"%C3%A4".repeat(60)}`, "PathTooLong"],
  ["unix:///run/agent.sock?x=1", "QueryNotAllowed"],
  ["unix:///run/agent.sock#x", "FragmentNotAllowed"],
  ["tcp:127.0.0.1:8000", "HostMissing"],
  ["tcp://", "HostMissing"],
  ["tcp://:8000", "HostMissing"],
  ["tcp://localhost:8000", "HostNotIp"],
  ["tcp://127.1:8000", "HostNotIp"],
  ["tcp://127.0.0.256:8000", "HostNotIp"],
  ["tcp://::1:8000", "HostMissing"],
  ["tcp://[127.0.0.1]:8000", "HostNotIp"],
  ["tcp://[fe80::1%25eth0]:8000", "HostNotIp"],
  ["tcp://[::1]x:8000", "HostNotIp"],
  ["tcp://127.0.0.1", "PortMissing"],
  ["tcp://127.0.0.1:", "PortMissing"],
  ["tcp://127.0.0.1:0", "PortOutOfRange"],
  ["tcp://127.0.0.1:65536", "PortOutOfRange"],
  ["tcp://127.0.0.1:+80", "PortOutOfRange"],
  ["tcp://127.0.0.1:8000/", "PathNotAllowed"],
  ["tcp://127.0.0.1:8000/foo", "PathNotAllowed"],
  ["tcp://user@127.0.0.1:8000", "UserInfoNotAllowed"],
  ["tcp://127.0.0.1:8000?x", "QueryNotAllowed"],
  ["tcp://127.0.0.1:8000#x", "FragmentNotAllowed"]
]

describe("the address of an endpoint", () => {
  for (const [text, endpoint] of accepted) {
    it(`${text} is read`, () => {
      expect(WorkloadEndpoint.parse(text)).toStrictEqual(Either.right(endpoint))
    })
  }

  for (const [text, rule] of refused) {
    it(`${JSON.stringify(text)} is refused by the rule ${rule}`, () => {
      const result = WorkloadEndpoint.parse(text)
      expect(Either.isLeft(result) && result.left.rule).toBe(rule)
      expect(Either.isLeft(result) && result.left.message).toContain(rule)
    })
  }

  it("is read as it was written", () => {
    const path = fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 }).map((name) => `/run/${name}`)
    fc.assert(
      fc.property(path, (path) => {
        fc.pre(!/[\p{Cc}\p{Cs}]/u.test(path))
        const endpoint = WorkloadEndpoint.unix(path)
        expect(WorkloadEndpoint.parse(WorkloadEndpoint.format(endpoint))).toStrictEqual(Either.right(endpoint))
      })
    )
    for (const [, endpoint] of accepted) {
      expect(WorkloadEndpoint.parse(WorkloadEndpoint.format(endpoint))).toStrictEqual(Either.right(endpoint))
    }
  })

  it("that is refused is cut before it is quoted", () => {
    const result = WorkloadEndpoint.parse("x".repeat(10_000))
    expect(Either.isLeft(result) && result.left.input.length).toBe(256)
  })
})

describe("where the layer looks for it", () => {
  const build = (environment: ReadonlyArray<readonly [string, string]>, endpoint?: string) =>
    Layer.build(WorkloadApi.layer(endpoint === undefined ? {} : { endpoint })).pipe(
      Effect.scoped,
      Effect.withConfigProvider(ConfigProvider.fromMap(new Map(environment))),
      Effect.either
    )

  it.effect("SPIFFE_ENDPOINT_SOCKET, when it is not told", () =>
    Effect.gen(function* () {
      expect(Either.isRight(yield* build([["SPIFFE_ENDPOINT_SOCKET", "unix:///nowhere"]]))).toBe(true)
      const refused = yield* build([["SPIFFE_ENDPOINT_SOCKET", "tcp://localhost:1"]])
      expect(Either.isLeft(refused) && refused.left).toMatchObject({ rule: "HostNotIp" })
      const missing = yield* build([])
      expect(Either.isLeft(missing) && missing.left).toMatchObject({ _tag: "InvalidEndpointError", rule: "Missing" })
      expect(Either.isLeft(missing) && missing.left.message).toContain("SPIFFE_ENDPOINT_SOCKET")
    })
  )

  it.effect("a source of configuration that fails is refused, and what it says is told", () =>
    Effect.gen(function* () {
      const failing = ConfigProvider.make({
        load: () => Effect.fail(ConfigError.SourceUnavailable([], "the vault is sealed", Cause.empty)),
        flattened: ConfigProvider.fromMap(new Map()).flattened
      })
      const refused = yield* Effect.either(
        Effect.withConfigProvider(Effect.scoped(Layer.build(WorkloadApi.layer())), failing)
      )
      expect(Either.isLeft(refused) && refused.left).toMatchObject({ _tag: "InvalidEndpointError", rule: "Unreadable" })
      expect(Either.isLeft(refused) && refused.left.message).toMatch(/SPIFFE_ENDPOINT_SOCKET.*the vault is sealed/)
    })
  )

  it.effect("the option before the variable", () =>
    Effect.gen(function* () {
      const environment = [["SPIFFE_ENDPOINT_SOCKET", "unix:///nowhere"]] as const
      const refused = yield* build(environment, "unix:relative")
      expect(Either.isLeft(refused) && refused.left).toMatchObject({ rule: "PathNotAbsolute" })
    })
  )

  it.effect("Config, for a program that keeps it elsewhere", () =>
    Effect.gen(function* () {
      const provider = ConfigProvider.fromMap(new Map([["SPIFFE_ENDPOINT_SOCKET", "tcp://127.0.0.1:1"]]))
      expect(yield* Effect.withConfigProvider(WorkloadEndpoint.config, provider)).toStrictEqual({
        _tag: "Tcp",
        host: "127.0.0.1",
        port: 1
      })
    })
  )
})
