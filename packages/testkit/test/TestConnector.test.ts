import { IdentityError, SpiffeId } from "@agentweave/spiffe"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as TestConnector from "@agentweave/testkit/TestConnector"
import * as TestMessage from "@agentweave/testkit/TestMessage"
import { AuditLog, PeerIdentity, SecureChannel, TransportError } from "@agentweave/transport"
import { HttpClientRequest, HttpRouter, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Random, Scope, Stream, TestClock } from "effect"
import { peer, setup, text } from "./billingNetwork.js"

const echo: TestMessage.Handler = ({ caller, path, request }) =>
  Effect.succeed(HttpServerResponse.text(`${request.method} ${path} by ${caller.spiffeId}`))

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

  it.scoped("ends a connection after HEAD, as a real connector does", () =>
    Effect.gen(function* () {
      const { channel, network } = yield* setup(echo)
      expect((yield* channel.head("/")).status).toBe(200)
      expect(yield* network.connections).toMatchObject([{ closed: { reason: "PeerClosed" }, requests: 1 }])
      expect((yield* channel.get("/")).status).toBe(200)
      expect((yield* network.connections).length).toBe(2)
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
