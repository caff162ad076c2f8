import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import type * as SecureChannel from "@agentweave/transport/SecureChannel"
import * as NodeDispatcher from "@agentweave/transport-node/NodeDispatcher"
import { HttpClient, HttpClientResponse, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeHttpServerRequest } from "@effect/platform-node"
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Deferred, Effect, Exit, Scope, Stream } from "effect"
import { request } from "undici"
import { failure, host, realTime, type ServerOptions, startClient, startServer } from "./fixture.js"

/** A server, and a dispatcher that reaches it. */
const setUp = Effect.fnUntraced(function* (app: ServerOptions["app"]) {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const server = yield* startServer({
    identity: yield* authority.context({ path: "/server" }),
    authorize: authority.id("/client"),
    app
  })
  const client = yield* startClient(yield* authority.context({ path: "/client" }))
  const channel: SecureChannel.SecureChannel = yield* client.channel({
    port: server.port,
    peer: authority.id("/server")
  })
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
  return {
    server,
    log: client.log,
    origin: `https://${host}:${server.port}`,
    dispatcher: yield* Scope.extend(NodeDispatcher.make(channel), scope),
    fetch: yield* Scope.extend(NodeDispatcher.makeFetch(channel), scope),
    close: Scope.close(scope, Exit.void)
  }
})

/** The outcome of a promise; a rejection is the failure as it is. */
const promised = <A>(make: (signal: AbortSignal) => Promise<A>): Effect.Effect<A, unknown> =>
  Effect.tryPromise({ try: make, catch: (cause) => cause })

/** Answers with what came: the method, some headers, the body. */
const mirror = Effect.gen(function* () {
  const { headers, method, text } = yield* HttpServerRequest.HttpServerRequest
  const { "content-type": type = "none", cookie = "none", "x-many": many = "none" } = headers
  return HttpServerResponse.text([method, type, cookie, many, yield* text].join(" | "))
}).pipe(Effect.orDie)

