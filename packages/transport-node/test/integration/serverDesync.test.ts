/**
 * Requests made to desynchronize a server: each holds a second request, `/evil`, that a peer in front of the server may take
 * for a part of the first. It is never served. What is served of the first, and whether the connection goes on to the
 * request behind, stands beside each.
 */
import type { TLSSocket } from "node:tls"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { describe, expect } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { hostileClient, realTime, sharing, startServer } from "./fixture.js"

const evil = "GET /evil HTTP/1.1\r\nhost: x\r\n\r\n"
const next = "GET /next HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
const post = "POST /first HTTP/1.1\r\nhost: x\r\n"
const chunked = "transfer-encoding: chunked\r\n"
const length = `content-length: ${evil.length}\r\n`
const upgrade = "connection: upgrade\r\nupgrade: x\r\n"
const handshake = `GET /first HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: ${"A".repeat(22)}==\r\n`

/** All of it is refused. */
const nothing: ReadonlyArray<string> = []
/** The first request is served, and the connection ends with it. */
const first = ["/first"]
/** The second request is the body of the first. */
const both = ["/first", "/next"]

const inputs: Record<string, readonly [bytes: string, served: ReadonlyArray<string>]> = {
  "a length and chunks": [`${post}${length}${chunked}\r\n0\r\n\r\n${evil}`, nothing],
  "chunks and a length": [`${post}${chunked}content-length: 5\r\n\r\n0\r\n\r\n${evil}`, nothing],
  "two lengths, the shorter first": [`${post}content-length: 0\r\n${length}\r\n${evil}`, nothing],
  "two lengths, the longer first": [`${post}${length}content-length: 0\r\n\r\n${evil}`, nothing],
  "the same length twice": [`${post}content-length: 0\r\ncontent-length: 0\r\n\r\n${evil}`, nothing],
  "a list of lengths": [`${post}content-length: 0, 0\r\n\r\n${evil}`, nothing],
  "a length with a sign": [`${post}content-length: +0\r\n\r\n${evil}`, nothing],
  "a negative length": [`${post}content-length: -1\r\n\r\n${evil}`, nothing],
  "a hexadecimal length": [`${post}content-length: 0x0\r\n\r\n${evil}`, nothing],
  "a length of two numbers": [`${post}content-length: 0 ${evil.length}\r\n\r\n${evil}`, nothing],
  "an empty length": [`${post}content-length:\r\n\r\n${evil}`, nothing],
  "a length beyond 64 bits": [`${post}content-length: 18446744073709551616\r\n\r\n${evil}`, nothing],
  "a length with a space before its colon": [`${post}content-length : ${evil.length}\r\n\r\n${evil}`, nothing],
  "a folded length": [`${post}content-length:\r\n ${evil.length}\r\n\r\n${evil}`, nothing],
  "a length after a NUL": [`${post}x-a: \u0000\r\n${length}\r\n${evil}`, nothing],
  "a length after a lone carriage return": [`${post}x-a: b\r${length}\r\n${evil}`, nothing],
  "a length after a lone line feed": [`${post}x-a: b\n${length}\r\n${evil}`, nothing],
  "a length before a body that is a request": [`${post}${length}\r\n${evil}`, both],
  "a length in the method of a safe request": [`GET /first HTTP/1.1\r\nhost: x\r\n${length}\r\n${evil}`, both],
  "a length of HEAD": [`HEAD /first HTTP/1.1\r\nhost: x\r\n${length}\r\n${evil}`, both],
  "chunks, and another coding": [`${post}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n${evil}`, nothing],
  "chunks, and another coding in a field of its own": [
    `${post}${chunked}transfer-encoding: identity\r\n\r\n0\r\n\r\n${evil}`,
    nothing
  ],
  "chunked twice": [`${post}transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n${evil}`, nothing],
  "an unknown coding": [`${post}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n${evil}`, nothing],
  "chunked after a vertical tab": [`${post}transfer-encoding: \u000bchunked\r\n\r\n0\r\n\r\n${evil}`, nothing],
  "chunked with a space before its colon": [`${post}transfer-encoding : chunked\r\n\r\n0\r\n\r\n${evil}`, nothing],
  "chunked in quotes": [`${post}transfer-encoding: "chunked"\r\n\r\n0\r\n\r\n${evil}`, nothing],
  "a request in a chunk": [`${post}${chunked}\r\n${evil.length.toString(16)}\r\n${evil}\r\n0\r\n\r\n`, both],
  "a request in a chunk of another size": [`${post}${chunked}\r\n1\r\n${evil}\r\n0\r\n\r\n`, first],
  "a request among trailers": [`${post}${chunked}\r\n0\r\n${evil}`, first],
  "a length among trailers": [`${post}${chunked}\r\n0\r\n${length}\r\n`, first],
  "a chunk size with a sign": [`${post}${chunked}\r\n+0\r\n\r\n${evil}`, first],
  "a hexadecimal chunk size": [`${post}${chunked}\r\n0x0\r\n\r\n${evil}`, first],
  "a chunk size beyond 64 bits": [`${post}${chunked}\r\n10000000000000000\r\n\r\n0\r\n\r\n${evil}`, first],
  "a chunk ended by a line feed": [`${post}${chunked}\r\n0\n\n${evil}`, first],
  "a chunk extension with a line feed": [`${post}${chunked}\r\n0;a\n\r\n\r\n${evil}`, first],
  "a request behind an Upgrade": [`GET /first HTTP/1.1\r\nhost: x\r\n${upgrade}\r\n${evil}`, first],
  "a request as the body of an Upgrade": [`${post}${upgrade}${length}\r\n${evil}`, first],
  "a request behind the body of an Upgrade": [`${post}${upgrade}content-length: 1\r\n\r\nx${evil}`, first],
  "a request behind a WebSocket's handshake": [`${handshake}\r\n${evil}`, first],
  "a request as the body of a WebSocket's handshake": [`${handshake}${length}\r\n${evil}`, first],
  "a request behind a CONNECT": [`CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n${evil}`, nothing],
  "a request behind Connection: close": [`${post}connection: close\r\ncontent-length: 0\r\n\r\n${evil}`, first],
  "a request behind one of HTTP/1.0": [`POST /first HTTP/1.0\r\ncontent-length: 0\r\n\r\n${evil}`, first],
  "chunks in a request of HTTP/1.0": [`POST /first HTTP/1.0\r\n${chunked}\r\n0\r\n\r\n${evil}`, nothing],
  "a request behind a bad one": [`GET /first#a HTTP/1.1\r\nhost: x\r\n\r\n${evil}`, nothing],
  "a request behind one with two Hosts": [`GET /first HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n${evil}`, nothing],
  "a request behind one without Host": [`GET /first HTTP/1.1\r\n\r\n${evil}`, nothing],
  "a request of HTTP/0.9": [`GET /first\r\n\r\n${evil}`, nothing],
  "a request of HTTP/2": [`GET /first HTTP/2.0\r\nhost: x\r\n\r\n${evil}`, nothing],
  "a method that is none": [`G@T /first HTTP/1.1\r\nhost: x\r\n\r\n${evil}`, nothing],
  "a field without a name": [`GET /first HTTP/1.1\r\nhost: x\r\n: y\r\n\r\n${evil}`, nothing],
  "a field without a colon": [`GET /first HTTP/1.1\r\nhost: x\r\ny\r\n\r\n${evil}`, nothing],
  "a field that begins with a space": [`GET /first HTTP/1.1\r\n x: y\r\nhost: x\r\n\r\n${evil}`, nothing],
  "a target with a space": [`GET /first /evil HTTP/1.1\r\nhost: x\r\n\r\n${evil}`, nothing],
  "a head that is too large": [`GET /first HTTP/1.1\r\nhost: x\r\nx-a: ${"b".repeat(20_000)}\r\n\r\n${evil}`, nothing]
}

