import { IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority, TestConnector } from "@agentweave/testkit"
import {
  AuditLog,
  ConnectionPool,
  PeerDirectory,
  PeerMatcher,
  SecureChannel,
  SpiffeId,
  TrustDomain
} from "@agentweave/transport"
import { HttpServerResponse } from "@effect/platform"
import { describe, expect, expectTypeOf, it } from "@effect/vitest"
import { Config, ConfigProvider, Context, Effect, Layer, Schema } from "effect"

const a = SpiffeId.make("spiffe://example.org/a")
const b = SpiffeId.make("spiffe://example.org/b")
const stranger = SpiffeId.make("spiffe://example.org/stranger")
const foreign = SpiffeId.make("spiffe://partner.test/web")

const setup = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const partner = yield* DevAuthority.make({ trustDomain: "partner.test" })
  const identity = yield* authority.context({ path: "/web", federatesWith: [partner] })
  const network = yield* TestConnector.make({
    handler: ({ peer }) => Effect.succeed(HttpServerResponse.text(peer))
  })
  const services = Layer.mergeAll(
    network.layer,
    PeerDirectory.layerStatic({ [b]: "https://b.test", [a]: "https://a.test" })
  ).pipe(Layer.provideMerge(Layer.merge(IdentityProvider.layerStatic(identity), AuditLog.layerMemory([]))))
  const context = yield* Layer.build(Layer.provideMerge(ConnectionPool.layer({ maxConnectionsPerTarget: 2 }), services))
  return { network, context, pool: Context.get(context, ConnectionPool.ConnectionPool) }
})

const { memberOf, exactly, oneOf, and, or } = PeerMatcher
const own = memberOf(TrustDomain.make("example.org"))

const rows: ReadonlyArray<
  readonly [what: string, matcher: PeerMatcher.PeerMatcher, accepted: SpiffeId.SpiffeId, refused: SpiffeId.SpiffeId]
> = [
  ["exactly", exactly(a), a, b],
  ["oneOf", oneOf([a, b]), b, stranger],
  ["memberOf", own, stranger, foreign],
  ["and", and(own, oneOf([b, foreign])), b, foreign],
  ["or", or(exactly(foreign), exactly(a)), foreign, b]
]

