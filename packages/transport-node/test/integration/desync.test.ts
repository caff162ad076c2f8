/**
 * Answers made to desynchronize a client: each holds a second response, `evil`, that no request asked for. Whatever becomes
 * of the first request, the next one on the channel gets its own response.
 */
import type { TLSSocket } from "node:tls"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import type * as SecureChannel from "@agentweave/transport/SecureChannel"
import type { HttpMethod } from "@effect/platform/HttpMethod"
import { describe, expect } from "@effect/vitest"
import { Context, Effect, Exit, Layer, type Scope } from "effect"
import { hostileServer, realTime, sharing, startClient } from "./fixture.js"

const evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
const good = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"
const ok = "HTTP/1.1 200 OK\r\n"
const chunked = "transfer-encoding: chunked\r\n"
const hex = evil.length.toString(16)

interface Input {
  readonly method?: HttpMethod
  /** All that the peer sends for one request, and where the part begins that nobody asked for. */
  readonly bytes: string
}

const inputs: Record<string, Input> = {
  "a body longer than its length": { bytes: `${ok}content-length: 4\r\n\r\ntext${evil}` },
  "a body where there is none": { bytes: `${ok}content-length: 0\r\n\r\n${evil}` },
  "bytes after the last chunk": { bytes: `${ok}${chunked}\r\n4\r\ntext\r\n0\r\n\r\n${evil}` },
  "bytes after trailers": { bytes: `${ok}${chunked}\r\n0\r\nx-a: b\r\n\r\n${evil}` },
  "a response among trailers": { bytes: `${ok}${chunked}\r\n0\r\n${evil}` },
  "a response in a chunk of another size": { bytes: `${ok}${chunked}\r\n1\r\n${evil}\r\n0\r\n\r\n` },
  "a response in a chunk extension": { bytes: `${ok}${chunked}\r\n0;${evil}` },
  "a body of HEAD": { method: "HEAD", bytes: `${ok}content-length: ${evil.length}\r\n\r\n${evil}` },
  "chunks of HEAD": { method: "HEAD", bytes: `${ok}${chunked}\r\n${hex}\r\n${evil}\r\n0\r\n\r\n` },
  "a body of HEAD without a length": { method: "HEAD", bytes: `${ok}\r\n${evil}` },
  "a body of HEAD, kept alive": { method: "HEAD", bytes: `${ok}connection: keep-alive\r\n\r\n${evil}` },
  "a body of 204": { bytes: `HTTP/1.1 204 No Content\r\n\r\n${evil}` },
  "a body of 204 with a length": {
    bytes: `HTTP/1.1 204 No Content\r\ncontent-length: ${evil.length}\r\n\r\n${evil}`
  },
  "a body of 304": { bytes: `HTTP/1.1 304 Not Modified\r\n\r\n${evil}` },
  "a body of 304 with a length": {
    bytes: `HTTP/1.1 304 Not Modified\r\ncontent-length: ${evil.length}\r\n\r\n${evil}`
  },
  "chunks of 304": { bytes: `HTTP/1.1 304 Not Modified\r\n${chunked}\r\n${hex}\r\n${evil}\r\n0\r\n\r\n` },
  "a response after Connection: close": { bytes: `${ok}connection: close\r\ncontent-length: 4\r\n\r\ntext${evil}` },
  "a response after one of HTTP/1.0": { bytes: `HTTP/1.0 200 OK\r\ncontent-length: 4\r\n\r\ntext${evil}` },
  "a response after one of HTTP/1.0, kept alive": {
    bytes: `HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 4\r\n\r\ntext${evil}`
  },
  "two lengths, the shorter first": { bytes: `${ok}content-length: 4\r\ncontent-length: 80\r\n\r\ntext${evil}` },
  "two lengths, the longer first": { bytes: `${ok}content-length: 80\r\ncontent-length: 4\r\n\r\ntext${evil}` },
  "a list of lengths": { bytes: `${ok}content-length: 4, 80\r\n\r\ntext${evil}` },
  "a length and chunks": { bytes: `${ok}content-length: 4\r\n${chunked}\r\n0\r\n\r\n${evil}` },
  "chunks and a length": { bytes: `${ok}${chunked}content-length: 4\r\n\r\n0\r\n\r\n${evil}` },
  "a length with a space before its colon": { bytes: `${ok}content-length : 4\r\n\r\ntext${evil}` },
  "a folded length": { bytes: `${ok}content-length:\r\n 4\r\n\r\ntext${evil}` },
  "a length after a NUL": { bytes: `${ok}x-a: \u0000\r\ncontent-length: 4\r\n\r\ntext${evil}` },
  "a length after a lone carriage return": { bytes: `${ok}x-a: b\rcontent-length: 4\r\n\r\ntext${evil}` },
  "a length after a lone line feed": { bytes: `${ok}x-a: b\ncontent-length: 4\r\n\r\ntext${evil}` },
  "chunked twice": { bytes: `${ok}transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n${evil}` },
  "chunked after a vertical tab": { bytes: `${ok}transfer-encoding: \u000bchunked\r\n\r\n0\r\n\r\n${evil}` },
  "a chunk size with a sign": { bytes: `${ok}${chunked}\r\n-1\r\n\r\n${evil}` },
  "a chunk size beyond 64 bits": { bytes: `${ok}${chunked}\r\n10000000000000000\r\n\r\n0\r\n\r\n${evil}` },
  "a chunk ended by a line feed": { bytes: `${ok}${chunked}\r\n0\n\n${evil}` },
  "101 that nobody asked for": { bytes: `HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n${evil}` },
  "a broken 100": { bytes: `HTTP/1.1 100 Continue\r\nx\r\n\r\n${good}${evil}` },
  "100 with a length": { bytes: `HTTP/1.1 100 Continue\r\ncontent-length: ${evil.length}\r\n\r\n${good}${evil}` },
  "a response, and half of a second one": { bytes: `${good}${evil.slice(0, 20)}` },
  "a response, and an informational one": { bytes: `${good}HTTP/1.1 100 Continue\r\n\r\n${evil}` },
  "a response, an empty line and a second one": { bytes: `${good}\r\n${evil}` },
  "three responses": { bytes: `${good}${evil}${evil}` }
}

