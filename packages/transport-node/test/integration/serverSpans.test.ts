/** The spans of requests on both sides of a real connection. */
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import { CapturedHeaders } from "@agentweave/transport"
import type { PeerIdentity } from "@agentweave/transport/PeerIdentity"
import { type HttpApp, HttpMiddleware, HttpRouter, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Stream } from "effect"
import { printed } from "../../../transport/test/leaks.js"
import { makeTracer, type Recorded } from "../../../transport/test/recordingTracer.js"
import { failure, hostileClient, realTime, startClient, startServer } from "./fixture.js"

class Broken extends Error {
  override readonly name = "Broken"
}

const app: HttpApp.Default<never, PeerIdentity> = HttpRouter.empty.pipe(
  HttpRouter.get("/orders/:id", Effect.as(Effect.withSpan(Effect.void, "lookup"), HttpServerResponse.text("an order"))),
  HttpRouter.get("/unavailable", HttpServerResponse.text("not now", { status: 503 })),
  HttpRouter.get("/broken", Effect.die(new Broken("s3cr3t of a defect"))),
  HttpRouter.get("/failed", Effect.fail({ _tag: "OutOfStock", detail: "s3cr3t of a failure" })),
  HttpRouter.get("/slow", Effect.never),
  HttpRouter.get(
    "/torn",
    HttpServerResponse.stream(Stream.concat(Stream.make(new Uint8Array(10)), Stream.die(new Broken("s3cr3t"))))
  ),
  // Who fails is answered by the platform.
  Effect.catchAll((error) => Effect.die(error))
)

/** The spans of the server, as soon as so many of its requests are over. */
const ended = ({ recorded, waiters }: ReturnType<typeof makeTracer>, count: number) =>
  Effect.async<ReadonlyArray<Recorded>>((resume) => {
    const look = () => {
      const over = recorded().filter(({ exit, kind }) => kind === "server" && exit !== undefined)
      if (over.length >= count) resume(Effect.succeed(over))
    }
    waiters.add(look)
    look()
    return Effect.sync(() => waiters.delete(look))
  })

const setUp = Effect.gen(function* () {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const tracing = makeTracer()
  const [web, api] = [authority.id("/web"), authority.id("/api")]
  const serve = (served: HttpApp.Default<never, PeerIdentity> = app) =>
    Effect.gen(function* () {
      const identity = yield* authority.context({ path: "/api" })
      return yield* startServer({ identity, authorize: web, app: served })
    })
  const server = yield* Effect.withTracer(serve(), tracing.tracer)
  const client = yield* startClient(yield* authority.context({ path: "/web" }))
  const channel = yield* client.channel({ port: server.port, peer: api })
  return { authority, tracing, web, api, serve, server, client, channel }
})

it.scoped(
  "a request is one span with its attributes, its handler's spans below, child of the caller's across the wire",
  () =>
    Effect.gen(function* () {
      const { api, channel, client, server, tracing, web } = yield* setUp
      const calling = makeTracer()
      const response = yield* Effect.withTracer(
        channel.get("/orders/7?key=s3cr3t", { headers: { authorization: "s3cr3t" } }),
        calling.tracer
      )
      yield* response.text
      const [span] = yield* ended(tracing, 1)
      const caller = calling.recorded().find(({ name }) => name === "GET")
      const established = yield* server.log.nth("ConnectionEstablished")
      expect(span).toMatchObject({ name: "GET", kind: "server", parent: "external", exit: Exit.void })
      expect(span?.parentId).toBe(caller?.spanId)
      expect(span?.traceId).toBe(caller?.traceId)
      expect(span?.attributes).toEqual({
        "http.request.method": "GET",
        "http.route": "/orders/:id",
        "http.response.status_code": 200,
        "url.scheme": "https",
        "url.path": "/orders/7",
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "client.address": "127.0.0.1",
        "client.port": Number(established.address.split(":")[1]),
        "network.protocol.version": "1.1",
        "tls.protocol.name": "tls",
        "tls.protocol.version": "1.3",
        "tls.cipher": established.cipher,
        "spiffe.peer.id": web,
        "spiffe.self.id": api,
        "transport.connection.id": established.connectionId
      })
      const below = tracing.recorded().find(({ name }) => name === "lookup")
      expect(below?.parentId).toBe(span?.spanId)
      for (const { log } of [server, client]) {
        const { traceId } = yield* log.nth("RequestEnded")
        expect(traceId).toBe(caller?.traceId)
      }
    })
)

it.scoped("a span tells how its request ended; of an error its name and nothing it says", () =>
  Effect.gen(function* () {
    const { channel, tracing } = yield* setUp
    const paths = ["/orders/1", "/absent?key=s3cr3t", "/unavailable", "/broken", "/failed"]
    for (const path of paths) yield* Effect.flatMap(channel.get(path), (response) => response.text)
    const spans = yield* ended(tracing, paths.length)
    expect(
      spans.map(({ attributes, exit }) => [
        attributes["http.response.status_code"],
        attributes["error.type"],
        exit !== undefined && Exit.isSuccess(exit)
      ])
    ).toEqual([
      [200, undefined, true],
      [404, undefined, true],
      [503, "503", false],
      [500, "Broken", false],
      [500, "OutOfStock", false]
    ])
    expect(printed(tracing.exported())).not.toContain("s3cr3t")
  })
)

