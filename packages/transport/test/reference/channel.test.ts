import { TestConnector, TestIdentity } from "@agentweave/testkit"
import {
  PeerVerificationError,
  RetryConfig,
  SecureChannel,
  SpiffeId,
  TransportConfig,
  TransportError
} from "@agentweave/transport"
import { HttpBody, HttpClientRequest, HttpServerResponse } from "@effect/platform"
import { expect } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Scope, TestClock } from "effect"
import { rows } from "./items.js"
import { fails, gives, me, other, peer, refuses, untyped, world } from "./world.js"

type Channel = SecureChannel.SecureChannel

/** The response to a request of a channel, as text. */
const answer = (use: (channel: Channel) => ReturnType<Channel["execute"]>, options?: Partial<SecureChannel.Options>) =>
  Effect.flatMap(world, ({ channel }) =>
    Effect.flatMap(channel(options), (made) => Effect.flatMap(use(made), (response) => response.text))
  )

const failing = (statuses: ReadonlyArray<number>, config: TransportConfig.Options) =>
  Effect.gen(function* () {
    const { channel, network } = yield* world
    let answered = 0
    yield* network.setHandler(() =>
      Effect.sync(() => HttpServerResponse.empty({ status: statuses[answered++] ?? 200 }))
    )
    const call = yield* Effect.fork((yield* channel({ config })).get("/"))
    yield* TestClock.adjust("1 second")
    const { status } = yield* Fiber.join(call)
    return { status, answered }
  })

const impostor = Effect.gen(function* () {
  const { channel, network } = yield* world
  yield* network.setOnConnect(TestConnector.impostor(other))
  return yield* Effect.flip((yield* channel()).get("/"))
})

rows("Security guarantees", {
  "mutual TLS is mandatory": fails(
    answer((channel) => channel.get("http://service.test/")),
    { _tag: "RequestError", reason: "InvalidUrl" }
  ),
  "SPIFFE ID verification on all connections": Effect.map(impostor, (error) =>
    expect(error).toBeInstanceOf(PeerVerificationError.PeerVerificationError)
  ),
  "TLS 1.3 preferred, 1.2 minimum": Effect.map(TransportConfig.make({}), ({ tlsMaxVersion, tlsMinVersion }) => {
    expect([tlsMinVersion, tlsMaxVersion]).toEqual(["TLSv1.3", "TLSv1.3"])
    expect(TransportConfig.TlsVersion.literals).toEqual(["TLSv1.2", "TLSv1.3"])
  }),
  "automatic certificate rotation": Effect.gen(function* () {
    const { authority, services, network } = yield* world
    const identity = yield* TestIdentity.make(yield* authority.context({ path: "/before" }))
    const channel = yield* SecureChannel.make({ peer, baseUrl: "https://service.test" }).pipe(
      Effect.provide(identity.layer),
      Effect.provide(services)
    )
    yield* gives(channel.mySpiffeId, "spiffe://example.com/before")
    yield* identity.set(yield* authority.context({ path: "/after" }))
    yield* gives(channel.mySpiffeId, "spiffe://example.com/after")
    expect(yield* network.attempts).toBe(0)
  }),
  "full audit logging of all connections": Effect.gen(function* () {
    const { channel, events } = yield* world
    yield* Effect.scoped(
      Effect.flatMap(channel(), (made) => Effect.flatMap(made.get("/"), (response) => response.text))
    )
    expect(events.map(({ _tag }) => _tag)).toEqual([
      "ConnectionAttempted",
      "ConnectionEstablished",
      "RequestStarted",
      "RequestEnded",
      "ConnectionClosed"
    ])
  })
})

