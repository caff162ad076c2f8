import { createHash } from "node:crypto"
import type { TLSSocket } from "node:tls"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import type * as TransportConfig from "@agentweave/transport/TransportConfig"
import type * as HttpBody from "@effect/platform/HttpBody"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { expect } from "@effect/vitest"
import { Context, Effect, Layer, Option, Queue, type Scope, Stream } from "effect"
import { execute, type Settled } from "./execute.js"
import { hostileServer, type Opened, type RunningServer, realTime, startClient, startServer } from "./fixture.js"

/** What a raw server does with the first bytes of a request for some path. */
export type Script = (socket: TLSSocket, text: string) => void

/** One client, one secure server and one raw server for all tests; every test has connections of its own. */
export class Shared extends Context.Tag("Shared")<
  Shared,
  {
    readonly server: RunningServer
    /** A connection to the secure server. */
    readonly connect: Effect.Effect<Opened, unknown, Scope.Scope>
    /** A connection to the raw server, which follows the script. */
    readonly scripted: (script: Script, config?: TransportConfig.Options) => Effect.Effect<Opened, unknown, Scope.Scope>
    /** Told by handlers of the secure server that were interrupted. */
    readonly interrupted: Queue.Queue<string>
  }
>() {}

const megabytes = (count: number): Uint8Array => {
  const bytes = new Uint8Array(count * 1024 * 1024)
  for (let index = 0; index < bytes.length; index++) bytes[index] = (index * 31 + (index >> 12)) & 255
  return bytes
}
export const large = megabytes(8)

export const pieces = (bytes: Uint8Array, size: number): Stream.Stream<Uint8Array> =>
  Stream.unfold(0, (offset) =>
    offset >= bytes.length
      ? Option.none()
      : Option.some([bytes.subarray(offset, offset + size), offset + size] as const)
  )

export const shared = Layer.scoped(
  Shared,
  Effect.gen(function* () {
    yield* realTime
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const interrupted = yield* Queue.unbounded<string>()
    const server = yield* startServer({
      identity: yield* authority.context({ path: "/server", ttl: "10 days" }),
      authorize: authority.id("/client"),
      app: Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
        switch (request.url) {
          case "/digest":
            return Effect.map(
              Stream.runFold(request.stream, createHash("sha256"), (hash, chunk) => hash.update(chunk)),
              (hash) => HttpServerResponse.text(hash.digest("hex"))
            )
          case "/large":
            return Effect.succeed(HttpServerResponse.uint8Array(large))
          case "/stream":
            return Effect.succeed(HttpServerResponse.stream(pieces(large, 50_000)))
          case "/never":
            return Effect.onInterrupt(Effect.never, () => Queue.offer(interrupted, request.url))
          case "/empty":
            return Effect.succeed(HttpServerResponse.empty({ status: 204 }))
          case "/unchanged":
            return Effect.succeed(HttpServerResponse.empty({ status: 304 }))
          case "/cookies":
            return Effect.succeed(
              HttpServerResponse.text("two").pipe(
                HttpServerResponse.unsafeSetCookies([
                  ["a", "1", undefined],
                  ["b", "2", undefined]
                ])
              )
            )
          default:
            return Effect.succeed(HttpServerResponse.text(`${request.method} ${request.url}`))
        }
      }).pipe(Effect.orDie)
    })
    const scripts = new Map<string, Script>()
    const raw = yield* hostileServer(yield* authority.issueRaw({ path: "/raw", ttl: "10 days" }), {
      onRequest: (socket, chunk) => {
        const text = chunk.toString("latin1")
        const path = /^[A-Z]+ (\S+) HTTP/.exec(text)?.[1]
        if (path !== undefined) scripts.get(path)?.(socket, text)
      }
    })
    const client = yield* startClient(yield* authority.context({ path: "/client", ttl: "10 days" }))
    return {
      server,
      interrupted,
      connect: client.connect({ port: server.port, peer: authority.id("/server") }),
      scripted: (script: Script, config?: TransportConfig.Options) =>
        Effect.suspend(() => {
          scripts.set("/", script)
          return client.connect({ port: raw.port, peer: authority.id("/raw"), config })
        })
    }
  }).pipe(Effect.orDie)
)

export const get = HttpClientRequest.get("/")
export const post = (path: string, body: HttpBody.HttpBody) =>
  HttpClientRequest.setBody(HttpClientRequest.post(path), body)

/** Writes the parts, each in a turn of its own. */
export const answer =
  (...parts: ReadonlyArray<string>): Script =>
  (socket) => {
    for (const part of parts) socket.write(part)
  }

/** Runs a request and reads its response to the end. */
export const text = (connection: Opened, request: HttpClientRequest.HttpClientRequest, settled?: Settled) =>
  Effect.flatMap(execute(connection, request, settled), (response) => response.text)

/** Nothing of what was before comes through. */
export const expectReusable = Effect.fnUntraced(function* (connection: Opened) {
  expect(connection.isUsable()).toBe(true)
  expect(yield* text(connection, HttpClientRequest.get("/again"))).toBe("GET /again")
})

export const block = new Uint8Array(64 * 1024)