it.scoped("a caller that goes away, and a response that breaks off", () =>
  Effect.gen(function* () {
    const { channel, server, tracing } = yield* setUp
    const calling = yield* Effect.fork(channel.get("/slow"))
    yield* server.log.nth("RequestStarted")
    yield* Fiber.interrupt(calling)
    const [aborted] = yield* ended(tracing, 1)
    expect(aborted?.attributes["error.type"]).toBe("Interrupted")
    expect(aborted?.attributes["http.response.status_code"]).toBeUndefined()
    expect(
      aborted?.exit !== undefined && Exit.isFailure(aborted.exit) && Cause.isInterruptedOnly(aborted.exit.cause)
    ).toBe(true)
    yield* failure(Effect.flatMap(channel.get("/torn"), (response) => response.text))
    const torn = (yield* ended(tracing, 2))[1]
    expect(torn?.attributes).toMatchObject({ "error.type": "Broken", "http.response.status_code": 200 })
    expect(printed(tracing.exported())).not.toContain("s3cr3t")
  })
)

it.scoped("the caller's span is taken from B3 headers too, and from nothing that is no ID", () =>
  Effect.gen(function* () {
    const { authority, server, tracing } = yield* setUp
    const credentials = yield* authority.issueRaw({ path: "/web" })
    const [trace, span] = ["a".repeat(32), "b".repeat(16)]
    const given = [
      `b3: ${trace}-${span}-1`,
      `x-b3-traceid: ${trace}\r\nx-b3-spanid: ${span}`,
      "b3: s3cr3t-s3cr3t-1",
      `traceparent: 00-${"0".repeat(32)}-${span}-01`
    ]
    for (const header of given) {
      const request = `GET /orders/1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n${header}\r\n\r\n`
      yield* hostileClient(server.port, credentials, { request })
    }
    const spans = yield* ended(tracing, given.length)
    expect(spans.map(({ parentId }) => parentId)).toEqual([span, span, undefined, undefined])
    expect(spans.map(({ traceId }) => traceId)).toEqual([trace, trace, tracing.trace, tracing.trace])
    // A trace that begins here is on record with the end of its request.
    expect((yield* server.log.nth("RequestEnded", 2)).traceId).toBe(tracing.trace)
    expect(printed(tracing.exported())).not.toContain("s3cr3t")
  })
)

it.scoped("a method that HTTP does not define is one of all others, so that callers cannot make names of spans", () =>
  Effect.gen(function* () {
    const { authority, server, tracing } = yield* setUp
    const credentials = yield* authority.issueRaw({ path: "/web" })
    yield* hostileClient(server.port, credentials, {
      request: "PROPFIND /orders/7 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    })
    const [span] = yield* ended(tracing, 1)
    expect(span?.name).toBe("HTTP")
    expect(span?.attributes["http.request.method"]).toBe("_OTHER")
    expect(span?.attributes["http.request.method_original"]).toBe("PROPFIND")
  })
)

it.scoped("without a tracer, and where it is turned off, there is no span; listed headers are in it", () =>
  Effect.gen(function* () {
    const { api, client, serve } = yield* setUp
    const tracing = makeTracer()
    const visible = Effect.gen(function* () {
      const request = yield* HttpServerRequest.HttpServerRequest
      const span = yield* Effect.option(Effect.currentSpan)
      return HttpServerResponse.text(`${request.url} ${span._tag}`)
    })
    const untraced = yield* serve(visible)
    const [host, health] = ["x-request-id", "/health"]
    const traced = yield* serve(visible).pipe(
      Effect.provideService(CapturedHeaders.CapturedHeaders, [host, "authorization"]),
      Effect.locally(HttpMiddleware.currentTracerDisabledWhen, ({ url }) => url === health),
      Effect.withTracer(tracing.tracer)
    )
    const answers: Array<string> = []
    for (const [port, path] of [
      [untraced.port, "/a"],
      [traced.port, health],
      [traced.port, "/b"]
    ] as const) {
      const channel = yield* client.channel({ port, peer: api })
      const response = yield* channel.get(path, { headers: { [host]: "42", authorization: "s3cr3t" } })
      answers.push(yield* response.text)
    }
    expect(answers).toEqual(["/a None", "/health None", "/b Some"])
    const spans = yield* ended(tracing, 1)
    expect(
      spans.map(({ attributes }) => [attributes["url.path"], attributes["http.request.header.x-request-id"]])
    ).toEqual([["/b", "42"]])
    expect(printed(tracing.exported())).not.toContain("s3cr3t")
  })
)

it.scoped("what a connection is upgraded to runs inside a span", () =>
  Effect.gen(function* () {
    const { authority, serve } = yield* setUp
    const tracing = makeTracer()
    const socket = Effect.gen(function* () {
      const request = yield* HttpServerRequest.HttpServerRequest
      const upgraded = yield* request.upgrade
      yield* Effect.withSpan(Effect.void, "greeting")
      // Until the caller goes away.
      yield* Effect.ignore(upgraded.run(() => {}))
      return HttpServerResponse.empty()
    }).pipe(Effect.scoped, Effect.orDie)
    const server = yield* Effect.withTracer(serve(socket), tracing.tracer)
    const credentials = yield* authority.issueRaw({ path: "/web" })
    const headers = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13"
    const calling = yield* Effect.fork(
      hostileClient(server.port, credentials, {
        request: `GET /socket?s3cr3t HTTP/1.1\r\nhost: x\r\n${headers}\r\nsec-websocket-key: ${"A".repeat(22)}==\r\n\r\n`,
        onData: () => Effect.runFork(Fiber.interrupt(calling))
      })
    )
    const [span] = yield* ended(tracing, 1)
    expect(span?.attributes["url.path"]).toBe("/socket")
    expect(tracing.recorded().find(({ name }) => name === "greeting")?.parentId).toBe(span?.spanId)
    expect(printed(tracing.exported())).not.toContain("s3cr3t")
  })
)
