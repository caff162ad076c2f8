import { IdentityProvider } from "@agentweave/spiffe"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as TestConnector from "@agentweave/testkit/TestConnector"
import { AuditLog, SecureChannel, TransportConfig } from "@agentweave/transport"
import { HttpServerResponse } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Either, Fiber, Layer, Ref, TestClock } from "effect"

const decode = (options: unknown) => TransportConfig.make(options as TransportConfig.Options)

describe("TransportConfig", () => {
  it("has the defaults of the reference, and every field as given", () => {
    expect(Either.getOrThrow(decode({}))).toMatchObject({
      tlsMinVersion: "TLSv1.3",
      tlsMaxVersion: "TLSv1.3",
      timeout: Duration.seconds(30),
      verifyPeer: true,
      connectTimeout: Duration.seconds(10),
      connections: 10
    })
    const config = Either.getOrThrow(
      decode({ tlsMinVersion: "TLSv1.2", timeout: "5 seconds", maxConnectionAge: "1 hour", retry: { maxRetries: 1 } })
    )
    expect(config).toMatchObject({ tlsMinVersion: "TLSv1.2", timeout: Duration.seconds(5) })
    expect(config.retry?.maxRetries).toBe(1)
    expect(Either.getOrThrow(decode(config))).toEqual(config)
  })

  const refusals: ReadonlyArray<readonly [options: unknown, field: string, message: string]> = [
    [{ verifyPeer: false }, "verifyPeer", "expected true, peer verification cannot be disabled, got false"],
    [{ tlsMinVersion: "TLSv1.1" }, "tlsMinVersion", 'expected "TLSv1.2" or "TLSv1.3", got "TLSv1.1"'],
    [{ tlsMaxVersion: "SSLv3" }, "tlsMaxVersion", 'expected "TLSv1.2" or "TLSv1.3", got "SSLv3"'],
    [
      { tlsMinVersion: "TLSv1.3", tlsMaxVersion: "TLSv1.2" },
      "tlsMaxVersion",
      "expected a version of at least tlsMinVersion TLSv1.3, got TLSv1.2"
    ],
    [{ timeout: 0 }, "timeout", "expected a positive, finite duration, got 0"],
    [{ timeout: "infinity" }, "timeout", 'expected a duration such as "30 seconds", got "infinity"'],
    [{ timeout: Duration.infinity }, "timeout", "expected a positive, finite duration, got Infinity"],
    [{ timeout: "soon" }, "timeout", 'expected a duration such as "30 seconds", got "soon"'],
    [{ connectTimeout: "-1 seconds" }, "connectTimeout", 'expected a duration that is not negative, got "-1 seconds"'],
    [{ connections: 0 }, "connections", "expected an integer of at least 1 and at most 65535, got 0"],
    [{ connections: 1.5 }, "connections", "expected an integer of at least 1 and at most 65535, got 1.5"],
    [{ retry: { maxRetries: -1 } }, "retry.maxRetries", "expected an integer of at least 0, got -1"]
  ]
  for (const [options, field, message] of refusals) {
    it(`refuses ${JSON.stringify(options)}`, () => {
      const error = Either.getOrThrow(Either.flip(decode(options)))
      expect(error).toMatchObject({ _tag: "InvalidConfigError", config: "TransportConfig", field })
      expect(error.description).toBe(message)
    })
  }

  it.effect("is read from Config, by the same rules", () =>
    Effect.gen(function* () {
      const read = (entries: Record<string, string>) =>
        Effect.withConfigProvider(TransportConfig.config, ConfigProvider.fromMap(new Map(Object.entries(entries))))
      expect(yield* read({ timeout: "4 seconds", tlsMinVersion: "TLSv1.2" })).toMatchObject({
        timeout: Duration.seconds(4),
        tlsMinVersion: "TLSv1.2"
      })
      expect(yield* read({})).toEqual(TransportConfig.defaults)
      const error = yield* Effect.flip(read({ verifyPeer: "false" }))
      expect(String(error)).toContain("peer verification cannot be disabled")
    })
  )
})

it.scoped("a channel with a retry configuration retries its requests by the rules of HTTP", () =>
  Effect.gen(function* () {
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const connector = yield* TestConnector.make()
    const answered = yield* Ref.make(0)
    yield* connector.setHandler(() =>
      Effect.map(
        Ref.updateAndGet(answered, (n) => n + 1),
        (n) => HttpServerResponse.text("answer", { status: n < 3 ? 503 : 200 })
      )
    )
    const identity = IdentityProvider.layerStatic(yield* authority.context({ path: "/web" }))
    const channel = yield* Effect.provide(
      SecureChannel.make({
        peer: "spiffe://example.org/api",
        baseUrl: "https://api.test",
        config: { retry: { baseDelay: "1 second", jitter: false } }
      }),
      yield* Layer.build(connector.layer.pipe(Layer.provide(AuditLog.layerMemory([])), Layer.provideMerge(identity)))
    )
    const fiber = yield* Effect.fork(channel.get("/"))
    yield* TestClock.adjust("1 second")
    yield* TestClock.adjust("2 seconds")
    expect((yield* Fiber.join(fiber)).status).toBe(200)
    yield* Ref.set(answered, 0)
    expect((yield* channel.post("/")).status).toBe(503)
  })
)