rows("SecureChannel", {
  import: Effect.sync(() => expect(SecureChannel.make).toBeTypeOf("function")),
  identity_provider: Effect.flatMap(world, ({ channel }) =>
    Effect.flatMap(channel(), ({ mySpiffeId }) => gives(mySpiffeId, me))
  ),
  peer_spiffe_id: Effect.flatMap(world, ({ channel, network }) =>
    Effect.flatMap(channel({ peer: other }), (made) =>
      Effect.zipRight(
        made.get("/"),
        Effect.map(network.connections, ([connection]) => expect(connection?.peer).toBe(other))
      )
    )
  ),
  "config is optional": gives(
    answer((channel) => channel.get("/api"), { config: undefined }),
    "GET /api"
  ),
  "config: defaults if there is none": Effect.gen(function* () {
    const { channel, network } = yield* world
    yield* network.setHandler(() => Effect.never)
    const call = yield* Effect.fork(Effect.flip(Effect.flatMap(channel(), (made) => made.get("/"))))
    yield* TestClock.adjust("30 seconds")
    expect(yield* Fiber.join(call)).toMatchObject({ _tag: "TimeoutError", limit: Duration.seconds(30) })
  }),
  "ValueError: peer_spiffe_id does not start with spiffe://": fails(
    answer((channel) => channel.get("/"), { peer: "https://example.com/service" }),
    { _tag: "InvalidSpiffeIdError", rule: "Scheme" }
  ),
  "ValueError: peer_spiffe_id is malformed": fails(
    answer((channel) => channel.get("/"), { peer: "spiffe://example.com/service/" }),
    { _tag: "InvalidSpiffeIdError" }
  ),
  "property peer_spiffe_id": Effect.flatMap(world, ({ channel }) =>
    Effect.map(channel(), ({ peerSpiffeId }) => expect(peerSpiffeId).toBe(peer))
  ),
  "property my_spiffe_id": Effect.flatMap(world, ({ channel }) =>
    Effect.flatMap(channel(), ({ mySpiffeId }) => gives(Effect.map(mySpiffeId, SpiffeId.isSpiffeId), true))
  ),
  "request: GET": gives(
    answer((channel) => channel.request("GET", "/api")),
    "GET /api"
  ),
  "request: POST": gives(
    answer((channel) => channel.request("POST", "/api")),
    "POST /api"
  ),
  "request: PUT": gives(
    answer((channel) => channel.request("PUT", "/api")),
    "PUT /api"
  ),
  "request: DELETE": gives(
    answer((channel) => channel.request("DELETE", "/api")),
    "DELETE /api"
  ),
  "request: url": gives(
    answer((channel) => channel.request("GET", "https://service.test/data?page=2"), { baseUrl: undefined }),
    "GET /data?page=2"
  ),
  "request: kwargs": gives(
    answer((channel) => channel.request("PUT", "/api", { urlParams: { q: "x" }, body: HttpBody.text("body") })),
    "PUT /api?q=x body"
  ),
  "request: returns the response": gives(
    Effect.map(failing([418], {}), ({ status }) => status),
    418
  ),
  "request: retries if configured": gives(failing([503, 503], { retry: { maxRetries: 3, baseDelay: 0 } }), {
    status: 200,
    answered: 3
  }),
  "request: raises on failure": Effect.gen(function* () {
    const { channel, network } = yield* world
    yield* network.setOnConnect(TestConnector.unreachable("Refused"))
    yield* fails((yield* channel()).request("GET", "/"), { _tag: "ConnectionError", reason: "Refused" })
  }),
  "request: raises PeerVerificationError": Effect.map(impostor, (error) =>
    expect(error).toMatchObject({ _tag: "PeerVerificationError", reason: "UnexpectedPeer" })
  ),
  get: gives(
    answer((channel) => channel.get("/api")),
    "GET /api"
  ),
  "get: kwargs": gives(
    answer((channel) => channel.get("/api", { urlParams: { page: "2" } })),
    "GET /api?page=2"
  ),
  post: gives(
    answer((channel) => channel.post("/api")),
    "POST /api"
  ),
  "post: json": gives(
    answer((channel) => channel.post("/api", { body: HttpBody.unsafeJson({ a: 1 }) })),
    'POST /api {"a":1}'
  ),
  "post: data": gives(
    answer((channel) => channel.post("/api", { body: HttpBody.text("a=1") })),
    "POST /api a=1"
  ),
  "post: headers": Effect.flatMap(world, ({ channel }) =>
    Effect.flatMap(channel(), (made) =>
      Effect.map(made.post("/api", { headers: { "x-request": "7" } }), ({ headers }) =>
        expect(headers["x-request"]).toBe("7")
      )
    )
  ),
  put: gives(
    answer((channel) => channel.put("/api")),
    "PUT /api"
  ),
  "put: kwargs": gives(
    answer((channel) => channel.put("/api", { body: HttpBody.text("body") })),
    "PUT /api body"
  ),
  delete: gives(
    answer((channel) => channel.del("/api")),
    "DELETE /api"
  ),
  "delete: kwargs": gives(
    answer((channel) => channel.del("/api", { urlParams: { id: "1" } })),
    "DELETE /api?id=1"
  ),
  close: Effect.gen(function* () {
    const { channel, network } = yield* world
    const scope = yield* Scope.make()
    const made = yield* Scope.extend(channel(), scope)
    yield* made.get("/")
    yield* Scope.close(scope, Exit.void)
    expect(yield* network.open).toBe(0)
    yield* fails(made.get("/"), { _tag: "ScopeClosedError", reason: "Channel" })
  }),
  "async with": Effect.gen(function* () {
    const { channel, network } = yield* world
    yield* Effect.scoped(Effect.flatMap(channel(), (made) => made.get("/")))
    expect((yield* network.connections).map(({ closed }) => closed?.reason)).toEqual(["Shutdown"])
  }),
  example: Effect.gen(function* () {
    const { channel, network } = yield* world
    yield* network.setHandler(() => Effect.orDie(HttpServerResponse.json({ items: 3 })))
    const config = { tlsMinVersion: "TLSv1.3", timeout: "30 seconds", retry: { maxRetries: 3 } } as const
    const data = Effect.flatMap(channel({ config }), (made) =>
      Effect.flatMap(made.execute(HttpClientRequest.get("/data")), (response) => response.json)
    )
    yield* gives(Effect.scoped(data), { items: 3 })
  })
})

