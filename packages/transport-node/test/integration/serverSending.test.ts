/** A client that does not read its response, or stops in the midst of it. */
import type { TLSSocket } from "node:tls"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Stream, TestClock } from "effect"
import { hostileClient, type RunningServer, realTime, type ServerOptions, startServer } from "./fixture.js"

/** More than the buffers of both ends of a connection take, twice over. */
const size = 64 * 1024 * 1024
const slice = Buffer.alloc(64 * 1024, "x")

const bodies: Record<string, NonNullable<ServerOptions["app"]>> = {
  "as one piece": Effect.sync(() => HttpServerResponse.uint8Array(Buffer.alloc(size, "x"))),
  "as a stream": HttpServerResponse.stream(Stream.take(Stream.repeatValue(slice), size / slice.length))
}

/** A server, and a client that has sent a request and reads nothing until it is told to. */
const setup = (options: Partial<ServerOptions>) =>
  Effect.gen(function* () {
    yield* realTime
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const identity = yield* authority.context({ path: "/server", ttl: "10 days" })
    const server = yield* startServer({ identity, authorize: authority.id("/client"), ...options })
    const secured = yield* Deferred.make<TLSSocket>()
    yield* Effect.forkScoped(
      hostileClient(server.port, yield* authority.issueRaw({ path: "/client", ttl: "10 days" }), {
        request: "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        onSecure: (socket) => {
          socket.pause()
          Deferred.unsafeDone(secured, Effect.succeed(socket))
        }
      })
    )
    yield* server.log.nth("RequestStarted")
    return { server, socket: yield* Deferred.await(secured) }
  })

const turn = Effect.async<void>((resume) => {
  setImmediate(() => resume(Effect.void))
})

/** A quarter of a minute passes, in which the sockets have a turn. */
const quarter = Effect.zipRight(TestClock.adjust("15 seconds"), turn)

const isClosed = ({ log }: RunningServer): boolean => log.all("ConnectionClosed").length > 0

/** Quarters of a minute until the connection is closed, for half as long as its certificates are valid. */
const untilClosed = (server: RunningServer) =>
  Effect.zipRight(
    Effect.iterate(0, {
      while: (count) => count < 20_000 && !isClosed(server),
      body: (count) => Effect.as(quarter, count + 1)
    }),
    Effect.suspend(() => server.log.nth("ConnectionClosed"))
  )

/** Reads so many bytes, and few more. */
const readSome = (socket: TLSSocket, bytes: number) =>
  Effect.async<void>((resume) => {
    let left = bytes
    const onData = (chunk: Buffer) => {
      left -= chunk.length
      if (left > 0) return
      socket.off("data", onData)
      socket.pause()
      resume(Effect.void)
    }
    socket.on("data", onData)
    socket.resume()
  })

describe("a client that reads nothing of a response", () => {
  for (const [title, app] of Object.entries(bodies)) {
    it.scoped(`sent ${title} is cut off after sendTimeout, and on record for that`, () =>
      Effect.gen(function* () {
        const { server } = yield* setup({ app })
        yield* Effect.repeatN(quarter, 3)
        expect(isClosed(server)).toBe(false)
        expect(yield* untilClosed(server)).toMatchObject({ reason: "SendTimeout", requests: 1 })
        expect(server.log.all("RequestEnded")).toMatchObject([{ status: 200, error: "SendTimeout" }])
      })
    )

    it.scoped(`sent ${title} has the time anew when it has read some of it`, () =>
      Effect.gen(function* () {
        const { server, socket } = yield* setup({ app })
        yield* Effect.repeatN(quarter, 2)
        yield* readSome(socket, size / 2)
        yield* Effect.repeatN(quarter, 3)
        expect(isClosed(server)).toBe(false)
        expect(yield* untilClosed(server)).toMatchObject({ reason: "SendTimeout" })
      })
    )
  }

  it.scoped("is waited for without end where sendTimeout is infinite", () =>
    Effect.gen(function* () {
      const { server, socket } = yield* setup({ app: bodies["as one piece"], sendTimeout: Duration.infinity })
      yield* Effect.repeatN(quarter, 40)
      expect(isClosed(server)).toBe(false)
      yield* readSome(socket, size)
      expect(yield* server.log.nth("RequestEnded")).not.toHaveProperty("error")
    })
  )
})

it.scoped("a handler that takes longer than sendTimeout for its response is waited for", () =>
  Effect.gen(function* () {
    const { server, socket } = yield* setup({
      app: Effect.as(Effect.sleep("10 minutes"), HttpServerResponse.text("at last"))
    })
    yield* Effect.repeatN(quarter, 41)
    yield* readSome(socket, 1)
    expect(yield* server.log.nth("RequestEnded")).not.toHaveProperty("error")
  })
)
