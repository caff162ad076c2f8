import { type AddressInfo, createServer, type Socket } from "node:net"
import { DevAuthority } from "@agentweave/testkit"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, TestClock } from "effect"
import { failure, host, realTime, startClient, startServer } from "./fixture.js"

/** Handshakes that one connector begins together, and the milliseconds after which one gives its place to the next. */
const maxHandshakes = 32
const longestHold = 250

/** A listener that answers no handshake, and tells how many came. */
const silentServer = Effect.acquireRelease(
  Effect.async<{
    readonly port: number
    readonly sockets: Set<Socket>
    readonly end: Effect.Effect<void>
    readonly came: (n: number) => Effect.Effect<void>
  }>((resume) => {
    const sockets = new Set<Socket>()
    let onSocket = () => {}
    const server = createServer((socket) => {
      sockets.add(socket)
      socket.on("error", () => {})
      socket.on("close", () => sockets.delete(socket))
      onSocket()
    })
    const end = Effect.sync(() => {
      server.close()
      for (const socket of sockets) socket.destroy()
    })
    const came = (n: number) =>
      Effect.async<void>((resume) => {
        onSocket = () => {
          if (sockets.size >= n) resume(Effect.void)
        }
        onSocket()
      })
    server.listen(0, host, () =>
      resume(Effect.succeed({ port: (server.address() as AddressInfo).port, sockets, came, end }))
    )
  }),
  ({ end }) => end
)

const arrange = Effect.gen(function* () {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const identity = yield* authority.context({ path: "/client" })
  const client = yield* startClient(identity)
  const silent = yield* silentServer
  const peer = authority.id("/server")
  const connect = (port: number) => client.connect({ port, peer, config: { connectTimeout: "10 seconds" } })
  return { authority, client, peer, silent, connect }
})

describe("handshakes begun together", () => {
  it.scoped(
    "are so many at a time; a silent peer keeps the others out for a quarter of a second, and not for its timeout",
    () =>
      Effect.gen(function* () {
        const { authority, connect, silent } = yield* arrange
        const server = yield* startServer({
          identity: yield* authority.context({ path: "/server" }),
          authorize: authority.id("/client")
        })
        const stuck = yield* Effect.forEach(Array.from({ length: maxHandshakes * 2 }), () =>
          Effect.fork(connect(silent.port))
        )
        const last = yield* Effect.fork(connect(server.port))
        yield* silent.came(maxHandshakes)
        yield* TestClock.adjust(longestHold - 1)
        assert.strictEqual(silent.sockets.size, maxHandshakes)
        assert.strictEqual(yield* Fiber.poll(last).pipe(Effect.map((exit) => exit._tag)), "None")
        yield* TestClock.adjust(1)
        yield* silent.came(maxHandshakes * 2)
        yield* TestClock.adjust(longestHold)
        assert.strictEqual((yield* Fiber.join(last)).peer.spiffeId, authority.id("/server"))
        yield* Fiber.interruptAll(stuck)
      })
  )

  it.scoped("each give their place to the next when they end: two hundred leave none behind", () =>
    Effect.gen(function* () {
      const { client, connect } = yield* arrange
      const refused = yield* Effect.forEach(Array.from({ length: 200 }), () => failure(connect(1)), {
        concurrency: "unbounded"
      })
      assert.isTrue(refused.every((error) => error._tag === "ConnectionError" && error.reason === "Refused"))
      assert.strictEqual(client.log.all("ConnectionRefused").length, 200)
    })
  )

  it.scoped("that wait for their turn are interrupted, and time out, as if they were under way", () =>
    Effect.gen(function* () {
      const { client, connect, peer, silent } = yield* arrange
      const stuck = yield* Effect.forEach(Array.from({ length: maxHandshakes }), () =>
        Effect.fork(connect(silent.port))
      )
      const waiting = yield* Effect.fork(connect(silent.port))
      const tooLate = yield* Effect.fork(
        failure(client.connect({ port: silent.port, peer, config: { connectTimeout: 100 } }))
      )
      yield* silent.came(maxHandshakes)
      yield* Fiber.interrupt(waiting)
      yield* TestClock.adjust(100)
      const error = yield* Fiber.join(tooLate)
      assert.deepStrictEqual([error._tag, error._tag === "TimeoutError" && error.phase], ["TimeoutError", "Connect"])
      assert.strictEqual(silent.sockets.size, maxHandshakes)
      yield* TestClock.adjust(longestHold)
      assert.strictEqual(silent.sockets.size, maxHandshakes)
      yield* Fiber.interruptAll(stuck)
      const reasons = client.log.all("ConnectionRefused").map(({ reason }) => reason)
      assert.deepStrictEqual(reasons.slice(0, 2), ["Interrupted", "Connect"])
      assert.strictEqual(reasons.length, maxHandshakes + 2)
    })
  )
})