class World extends Context.Tag("World")<
  World,
  {
    /** Sends bytes in one or two writes, a turn apart; the targets that were served, when the connection has ended. */
    readonly ask: (bytes: string, more?: string) => Effect.Effect<ReadonlyArray<string>>
  }
>() {}

const WorldLive = Layer.scoped(
  World,
  Effect.gen(function* () {
    yield* realTime
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    let served: Array<string> = []
    const { port } = yield* startServer({
      identity: yield* authority.context({ path: "/server" }),
      authorize: authority.id("/client"),
      app: Effect.gen(function* () {
        const { text, url } = yield* HttpServerRequest.HttpServerRequest
        served.push(url)
        return HttpServerResponse.text(yield* text)
      }).pipe(Effect.orDie)
    })
    const credentials = yield* authority.issueRaw({ path: "/client" })
    return {
      ask: (bytes, more = "") =>
        Effect.suspend(() => {
          served = []
          const options = { request: bytes, onSecure: (socket: TLSSocket) => setImmediate(() => socket.write(more)) }
          return Effect.map(hostileClient(port, credentials, options), () => served)
        })
    }
  })
)

const it = sharing(Layer.orDie(WorldLive))

describe("a request that is served once, or not at all", () => {
  for (const [title, [bytes, expected]] of Object.entries(inputs)) {
    it.scoped(title, () =>
      Effect.gen(function* () {
        const { ask } = yield* World
        expect(yield* ask(bytes + next)).toEqual(expected)
        const at = Math.max(bytes.lastIndexOf(evil), 1)
        expect(yield* ask(bytes.slice(0, at), bytes.slice(at) + next)).toEqual(expected)
      })
    )
  }
})
