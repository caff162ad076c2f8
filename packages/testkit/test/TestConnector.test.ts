import { IdentityError, SpiffeId } from "@agentweave/spiffe"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as TestConnector from "@agentweave/testkit/TestConnector"
import * as TestIdentity from "@agentweave/testkit/TestIdentity"
import * as TestMessage from "@agentweave/testkit/TestMessage"
import { type AuditEvent, AuditLog, PeerIdentity, SecureChannel, TransportError } from "@agentweave/transport"
import { HttpClientRequest, HttpRouter, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Random, Scope, Stream, TestClock } from "effect"
import { settled } from "../../spiffe/test/support/settled.js"

const peer = "spiffe://example.org/billing"

const setup = Effect.fnUntraced(function* <R>(
  handler: TestMessage.Handler<R>,
  config: NonNullable<SecureChannel.Options["config"]> = {}
) {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const identity = yield* TestIdentity.make(yield* authority.context({ path: "/api", ttl: "10 hours" }))
  const events: Array<AuditEvent.AuditEvent> = []
  const network = yield* TestConnector.make({ handler })
  const scope = yield* Scope.make()
  const services = yield* Layer.build(
    Layer.provideMerge(network.layer, Layer.merge(identity.layer, AuditLog.layerMemory(events)))
  )
  const channel = yield* SecureChannel.make({ peer, baseUrl: "https://billing.internal:8443/v1", config }).pipe(
    Scope.extend(scope),
    Effect.provide(services)
  )
  return { authority, channel, events, identity, network, scope }
})

const echo: TestMessage.Handler = ({ caller, path, request }) =>
  Effect.succeed(HttpServerResponse.text(`${request.method} ${path} by ${caller.spiffeId}`))

const text = (value: string) => HttpServerResponse.text(value)