describe("a dispatcher over a channel", () => {
  it.scoped("sends a field as it is whose name every object has", () =>
    Effect.gen(function* () {
      const { dispatcher, origin } = yield* setUp(
        Effect.map(HttpServerRequest.HttpServerRequest, ({ headers }) =>
          HttpServerResponse.text(String(headers.constructor))
        )
      )
      const headers = ["constructor", "1", "Constructor", "2"]
      expect(yield* promised(async () => (await request(`${origin}/`, { dispatcher, headers })).body.text())).toBe(
        "1, 2"
      )
    })
  )

  it.scoped("gives a field of the response as it is whose name every object has", () =>
    Effect.gen(function* () {
      const { dispatcher, origin } = yield* setUp(
        Effect.map(HttpServerRequest.HttpServerRequest, (request) => {
          const response = NodeHttpServerRequest.toServerResponse(request)
          response.setHeader("constructor", ["1", "2"])
          response.setHeader("__proto__", "3")
          return HttpServerResponse.empty()
        })
      )
      const { headers } = yield* promised(() => request(`${origin}/`, { dispatcher }))
      const fields = new Map(Object.entries(headers))
      expect(fields.get("constructor")).toBe("1, 2")
      expect(fields.get("__proto__")).toBe("3")
    })
  )

  it.scoped("refuses a path that would make another host of its origin, before the client sees it", () =>
    Effect.gen(function* () {
      const urls: Array<string> = []
      const dispatcher = yield* NodeDispatcher.make(
        HttpClient.make((request, url) => {
          urls.push(url.href)
          return Effect.succeed(HttpClientResponse.fromWeb(request, new Response("served")))
        })
      )
      for (const path of ["@elsewhere.test/", ".elsewhere.test/", ":1/", "elsewhere"]) {
        const asked = promised(() => dispatcher.request({ origin: "https://here.test", path, method: "GET" }))
        expect(yield* failure(asked)).toMatchObject({ _tag: "RequestError", reason: "InvalidUrl" })
      }
      expect(urls).toEqual([])
      yield* promised(() => dispatcher.request({ origin: "https://here.test", path: "/", method: "GET" }))
      expect(urls).toEqual(["https://here.test/"])
    })
  )

  it.scoped("sends bodies of every kind, with the headers the caller gave", () =>
    Effect.gen(function* () {
      const { dispatcher, fetch, origin } = yield* setUp(mirror)
      const send = (options: Parameters<typeof request>[1]) =>
        promised(async () => (await request(`${origin}/`, { dispatcher, ...options })).body.text())
      expect(yield* send({ method: "PUT", body: "some text" })).toBe("PUT | none | none | none | some text")
      expect(yield* send({ method: "POST", body: Buffer.from("bytes"), headers: { "content-type": "a/b" } })).toBe(
        "POST | a/b | none | none | bytes"
      )
      expect(yield* send({ headers: ["Cookie", "a=1", "cookie", "b=2", "x-many", "1", "X-Many", "2"] })).toBe(
        "GET | none | a=1; b=2 | 1, 2 | "
      )
      const pieces = new ReadableStream<Uint8Array>({
        start(controller) {
          for (const piece of ["one ", "two"]) controller.enqueue(new TextEncoder().encode(piece))
          controller.close()
        }
      })
      const init = { method: "POST", body: pieces, duplex: "half" as const }
      expect(yield* promised(async () => (await fetch(`${origin}/`, init)).text())).toContain("one two")
      const form = new FormData()
      form.append("field", "value")
      const answer = yield* promised(async () => (await fetch(`${origin}/`, { method: "POST", body: form })).text())
      expect(answer).toContain("POST | multipart/form-data; boundary=")
      expect(answer).toContain('name="field"')
    })
  )

  it.scoped("hands on status, headers and each cookie of the response", () =>
    Effect.gen(function* () {
      const { dispatcher, fetch, origin } = yield* setUp(
        HttpServerResponse.text("gone", { status: 410, headers: { "x-one": "1" } }).pipe(
          HttpServerResponse.unsafeSetCookie("a", "1"),
          HttpServerResponse.unsafeSetCookie("b", "2")
        )
      )
      const response = yield* promised(() => request(`${origin}/`, { dispatcher }))
      expect(yield* promised(() => response.body.text())).toBe("gone")
      expect(response.statusCode).toBe(410)
      expect(response.headers).toMatchObject({ "x-one": "1", "set-cookie": ["a=1", "b=2"] })
      const fetched = yield* promised(() => fetch(`${origin}/`))
      expect(yield* promised(() => fetched.text())).toBe("gone")
      expect(fetched.status).toBe(410)
      expect(fetched.headers.getSetCookie()).toEqual(["a=1", "b=2"])
    })
  )

  it.scoped("ends the request when its caller aborts it", () =>
    Effect.gen(function* () {
      const begun = yield* Deferred.make<void>()
      const gone = yield* Deferred.make<void>()
      const waits = Effect.zipRight(Deferred.succeed(begun, undefined), Effect.never)
      const { fetch, log, origin } = yield* setUp(Effect.onInterrupt(waits, () => Deferred.succeed(gone, undefined)))
      const aborting = new AbortController()
      const call = yield* Effect.fork(failure(promised(() => fetch(`${origin}/`, { signal: aborting.signal }))))
      yield* Deferred.await(begun)
      aborting.abort()
      expect(yield* Effect.fromFiber(call)).toMatchObject({ name: "AbortError" })
      yield* Deferred.await(gone)
      expect(yield* log.nth("RequestEnded")).toMatchObject({ error: "Interrupted" })
    })
  )

  it.scoped("reads no more of a response than its reader takes", () =>
    Effect.gen(function* () {
      const most = 64 * 1024 * 1024
      let sent = 0
      const piece = new Uint8Array(64 * 1024)
      const endless = Stream.repeatEffectChunk(
        Effect.sync(() => {
          sent += piece.length
          return Chunk.of(piece)
        })
      )
      const { fetch, log, origin } = yield* setUp(HttpServerResponse.stream(endless))
      const reader = (yield* promised(() => fetch(`${origin}/`))).body?.getReader()
      if (reader === undefined) return yield* Effect.dieMessage("expected a body")
      expect((yield* promised(() => reader.read())).done).toBe(false)
      // The sender comes to rest: it makes no piece for a while of turns of the event loop.
      let before = -1
      while (before !== sent && sent < most) {
        before = sent
        for (let turn = 0; turn < 200; turn++)
          yield* Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))
      }
      expect(sent).toBeLessThan(most)
      yield* promised(() => reader.cancel())
      yield* log.nth("RequestEnded")
    })
  )

  it.scoped("fails what is asked for after its scope has ended, and what is under way then", () =>
    Effect.gen(function* () {
      const { close, dispatcher, fetch, log, origin } = yield* setUp(Effect.never)
      const call = yield* Effect.fork(failure(promised(() => request(`${origin}/`, { dispatcher }))))
      yield* log.nth("RequestStarted")
      yield* close
      const ended = { _tag: "ScopeClosedError", reason: "Adapter" }
      expect(yield* Effect.fromFiber(call)).toMatchObject(ended)
      expect(yield* failure(promised(() => request(`${origin}/`, { dispatcher })))).toMatchObject(ended)
      expect(yield* failure(promised(() => fetch(`${origin}/`)))).toMatchObject({ cause: ended })
    })
  )

  it.scoped("refuses an upgrade and a path that could be taken for another host, and sends nothing", () =>
    Effect.gen(function* () {
      const { dispatcher, origin, server } = yield* setUp(undefined)
      const sink = () =>
        failure(
          Effect.async<void, unknown>(
            (resume) =>
              void dispatcher.dispatch(
                { origin, path: "@evil.test/", method: "GET" },
                { onRequestStart: () => {}, onResponseError: (_, cause) => resume(Effect.fail(cause)) }
              )
          )
        )
      expect(yield* sink()).toMatchObject({ _tag: "RequestError", reason: "InvalidUrl" })
      expect(
        yield* failure(promised(() => dispatcher.upgrade({ ...{ origin }, path: "/", protocol: "websocket" })))
      ).toBeInstanceOf(Error)
      expect(server.handled()).toBe(0)
    })
  )
})