describe("a peer by policy", () => {
  for (const [what, matcher, accepted, refused] of rows) {
    it.scoped(`${what}: a channel and a pool talk to whom it accepts, and to nobody else`, () =>
      Effect.gen(function* () {
        const { context, network, pool } = yield* setup
        const channel = yield* Effect.provide(SecureChannel.make({ peer: matcher, baseUrl: "https://a.test" }), context)
        const clients = [channel, pool.client(matcher)]
        yield* network.setOnConnect(TestConnector.impostor(refused))
        for (const client of clients) {
          expect(yield* Effect.flip(client.get("/"))).toMatchObject({
            _tag: "PeerVerificationError",
            reason: "UnexpectedPeer",
            expectedId: PeerMatcher.describe(matcher),
            actualId: refused
          })
        }
        expect(yield* Effect.flip(pool.withChannel(matcher, () => Effect.void))).toMatchObject({
          _tag: "PeerVerificationError"
        })
        yield* network.setOnConnect(TestConnector.impostor(accepted))
        for (const client of clients) {
          expect(yield* Effect.flatMap(client.get("/"), (response) => response.text)).toBe(accepted)
        }
        const leased = yield* pool.withChannel(matcher, ({ peerSpiffeId }) => Effect.succeed(peerSpiffeId))
        expect(leased).toBe(accepted)
      })
    )
  }

  it.scoped("the address is that of the first ID it names that has one", () =>
    Effect.gen(function* () {
      const { network, pool } = yield* setup
      const addressOf = (matcher: PeerMatcher.PeerMatcher) =>
        Effect.gen(function* () {
          yield* pool.client(matcher).get("/")
          return (yield* network.connections).at(-1)?.address
        })
      expect(yield* addressOf(oneOf([stranger, a, b]))).toBe("a.test:443")
      expect(yield* addressOf(or(exactly(b), exactly(a)))).toBe("b.test:443")
    })
  )

  it.scoped("a whole trust domain has the address of the first peer of it in the directory", () =>
    Effect.gen(function* () {
      const { network, pool } = yield* setup
      yield* pool.client(own).get("/")
      expect((yield* network.connections).map(({ address }) => address)).toEqual(["b.test:443"])
    })
  )

  it.scoped("without an address there is no connection", () =>
    Effect.gen(function* () {
      const { network, pool } = yield* setup
      const nowhere = memberOf(TrustDomain.make("partner.test"))
      expect(yield* Effect.flip(pool.client(nowhere).get("/"))).toMatchObject({
        _tag: "ConnectionError",
        reason: "NoAddress",
        outcome: "NotSent",
        address: "any workload of partner.test"
      })
      expect(yield* network.attempts).toBe(0)
    })
  )

  it.scoped("an ID and the matcher of exactly this ID share their connections, another matcher has its own", () =>
    Effect.gen(function* () {
      const { pool } = yield* setup
      for (const peer of [a, exactly(a), oneOf([a]), oneOf([a])]) yield* pool.withChannel(peer, () => Effect.void)
      expect((yield* pool.stats).poolSizes).toEqual({ [a]: 1, [`one of (${a})`]: 1 })
      yield* pool.invalidate(oneOf([a]))
      expect((yield* pool.stats).poolSizes).toEqual({ [a]: 1 })
    })
  )

  it.scoped("a matcher is limited like a peer, and named in the refusal", () =>
    Effect.gen(function* () {
      const { pool } = yield* setup
      const matcher = oneOf([a, b])
      yield* pool.acquire(matcher)
      yield* pool.acquire(matcher)
      expect(yield* Effect.flip(pool.acquire(matcher))).toMatchObject({
        _tag: "PoolExhaustedError",
        targetId: `one of (${a}, ${b})`
      })
    })
  )

  it.scoped("there is no way to write anyone: what is no matcher is refused before a connection is opened", () =>
    Effect.gen(function* () {
      const { context, network, pool } = yield* setup
      for (const text of ['{"_tag":"Any"}', '{"_tag":"Or","left":{"_tag":"Any"},"right":{"_tag":"Any"}}', "{}"]) {
        const anyone: PeerMatcher.PeerMatcher = JSON.parse(text)
        const made = Effect.provide(SecureChannel.make({ peer: anyone, baseUrl: "https://a.test" }), context)
        expect(yield* Effect.flip(made)).toMatchObject({ _tag: "InvalidSpiffeIdError" })
        expect(yield* Effect.flip(pool.client(anyone).get("/"))).toMatchObject({ _tag: "InvalidSpiffeIdError" })
        expect(yield* Effect.flip(pool.acquire(anyone))).toMatchObject({ _tag: "InvalidSpiffeIdError" })
      }
      expect(yield* network.attempts).toBe(0)
    })
  )

  it.scoped("a channel of its own names its peer where the matcher is one ID", () =>
    Effect.gen(function* () {
      const { context } = yield* setup
      const peerOf = (peer: PeerMatcher.PeerMatcher) =>
        Effect.map(Effect.provide(SecureChannel.make({ peer }), context), ({ peerSpiffeId }) => peerSpiffeId)
      expect(yield* peerOf(exactly(a))).toBe(a)
      expect(yield* peerOf(own)).toBeUndefined()
    })
  )
})

it.scoped("a channel's matcher can be read from Config", () =>
  Effect.gen(function* () {
    class Api extends Context.Tag("test/Api")<Api, SecureChannel.SecureChannel<SpiffeId.SpiffeId | undefined>>() {}
    const { context, network } = yield* setup
    const peer = Config.map(Config.array(Schema.Config("ID", SpiffeId.SpiffeId)), oneOf)
    const layer = SecureChannel.layerConfig(Api, {
      peer,
      baseUrl: Config.succeed("https://a.test")
    })
    yield* network.setOnConnect(TestConnector.impostor(b))
    const text = yield* Effect.flatMap(Api, (api) => Effect.flatMap(api.get("/"), (response) => response.text)).pipe(
      Effect.provide(Layer.provide(layer, Layer.succeedContext(context))),
      Effect.withConfigProvider(ConfigProvider.fromMap(new Map([["ID", `${a},${b}`]])))
    )
    expect(text).toBe(b)
  })
)

it("the type of a channel says whether its peer is one ID", () => {
  const named = () => SecureChannel.make({ peer: a })
  const matched = () => SecureChannel.make({ peer: own })
  type Channel<F extends () => Effect.Effect<unknown, unknown, unknown>> = Effect.Effect.Success<ReturnType<F>>
  expectTypeOf<Channel<typeof named>>().toEqualTypeOf<SecureChannel.SecureChannel>()
  expectTypeOf<Channel<typeof matched>>().toEqualTypeOf<SecureChannel.SecureChannel<SpiffeId.SpiffeId | undefined>>()
})
