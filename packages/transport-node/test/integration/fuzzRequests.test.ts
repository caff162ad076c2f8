/** Requests with a few bytes changed, cut, doubled or moved: each is served, or refused, and has its end on record. */
import type { TLSSocket } from "node:tls"
import type { Credentials } from "@agentweave/testkit"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { describe, expect, it } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Fiber, HashSet, Logger, LogLevel, Option, TestServices } from "effect"
import { hostileClient, type Log, realTime, startClient, startServer } from "./fixture.js"
import { mutate, numbers, roundsOr, seed } from "./mutation.js"

const rounds = roundsOr(200)

/** How many requests one server is asked with before its record is looked at, and how many connections at a time. */
const roundsOfOne = 200
const connections = 8

const head = "host: x\r\n"
const upgrade = "connection: upgrade\r\nsec-websocket-version: 13\r\nupgrade: websocket\r\n"
const good = `GET /good HTTP/1.1\r\n${head}\r\n`
const requests = [
  good,
  `HEAD /a?b=c HTTP/1.1\r\n${head}accept: */*\r\nx-a: b\r\n\r\n`,
  `POST /a HTTP/1.1\r\n${head}content-length: 4\r\ncontent-type: text/plain\r\n\r\nbody${good}`,
  `PUT /a HTTP/1.1\r\n${head}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nx-trailer: a\r\n\r\n`,
  `POST /a HTTP/1.1\r\n${head}expect: 100-continue\r\ncontent-length: 4\r\n\r\nbody`,
  `DELETE /a HTTP/1.0\r\nconnection: keep-alive\r\n\r\n${good}`,
  `OPTIONS * HTTP/1.1\r\n${head}\r\n`,
  `GET http://x/absolute HTTP/1.1\r\n${head}connection: close\r\n\r\n${good}`,
  `CONNECT x:443 HTTP/1.1\r\n${head}\r\n${good}`,
  `GET /socket HTTP/1.1\r\n${head}${upgrade}sec-websocket-key: ${"A".repeat(22)}==\r\n\r\n\x81\x84\0\0\0\0text\x88\x80\0\0\0\0`,
  `GET /a HTTP/1.1\r\n${head}connection: upgrade\r\nupgrade: x\r\ncontent-length: 4\r\n\r\nbody${good}`,
  `${`GET /pipelined HTTP/1.1\r\n${head}\r\n`.repeat(20)}`,
  `GET /many HTTP/1.1\r\n${head}${"x-a: b\r\n".repeat(50)}\r\n`
]

/** Reads the body, or every message of a WebSocket. */
const app: HttpApp.Default<never, never> = Effect.gen(function* () {
  const request = yield* HttpServerRequest.HttpServerRequest
  if (request.url !== "/socket") return HttpServerResponse.text(String((yield* request.text).length))
  const socket = yield* request.upgrade
  const write = yield* socket.writer
  yield* socket.run((message) => write(message))
  return HttpServerResponse.empty()
}).pipe(
  Effect.scoped,
  // The client has gone, or sent what is no body, or no handshake.
  Effect.catchTag("SocketError", () => Effect.succeed(HttpServerResponse.empty())),
  Effect.catchTag("RequestError", () => Effect.succeed(HttpServerResponse.empty({ status: 400 })))
)

const isExpected = (status: number): boolean =>
  [100, 101, 200, 501, 505].includes(status) || (status >= 400 && status < 500)

/** Sends bytes: the statuses that came back, when the connection has ended. */
const ask = Effect.fnUntraced(function* (port: number, credentials: Credentials.Credentials, bytes: string) {
  const sent = yield* Deferred.make<TLSSocket>()
  const attempt = yield* hostileClient(port, credentials, {
    request: Buffer.from(bytes, "latin1"),
    onSecure: (socket) => socket.write("", () => Deferred.unsafeDone(sent, Effect.succeed(socket)))
  }).pipe(
    Effect.timeoutFail({ duration: "1 minute", onTimeout: () => "expected the connection to end, it did not" }),
    TestServices.provideLive,
    Effect.fork
  )
  const socket = yield* Effect.raceFirst(
    Effect.option(Deferred.await(sent)),
    Effect.as(Fiber.await(attempt), Option.none())
  )
  return {
    bytes,
    /** Sends the end of the bytes. */
    end: Effect.sync(() => Option.map(socket, (socket) => socket.end())),
    statuses: Effect.map(Fiber.join(attempt), ({ received }) =>
      Array.from(received.matchAll(/HTTP\/1\.1 (\d{3}) /g), ([, status]) => Number(status))
    )
  }
})

/** Every connection and every request has one end on record, with a status that is expected where it has one. */
const checkRecord = (log: Log): void => {
  const ids = (tag: "RequestStarted" | "RequestEnded") => log.all(tag).map(({ requestId }) => requestId)
  const ended = ids("RequestEnded")
  expect(new Set(ended).size).toBe(ended.length)
  expect(HashSet.fromIterable(ids("RequestStarted"))).toEqual(HashSet.fromIterable(ended))
  expect(log.all("ConnectionEstablished")).toHaveLength(log.all("ConnectionClosed").length)
  expect(log.all("RequestEnded").filter(({ status }) => status !== undefined && !isExpected(status))).toEqual([])
}

describe("a mutated request", () => {
  it.scoped(
    `is served or refused, ${rounds} times, and each request and each connection has one end on record`,
    () =>
      Effect.gen(function* () {
        yield* realTime
        const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
        const identity = yield* authority.context({ path: "/server", ttl: "10 days" })
        const sound = yield* authority.context({ path: "/client", ttl: "10 days" })
        const credentials = yield* authority.issueRaw({ path: "/client", ttl: "10 days" })
        const random = numbers(seed)
        const errors: Array<unknown> = []
        const logger = Logger.make(({ logLevel, message }) => {
          if (LogLevel.greaterThanEqual(logLevel, LogLevel.Error)) errors.push(message)
        })
        const oneServer = (count: number) =>
          Effect.gen(function* () {
            const server = yield* startServer({ identity, authorize: authority.id("/client"), app })
            const client = yield* startClient(sound)
            const channel = yield* client.channel({ port: server.port, peer: authority.id("/server") })
            const mutated = Arr.makeBy(count, () => mutate(random, requests))
            for (const some of Arr.chunksOf(mutated, connections)) {
              const asked = yield* Effect.forEach(some, (bytes) => ask(server.port, credentials, bytes), {
                concurrency: connections
              })
              // The server has read all of it by the time it has answered these, and answered most of it.
              for (let i = 0; i < 3; i++) expect((yield* channel.get("/sound")).status).toBe(200)
              for (const { end } of asked) yield* end
              for (const { bytes, statuses } of asked) {
                expect(
                  (yield* statuses).filter((status) => !isExpected(status)),
                  JSON.stringify(bytes)
                ).toEqual([])
              }
            }
            yield* server.close
            checkRecord(server.log)
          }).pipe(Effect.scoped, Effect.provide(Logger.replace(Logger.defaultLogger, logger)))
        for (let done = 0; done < rounds; done += roundsOfOne) yield* oneServer(Math.min(roundsOfOne, rounds - done))
        expect(errors).toEqual([])
      }),
    { timeout: 120_000 + rounds * 50 }
  )
})
