import { IdentityProvider } from "@agentweave/spiffe"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as TestConnector from "@agentweave/testkit/TestConnector"
import {
  type AuditEvent,
  AuditLog,
  CapturedHeaders,
  ConnectionPool,
  PeerDirectory,
  SecureChannel
} from "@agentweave/transport"
import { HttpClient, HttpServerResponse } from "@effect/platform"
import { expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, TestClock } from "effect"
import { printed } from "./leaks.js"
import { makeTracer } from "./recordingTracer.js"

const api = "spiffe://example.org/api"

const setUp = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const connector = yield* TestConnector.make()
  const events: Array<AuditEvent.AuditEvent> = []
  const identity = IdentityProvider.layerStatic(yield* authority.context({ path: "/web" }))
  const context = yield* Layer.build(
    Layer.merge(connector.layer.pipe(Layer.provide(identity), Layer.provide(AuditLog.layerMemory(events))), identity)
  )
  const channel = yield* Effect.provide(SecureChannel.make({ peer: api, baseUrl: "https://api.test" }), context)
  const pool = yield* ConnectionPool.layer().pipe(
    Layer.provide(PeerDirectory.layerStatic({ [api]: "https://api.test" })),
    Layer.provide(Layer.succeedContext(context)),
    Layer.build
  )
  const pooled = Context.get(pool, ConnectionPool.ConnectionPool).client(api)
  return { channel, connector, events, pooled }
})

it.scoped("a request is one span with its attributes; handshake and wait are below it, and only the first time", () =>
  Effect.gen(function* () {
    const { channel, connector, events } = yield* setUp
    const seen: Array<string | undefined> = []
    yield* connector.setHandler(({ request }) => {
      seen.push(request.headers["traceparent"])
      return Effect.succeed(HttpServerResponse.text("hello", { status: 404 }))
    })
    const { recorded, trace, tracer } = makeTracer()
    const get = Effect.flatMap(channel.get("/hello?key=secret"), (response) => response.text).pipe(
      Effect.withSpan("program"),
      Effect.withTracer(tracer)
    )
    yield* get
    yield* TestClock.adjust(0)
    const spans = recorded()
    expect(spans.map(({ name, parent }) => `${parent ?? ""} > ${name}`)).toEqual([
      " > program",
      "program > GET",
      "GET > transport.acquire",
      "transport.acquire > transport.handshake"
    ])
    expect(spans[1]?.attributes).toMatchObject({
      "http.request.method": "GET",
      "http.response.status_code": 404,
      "error.type": "404",
      "url.path": "/hello",
      "server.address": "api.test",
      "server.port": 443,
      "spiffe.peer.id": api,
      "spiffe.self.id": "spiffe://example.org/web"
    })
    expect(JSON.stringify(spans[1]?.attributes)).not.toContain("secret")
    // A channel's pool knows its connections by their origin.
    expect(spans[3]?.attributes).toEqual({
      "server.address": "api.test",
      "server.port": 443,
      "tls.protocol.name": "tls",
      "tls.protocol.version": "1.3",
      "tls.cipher": "in memory",
      "transport.connection.id": expect.stringMatching(/^c\d+$/)
    })
    expect(spans.every(({ exit }) => exit !== undefined && Exit.isSuccess(exit))).toBe(true)
    expect(seen).toEqual([`00-${trace}-${spans[1]?.spanId}-01`])
    expect(events.flatMap((event) => (event._tag === "RequestEnded" ? [event.traceId] : []))).toEqual([trace])

    yield* get
    expect(
      recorded()
        .slice(4)
        .map(({ name }) => name)
    ).toEqual(["program", "GET"])
  })
)

it.scoped("without a tracer there is no span and no header", () =>
  Effect.gen(function* () {
    const { channel, connector } = yield* setUp
    let header: string | undefined = "unset"
    yield* connector.setHandler(({ request }) => {
      header = request.headers["traceparent"]
      return Effect.succeed(HttpServerResponse.empty())
    })
    yield* channel.get("/")
    expect(header).toBeUndefined()
  })
)

it.scoped("tracing and propagation are turned off as for any HttpClient", () =>
  Effect.gen(function* () {
    const { channel, connector } = yield* setUp
    const headers: Array<string | undefined> = []
    yield* connector.setHandler(({ request }) => {
      headers.push(request.headers["traceparent"])
      return Effect.succeed(HttpServerResponse.empty())
    })
    const { recorded, tracer } = makeTracer()
    const quiet = HttpClient.withTracerDisabledWhen(channel, () => true)
    const alone = HttpClient.withTracerPropagation(channel, false)
    yield* Effect.withTracer(Effect.zipRight(quiet.get("/"), alone.get("/")), tracer)
    expect(
      recorded()
        .map(({ name }) => name)
        .filter((name) => name === "GET")
    ).toHaveLength(1)
    expect(headers).toEqual([undefined, undefined])
  })
)

it.scoped("a failure and an interruption end the span with their cause", () =>
  Effect.gen(function* () {
    const { channel, connector } = yield* setUp
    const { recorded, tracer } = makeTracer()
    yield* connector.setOnConnect(TestConnector.unreachable("Refused"))
    yield* Effect.flip(Effect.withTracer(channel.get("/"), tracer))
    yield* connector.setOnConnect(TestConnector.reachable)
    yield* connector.setHandler(() => Effect.never)
    const fiber = yield* Effect.fork(Effect.withTracer(channel.get("/"), tracer))
    yield* TestClock.adjust(0)
    yield* Fiber.interrupt(fiber)
    const exits = recorded()
      .filter(({ name }) => name === "GET")
      .map(({ exit }) => exit)
    expect(exits.map((exit) => exit !== undefined && Exit.isFailure(exit))).toEqual([true, true])
  })
)

it.scoped("a failure's span has its name; what the platform says of it, with the query, stays out", () =>
  Effect.gen(function* () {
    const { channel, connector, pooled } = yield* setUp
    const { exported, recorded, tracer } = makeTracer()
    yield* connector.setOnConnect(TestConnector.unreachable("Refused"))
    yield* Effect.flip(Effect.withTracer(channel.get("/a?key=s3cr3t"), tracer))
    yield* connector.setOnConnect(TestConnector.reachable)
    yield* Effect.flip(Effect.withTracer(pooled.get("https://elsewhere.test/?key=s3cr3t"), tracer))
    const types = recorded().flatMap(({ attributes, name }) => (name === "GET" ? [attributes["error.type"]] : []))
    expect(types).toEqual(["ConnectionError", "RequestError"])
    expect(printed(exported())).not.toContain("s3cr3t")
  })
)

it.scoped("header values that are listed are in the span, but never the secrets among them", () =>
  Effect.gen(function* () {
    const { channel } = yield* setUp
    const { exported, recorded, tracer } = makeTracer()
    const headers = { "x-request-id": "42", authorization: "s3cr3t", cookie: "s3cr3t", "x-other": "s3cr3t" }
    const listed = ["X-Request-Id", "Authorization", "cookie", "x-absent"]
    yield* channel
      .get("/", { headers })
      .pipe(Effect.provideService(CapturedHeaders.CapturedHeaders, listed), Effect.withTracer(tracer))
    expect(recorded()[0]?.attributes).toMatchObject({ "http.request.header.x-request-id": "42" })
    expect(printed(exported())).not.toContain("s3cr3t")
  })
)