describe("TestConnector", () => {
  it.scoped("answers requests from a handler that knows who calls, on a connection that is reused and on record", () =>
    Effect.gen(function* () {
      const { channel, events, network, scope } = yield* setup(echo)
      const first = yield* channel.get("/invoices", { urlParams: { page: 2 } })
      expect(yield* first.text).toBe("GET /v1/invoices?page=2 by spiffe://example.org/api")
      yield* TestClock.adjust("1 minute")
      expect((yield* channel.del("/invoices")).status).toBe(200)
      expect(yield* network.connections).toEqual([
        {
          id: expect.stringMatching(/^c\d+$/),
          address: "billing.internal:8443",
          peer,
          ownId: "spiffe://example.org/api",
          openedAt: 0,
          closed: undefined,
          requests: 2
        }
      ])
      yield* Scope.close(scope, Exit.void)
      expect(yield* network.open).toBe(0)
      expect(events.map(({ _tag }) => _tag)).toEqual([
        "ConnectionAttempted",
        "ConnectionEstablished",
        "RequestStarted",
        "RequestEnded",
        "RequestStarted",
        "RequestEnded",
        "ConnectionClosed"
      ])
      expect(events[3]).toMatchObject({
        connectionId: (yield* network.connections)[0]?.id,
        method: "GET",
        path: "/v1/invoices",
        status: 200
      })
      expect(events.at(-1)).toMatchObject({ reason: "Shutdown", requests: 2, time: 60_000, durationMillis: 60_000 })
    })
  )

  it.scoped("carries status, headers, cookies and bodies, whole and streamed, both ways", () =>
    Effect.gen(function* () {
      const { channel, events, network, scope } = yield* setup((request) =>
        Effect.map(request.text, (body) =>
          HttpServerResponse.stream(Stream.make(body, "!").pipe(Stream.encodeText), { status: 201 }).pipe(
            HttpServerResponse.setHeader("x-seen", request.request.headers["x-sent"] ?? ""),
            HttpServerResponse.unsafeSetCookie("a", "1")
          )
        )
      )
      const response = yield* channel.post("/x", {
        headers: { "x-sent": "yes" },
        body: HttpClientRequest.bodyStream(HttpClientRequest.post(""), Stream.make("he", "llo").pipe(Stream.encodeText))
          .body
      })
      expect([response.status, response.headers["x-seen"]]).toEqual([201, "yes"])
      expect(response.cookies.cookies["a"]).toMatchObject({ value: "1" })
      expect(yield* response.text).toBe("hello!")
      yield* network.setHandler(() => Effect.succeed(HttpServerResponse.unsafeJson({ ok: true })))
      expect(yield* Effect.flatMap(channel.get("/json"), (json) => json.json)).toEqual({ ok: true })
      const head = yield* channel.head("/json")
      expect([head.headers["content-type"], yield* head.text]).toEqual(["application/json", ""])
      yield* Scope.close(scope, Exit.void)
      expect(events.at(-1)).toMatchObject({ requests: 3, bytesWritten: 5, bytesRead: 6 + 11 })
    })
  )

  it.scoped("makes the peer wait for a reader that is slow", () =>
    Effect.gen(function* () {
      let produced = 0
      const kilobyte = new Uint8Array(1024)
      const endless = Stream.repeatEffect(
        Effect.sync(() => {
          produced++
          return kilobyte
        })
      )
      const { channel, network } = yield* setup(() => Effect.succeed(HttpServerResponse.stream(endless)))
      const response = yield* channel.get("/endless")
      yield* settled
      // 64 KiB are taken ahead of the reader.
      expect(produced).toBeGreaterThan(60)
      expect(produced).toBeLessThan(80)
      const before = produced
      expect(yield* Stream.runCount(Stream.take(response.stream, 500))).toBe(500)
      expect(produced).toBeGreaterThan(before)
      expect(yield* network.connections).toMatchObject([{ closed: { reason: "Aborted" } }])
    })
  )

  it.scoped("fails connects as the test says: unreachable, an impostor, too slow", () =>
    Effect.gen(function* () {
      const { channel, events, network } = yield* setup(echo, { connectTimeout: "5 seconds" })
      yield* network.setOnConnect(TestConnector.unreachable())
      expect(yield* Effect.flip(channel.get("/"))).toMatchObject({
        _tag: "ConnectionError",
        reason: "Refused",
        outcome: "NotSent",
        address: "billing.internal:8443"
      })
      yield* network.setOnConnect(TestConnector.impostor(SpiffeId.make("spiffe://example.org/web")))
      expect(yield* Effect.flip(channel.get("/"))).toMatchObject({
        _tag: "PeerVerificationError",
        reason: "UnexpectedPeer",
        actualId: "spiffe://example.org/web"
      })
      yield* network.setOnConnect(() => Effect.never)
      const slow = yield* Effect.fork(Effect.flip(channel.get("/")))
      yield* TestClock.adjust("5 seconds")
      expect(yield* Fiber.join(slow)).toMatchObject({ _tag: "TimeoutError", phase: "Connect", outcome: "NotSent" })
      expect(yield* network.attempts).toBe(3)
      expect(yield* network.connections).toEqual([])
      expect(events.filter(({ _tag }) => _tag === "ConnectionRefused")).toMatchObject([
        { error: "ConnectionError", reason: "Refused" },
        { error: "PeerVerificationError", reason: "UnexpectedPeer" },
        { error: "TimeoutError", reason: "Connect", durationMillis: 5000 }
      ])
      yield* network.setOnConnect(TestConnector.reachable)
      expect((yield* channel.get("/")).status).toBe(200)
    })
  )

  it.scoped("judges our own identity as a real connector does", () =>
    Effect.gen(function* () {
      const { authority, channel, identity, network } = yield* setup(echo)
      const gone = new IdentityError.IdentityError({ reason: "Withdrawn", description: "by the test" })
      yield* identity.fail(gone)
      expect(yield* Effect.flip(channel.get("/"))).toBe(gone)
      yield* identity.rotate(authority.context({ validity: "Expired" }))
      expect(yield* Effect.flip(channel.get("/"))).toMatchObject({ _tag: "IdentityError", reason: "Expired" })
      const elsewhere = yield* DevAuthority.make({ trustDomain: "elsewhere.test" })
      yield* identity.rotate(elsewhere.context())
      expect(yield* Effect.flip(channel.get("/"))).toMatchObject({ reason: "NoBundle" })
      expect(yield* network.connections).toEqual([])
    })
  )

  it.scoped("refuses an attempt or a connection that the audit log does not take", () =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const network = yield* TestConnector.make()
      const full = new AuditLog.AuditError({ reason: "Full", description: "by the test" })
      for (const refused of ["ConnectionAttempted", "ConnectionEstablished"]) {
        const audit = Layer.succeed(AuditLog.AuditLog, {
          unsafeRecord: ({ _tag }) => (_tag === refused ? full : undefined)
        })
        const request = Effect.flatMap(SecureChannel.make({ peer, baseUrl: "https://billing" }), (_) => _.get("/"))
        const error = yield* Effect.flip(request).pipe(
          Effect.provide(network.layer),
          Effect.provide(Layer.merge(DevAuthority.layerIdentity(authority), audit))
        )
        expect(`${error._tag}: ${error.message}`).toBe("AuditError: Full: by the test")
      }
      expect(yield* network.connections).toEqual([])
    })
  )

  it.scoped("times requests out on the test's clock, before the headers and within the body", () =>
    Effect.gen(function* () {
      const { channel, network } = yield* setup(() => Effect.never, { timeout: "30 seconds" })
      const silent = yield* Effect.fork(Effect.flip(channel.get("/")))
      yield* TestClock.adjust("30 seconds")
      expect(yield* Fiber.join(silent)).toMatchObject({ _tag: "TimeoutError", phase: "Headers", outcome: "Unknown" })
      yield* network.setHandler(() =>
        Effect.succeed(HttpServerResponse.stream(Stream.concat(Stream.make(new Uint8Array(3)), Stream.never)))
      )
      const response = yield* channel.get("/")
      const stuck = yield* Effect.fork(Effect.flip(response.arrayBuffer))
      yield* TestClock.adjust("30 seconds")
      expect((yield* Fiber.join(stuck)).cause).toMatchObject({ _tag: "TimeoutError", phase: "Body" })
      expect((yield* network.connections).map(({ closed }) => closed)).toEqual([
        { at: 30_000, reason: "Error" },
        { at: 60_000, reason: "Error" }
      ])
    })
  )

  it.scoped(
    "closes connections from the peer's side: idle ones, and under a request before and within its response",
    () =>
      Effect.gen(function* () {
        const started = yield* Deferred.make<void>()
        const { channel, events, network } = yield* setup(() => Effect.succeed(text("ok")))
        yield* channel.get("/")
        yield* network.closeAll()
        expect(yield* network.open).toBe(0)
        yield* network.setHandler(() => Effect.zipRight(Deferred.succeed(started, undefined), Effect.never))
        const waiting = yield* Effect.fork(Effect.flip(channel.get("/")))
        yield* Deferred.await(started)
        yield* network.closeAll(({ id }) => id === "another")
        expect(yield* network.open).toBe(1)
        yield* network.closeAll()
        expect(yield* Fiber.join(waiting)).toMatchObject({ reason: "Closed", outcome: "Unknown" })
        expect(events.slice(-2)).toMatchObject([
          { _tag: "RequestEnded", error: "ConnectionError" },
          { _tag: "ConnectionClosed", reason: "PeerClosed" }
        ])
        yield* network.setHandler(() =>
          Effect.succeed(HttpServerResponse.stream(Stream.concat(Stream.make(new Uint8Array(3)), Stream.never)))
        )
        const response = yield* channel.get("/")
        yield* network.closeAll()
        expect((yield* Effect.flip(response.text)).cause).toMatchObject({ reason: "Lost", outcome: "Unknown" })
        expect(events.filter(({ _tag }) => _tag === "ConnectionClosed").length).toBe(3)
        expect((yield* network.connections).every(({ closed }) => closed?.reason === "PeerClosed")).toBe(true)
      })
  )

  it.scoped(
    "limits a response's body as a real connector does: in time, in size, and by the scope of its request",
    () =>
      Effect.gen(function* () {
        const large = HttpServerResponse.stream(Stream.repeatValue(new Uint8Array(32 * 1024)))
        const { channel } = yield* setup(({ path }) => Effect.succeed(path === "/v1/large" ? large : text("small")), {
          connections: 1,
          bodyTimeout: "20 seconds",
          maxResponseSize: 100_000
        })
        const small = Effect.flatMap(channel.get("/small"), (response) => response.text)
        expect(yield* Effect.flip(Effect.flatMap(channel.get("/large"), (response) => response.text))).toMatchObject({
          _tag: "ResponseError",
          cause: { _tag: "ResponseTooLargeError", limit: 100_000 }
        })
        yield* Effect.scoped(channel.get("/large"))
        expect(yield* small).toBe("small")
        const unread = yield* channel.get("/large")
        const next = yield* Effect.fork(small)
        yield* TestClock.adjust("20 seconds")
        expect(yield* Fiber.join(next)).toBe("small")
        expect(yield* Effect.flip(unread.text)).toMatchObject({
          _tag: "ResponseError",
          cause: { _tag: "TimeoutError", phase: "Read" }
        })
      })
  )

  it.scoped("does not give a body for whole that is not of its declared length, as a real server does not", () =>
    Effect.gen(function* () {
      const { channel, events } = yield* setup(({ path }) =>
        Effect.succeed(
          HttpServerResponse.stream(Stream.make(new Uint8Array(3), new Uint8Array(3)), {
            contentLength: Number(path.slice("/v1/".length))
          })
        )
      )
      const read = (declared: number) => Effect.flatMap(channel.get(`/${declared}`), (response) => response.arrayBuffer)
      for (const declared of [5, 7]) {
        expect(yield* Effect.flip(read(declared))).toMatchObject({ cause: { _tag: "ConnectionError", reason: "Lost" } })
      }
      expect((yield* read(6)).byteLength).toBe(6)
      expect(events.flatMap((event) => (event._tag === "RequestEnded" ? [event.error] : []))).toEqual([
        "ConnectionError",
        "ConnectionError",
        undefined
      ])
    })
  )

  it.scoped("ends a connection after HEAD, as a real connector does", () =>
    Effect.gen(function* () {
      const { channel, network } = yield* setup(echo)
      expect((yield* channel.head("/")).status).toBe(200)
      expect(yield* network.connections).toMatchObject([{ closed: { reason: "PeerClosed" }, requests: 1 }])
      expect((yield* channel.get("/")).status).toBe(200)
      expect((yield* network.connections).length).toBe(2)
    })
  )

  it.scoped("lets a handler close the connection it answers on", () =>
    Effect.gen(function* () {
      const { channel, network } = yield* setup(echo)
      const interrupted = yield* Deferred.make<void>()
      yield* network.setHandler(() =>
        Effect.zipRight(network.closeAll(), Effect.never).pipe(
          Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
        )
      )
      expect(yield* Effect.flip(channel.get("/"))).toMatchObject({ reason: "Closed" })
      yield* Deferred.await(interrupted)
      yield* network.setHandler(() => Effect.as(network.closeAll(), text("too late")))
      // The second in a row, as over sockets.
      expect(yield* Effect.flip(channel.get("/"))).toMatchObject({ reason: "MaybeRefused" })
      expect((yield* network.connections).map(({ closed }) => closed?.reason)).toEqual(["PeerClosed", "PeerClosed"])
    })
  )

  it.scoped("aborts the handler of a request that is interrupted, and closes its connection", () =>
    Effect.gen(function* () {
      const started = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<void>()
      const { channel, events, network } = yield* setup(() =>
        Effect.zipRight(Deferred.succeed(started, undefined), Effect.never).pipe(
          Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
        )
      )
      const request = yield* Effect.fork(channel.get("/"))
      yield* Deferred.await(started)
      yield* Fiber.interrupt(request)
      yield* Deferred.await(interrupted)
      expect(events.slice(-2)).toMatchObject([
        { _tag: "RequestEnded", error: "Interrupted" },
        { _tag: "ConnectionClosed", reason: "Aborted", requests: 1 }
      ])
      expect(yield* network.connections).toMatchObject([{ closed: { reason: "Aborted" } }])
    })
  )

  it.scoped("fails what is in flight when its owner's scope closes", () =>
    Effect.gen(function* () {
      const started = yield* Deferred.make<void>()
      const { channel, network, scope } = yield* setup(() =>
        Effect.zipRight(Deferred.succeed(started, undefined), Effect.never)
      )
      const request = yield* Effect.fork(Effect.exit(channel.get("/")))
      yield* Deferred.await(started)
      yield* Scope.close(scope, Exit.void)
      expect(Exit.isFailure(yield* Fiber.join(request))).toBe(true)
      expect(yield* network.connections).toMatchObject([{ closed: { reason: "Shutdown" } }])
    })
  )

  it.scoped("fails a request with what its handler fails with, and its connection is gone", () =>
    Effect.gen(function* () {
      const lost = new TransportError.ConnectionError({
        reason: "Lost",
        outcome: "Unknown",
        address: "x:1",
        description: "by the test"
      })
      const { channel, events, network } = yield* setup(() => Effect.fail(lost))
      expect(yield* Effect.flip(channel.get("/"))).toBe(lost)
      yield* network.setHandler(() => Effect.die("a mistake in the test"))
      const died = yield* Effect.exit(channel.get("/"))
      expect(String(died)).toContain("a mistake in the test")
      yield* network.setHandler(({ text }) => Effect.map(text, HttpServerResponse.text))
      const body = Stream.fail("no more").pipe(Stream.orDieWith(String), Stream.encodeText)
      const dying = yield* Effect.exit(channel.execute(HttpClientRequest.bodyStream(HttpClientRequest.post("/"), body)))
      expect(Exit.isFailure(dying)).toBe(true)
      const failing = yield* Effect.flip(
        channel.execute(HttpClientRequest.bodyStream(HttpClientRequest.post("/"), Stream.fail("no more")))
      )
      expect(failing).toMatchObject({ _tag: "RequestError", reason: "Encode", cause: "no more" })
      expect((yield* network.connections).map(({ closed }) => closed?.reason)).toEqual(Array(4).fill("Error"))
      expect(events.flatMap((event) => (event._tag === "RequestEnded" ? [event.error] : []))).toEqual([
        "ConnectionError",
        "Defect",
        "Defect",
        "RequestError"
      ])
    })
  )

  it.scoped("ends connections at their greatest age, and when a certificate on them expires", () =>
    Effect.gen(function* () {
      const aged = yield* setup(echo, { maxConnectionAge: "1 hour" })
      yield* aged.channel.get("/")
      yield* TestClock.adjust("1 hour")
      expect(yield* aged.network.connections).toMatchObject([{ closed: { at: 3_600_000, reason: "Age" } }])

      const ours = yield* setup(echo)
      yield* ours.channel.get("/")
      yield* TestClock.adjust("10 hours")
      expect(yield* ours.network.connections).toMatchObject([{ closed: { reason: "Expiry" } }])

      const theirs = yield* setup(echo)
      const notAfter = 12 * 3_600_000
      yield* theirs.network.setOnConnect(() => Effect.succeed({ spiffeId: SpiffeId.make(peer), notAfter }))
      yield* theirs.channel.get("/")
      yield* TestClock.adjust("1 hour")
      expect(yield* theirs.network.connections).toMatchObject([{ closed: { at: notAfter, reason: "Expiry" } }])
      expect(yield* Effect.flip(theirs.channel.get("/"))).toMatchObject({ reason: "Expired" })
      // Both ends come up to a tenth earlier, drawn at random for each connection.
    }).pipe(Effect.withRandom(Random.fixed([0])))
  )

  it.scoped("gives handlers the services of the test that sets them", () =>
    Effect.gen(function* () {
      class Greeting extends Context.Tag("Greeting")<Greeting, string>() {}
      const { channel, network } = yield* setup(echo)
      yield* network
        .setHandler(() => Effect.map(Greeting, (greeting) => text(greeting)))
        .pipe(Effect.provideService(Greeting, "hello"))
      expect(yield* Effect.flatMap(channel.get("/"), (response) => response.text)).toBe("hello")
    })
  )
})

describe("TestMessage.fromApp", () => {
  it.scoped("answers from a whole application that knows its caller", () =>
    Effect.gen(function* () {
      const app = HttpRouter.empty.pipe(
        HttpRouter.get(
          "/v1/whoami",
          Effect.map(PeerIdentity.caller, ({ spiffeId }) => text(spiffeId))
        ),
        HttpRouter.post(
          "/v1/double",
          Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) =>
            Effect.map(request.text, (body) => text(body + body))
          )
        ),
        HttpRouter.get("/v1/broken", Effect.die("a mistake"))
      )
      const { channel } = yield* setup(TestMessage.fromApp(app))
      const read = Effect.flatMap((response: { readonly text: Effect.Effect<string, unknown> }) => response.text)
      expect(yield* read(channel.get("/whoami"))).toBe("spiffe://example.org/api")
      expect(yield* read(channel.execute(HttpClientRequest.bodyText(HttpClientRequest.post("/double"), "ab")))).toBe(
        "abab"
      )
      expect((yield* channel.get("/nowhere")).status).toBe(404)
      expect((yield* channel.get("/broken")).status).toBe(500)
    })
  )
})