/** How the bytes are cut on the wire. */
const deliveries: Record<string, (socket: TLSSocket, bytes: string) => void> = {
  "in one write": (socket, bytes) => socket.write(bytes, "latin1"),
  "with the second response one turn later": (socket, bytes) => {
    const at = Math.max(bytes.indexOf(evil), 1)
    socket.write(bytes.slice(0, at), "latin1")
    setImmediate(() => socket.write(bytes.slice(at), "latin1"))
  },
  // What follows the first response comes together with its end: later, and no client could tell it from the next response.
  "in pieces of seven bytes": (socket, bytes) => {
    const second = bytes.indexOf("HTTP/1.1 ", 1)
    const last = Math.floor(Math.max(second - 3, 0) / 7) * 7
    const next = (at: number): void => {
      if (socket.destroyed) return
      socket.write(at < last ? bytes.slice(at, at + 7) : bytes.slice(at), "latin1")
      if (at < last) setImmediate(next, at + 7)
    }
    next(0)
  }
}

class Shared extends Context.Tag("Shared")<
  Shared,
  {
    readonly set: (bytes: string, deliver: (socket: TLSSocket, bytes: string) => void) => void
    readonly channel: Effect.Effect<SecureChannel.SecureChannel, unknown, Scope.Scope>
  }
>() {}

const shared = Layer.scoped(
  Shared,
  Effect.gen(function* () {
    yield* realTime
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    let bytes = ""
    let deliver = (_socket: TLSSocket, _bytes: string): void => {}
    const server = yield* hostileServer(yield* authority.issueRaw({ path: "/raw", ttl: "10 days" }), {
      onSecure: (socket) => socket.setNoDelay(true),
      onRequest: (socket, request) => {
        if (request.includes(" /bent ")) deliver(socket, bytes)
        else socket.write(good)
      }
    })
    const client = yield* startClient(yield* authority.context({ path: "/client", ttl: "10 days" }))
    return {
      set: (newBytes: string, newDeliver: typeof deliver) => {
        bytes = newBytes
        deliver = newDeliver
      },
      channel: client.channel({
        port: server.port,
        peer: authority.id("/raw"),
        config: { connections: 1, timeout: "2 seconds" }
      })
    }
  }).pipe(Effect.orDie)
)

const { scoped } = sharing(shared)

describe("the next request gets its own response", () => {
  for (const [cut, deliver] of Object.entries(deliveries)) {
    for (const [name, { bytes, method = "GET" }] of Object.entries(inputs)) {
      scoped(`after ${name}, ${cut}`, () =>
        Effect.gen(function* () {
          const { channel: open, set } = yield* Shared
          const channel = yield* open
          set(bytes, deliver)
          const bent = yield* channel.request(method, "/bent").pipe(
            Effect.flatMap((response) => response.text),
            Effect.exit
          )
          // A right answer or a typed error, never a defect; what is delimited by the connection's end may hold all of it.
          if (Exit.isFailure(bent)) expect(bent.cause._tag).toBe("Fail")
          for (let round = 0; round < 3; round++) {
            expect(yield* Effect.flatMap(channel.get("/"), (response) => response.text)).toBe("good")
          }
        })
      )
    }
  }
})