const config = (options: TransportConfig.Options = {}) => TransportConfig.make(options)

rows("TransportConfig", {
  import: Effect.sync(() => expect(TransportConfig.make).toBeTypeOf("function")),
  "tls_min_version: default TLSv1_3": gives(
    Effect.map(config(), ({ tlsMinVersion }) => tlsMinVersion),
    "TLSv1.3"
  ),
  "tls_min_version: TLSv1_2": gives(
    Effect.map(config({ tlsMinVersion: "TLSv1.2" }), ({ tlsMinVersion }) => tlsMinVersion),
    "TLSv1.2"
  ),
  "tls_max_version: default TLSv1_3": gives(
    Effect.map(config(), ({ tlsMaxVersion }) => tlsMaxVersion),
    "TLSv1.3"
  ),
  "timeout: default 30 seconds": gives(
    Effect.map(config(), ({ timeout }) => Duration.toSeconds(timeout)),
    30
  ),
  "timeout: limits a request": Effect.gen(function* () {
    const { channel, network } = yield* world
    yield* network.setHandler(() => Effect.never)
    const made = yield* channel({ config: { timeout: "5 seconds" } })
    const call = yield* Effect.fork(Effect.flip(made.get("/")))
    yield* TestClock.adjust("5 seconds")
    expect(yield* Fiber.join(call)).toMatchObject({ _tag: "TimeoutError", phase: "Headers" })
  }),
  "verify_peer: default True": gives(
    Effect.map(config(), ({ verifyPeer }) => verifyPeer),
    true
  ),
  "verify_peer: always True": Effect.map(impostor, (error) => expect(error._tag).toBe("PeerVerificationError")),
  "retry_config: default None": gives(
    Effect.map(config(), ({ retry }) => retry),
    undefined
  ),
  "retry_config: is used": gives(failing([503], { retry: RetryConfig.defaults, timeout: "1 minute" }), {
    status: 200,
    answered: 2
  }),
  "ValueError: verify_peer is False": refuses(config(untyped('{"verifyPeer":false}')), "TransportConfig", "verifyPeer"),
  "ValueError: tls_min_version is less than TLSv1_2": refuses(
    config(untyped('{"tlsMinVersion":"TLSv1.1"}')),
    "TransportConfig",
    "tlsMinVersion"
  ),
  "ValueError: timeout is not positive": Effect.zipRight(
    refuses(config({ timeout: 0 }), "TransportConfig", "timeout"),
    refuses(config({ timeout: "-1 seconds" }), "TransportConfig", "timeout")
  )
})

rows("PeerVerificationError", {
  import: Effect.sync(() =>
    expect(TransportError.PeerVerificationError).toBe(PeerVerificationError.PeerVerificationError)
  ),
  "raised when verification fails": Effect.map(impostor, (error) => expect(error._tag).toBe("PeerVerificationError")),
  expected_id: Effect.map(impostor, (error) => expect(error).toMatchObject({ expectedId: peer })),
  actual_id: Effect.map(impostor, (error) => expect(error).toMatchObject({ actualId: other })),
  "actual_id: None": Effect.sync(() =>
    expect(
      new PeerVerificationError.PeerVerificationError({
        expectedId: peer,
        actualId: null,
        reason: "NoCertificate",
        description: "none came"
      }).actualId
    ).toBeNull()
  )
})
