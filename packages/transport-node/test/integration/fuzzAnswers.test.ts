/** Answers with a few bytes changed, cut, doubled or moved: a right answer or a typed error, and then a sound channel. */
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import { describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit } from "effect"
import { hostileServer, realTime, startClient } from "./fixture.js"
import { mutate, numbers, roundsOr, seed } from "./mutation.js"

const rounds = roundsOr(400)

const good = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"
const answers = [
  good,
  "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nx-trailer: a\r\n\r\n",
  "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\nKeep-Alive: timeout=5\r\n\r\ntext",
  "HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\nHTTP/1.1 204 No Content\r\nset-cookie: a=b\r\nset-cookie: c\r\n\r\n",
  "HTTP/1.0 200 OK\r\nserver: x\r\n\r\nuntil the end",
  `HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\netag: "a"\r\n\r\n${good}`,
  `HTTP/1.1 200 OK\r\nconnection: close, x\r\ncontent-length: 12\r\n\r\ntwelve bytes`,
  `HTTP/1.1 404 Not Found\r\n${"x-a: b\r\n".repeat(50)}content-length: 0\r\n\r\n`
]
const tags = new Set(["ConnectionError", "TimeoutError", "RequestError", "ResponseError"])

describe("a mutated answer", () => {
  it.scoped(
    `is a right answer or a typed error, ${rounds} times, and the next request gets its own`,
    () =>
      Effect.gen(function* () {
        yield* realTime
        const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
        let bytes = ""
        const server = yield* hostileServer(yield* authority.issueRaw({ path: "/raw", ttl: "10 days" }), {
          onRequest: (socket, request) => {
            if (request.includes(" /bent ")) socket.end(bytes, "latin1")
            else socket.write(good)
          }
        })
        const client = yield* startClient(yield* authority.context({ path: "/client", ttl: "10 days" }))
        const channel = yield* client.channel({
          port: server.port,
          peer: authority.id("/raw"),
          config: { connections: 1 }
        })
        const random = numbers(seed)
        for (let round = 0; round < rounds; round++) {
          bytes = mutate(random, answers)
          const exit = yield* channel.request(round % 5 === 0 ? "HEAD" : "GET", "/bent").pipe(
            Effect.flatMap((response) => response.text),
            Effect.exit
          )
          if (Exit.isFailure(exit)) {
            const error = Cause.squash(exit.cause) as { readonly _tag?: string }
            expect(tags.has(error._tag ?? ""), JSON.stringify(bytes)).toBe(true)
          }
          const next = yield* Effect.flatMap(channel.get("/"), (response) => response.text)
          expect(next, JSON.stringify(bytes)).toBe("good")
        }
      }),
    { timeout: 120_000 + rounds * 50 }
  )
})
