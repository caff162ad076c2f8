/** A host of several addresses, of which some cannot be reached. */
import { spawn } from "node:child_process"
import dns from "node:dns"
import { connect, createServer } from "node:net"
import { PeerMatcher } from "@agentweave/spiffe"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import { TransportConfig } from "@agentweave/transport"
import { expect, it } from "@effect/vitest"
import { Deferred, type Duration, Effect, Either, Fiber, TestClock } from "effect"
import { failure, realTime, startClient } from "./fixture.js"

const first = "127.0.0.1"
const second = "127.0.0.2"

const listener = `const server = require("node:net").createServer((socket) => {
  socket.on("error", () => {}).once("data", () => console.log("spoken to"))
})
server.listen({ port: 0, host: "${first}", backlog: 1 }, () => console.log(server.address().port))`

/** Takes one place of a queue of connections: whether there was one. */
const occupy = (port: number) =>
  Effect.flatMap(
    Effect.acquireRelease(
      Effect.sync(() => connect({ port, host: first, timeout: 300 }).on("error", () => {})),
      (socket) => Effect.sync(() => socket.destroy())
    ),
    (socket) =>
      Effect.async<boolean>((resume) => {
        socket.once("connect", () => resume(Effect.succeed(true)))
        // A turn later: a connection that is there by now may not have been seen yet.
        socket.once("timeout", () => setImmediate(() => resume(Effect.succeed(!socket.connecting))))
      })
  )

/** A port of the first address that answers no new connection: its process stands still, and its queue is full. */
const silentPort = Effect.gen(function* () {
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => spawn(process.execPath, ["-e", listener], { stdio: ["ignore", "pipe", "inherit"] })),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )
  const port = yield* Effect.async<number>((resume) => {
    child.stdout.once("data", (text) => resume(Effect.succeed(Number(text))))
  })
  child.kill("SIGSTOP")
  yield* Effect.repeat(occupy(port), { while: (isTaken) => isTaken })
  /** It goes on, and somebody has said something to it. */
  const spokenTo = Effect.async<void>((resume) => {
    child.stdout.once("data", () => resume(Effect.void))
    child.kill("SIGCONT")
  })
  return { port, spokenTo }
})

/** The name `twofold.test` has both addresses. */
const names = Effect.acquireRelease(
  Effect.sync(() => {
    const { lookup } = dns
    const addresses = [first, second].map((address) => ({ address, family: 4 }))
    dns.lookup = ((host: string, options: object, callback: (error: null, found: typeof addresses) => void) =>
      host === "twofold.test"
        ? callback(null, addresses)
        : Reflect.apply(lookup, dns, [host, options, callback])) as never
    return lookup
  }),
  (lookup) =>
    Effect.sync(() => {
      dns.lookup = lookup
    })
)

const setup = Effect.fnUntraced(function* (connectTimeout: Duration.DurationInput) {
  yield* realTime
  yield* names
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const { connector } = yield* startClient(yield* authority.context({ path: "/client" }))
  const { port, spokenTo } = yield* silentPort
  const config = Either.getOrThrow(TransportConfig.make({ connectTimeout }))
  const matcher = PeerMatcher.exactly(authority.id("/server"))
  const attempt = connector.connect({ matcher, host: "twofold.test", port, config, onClose: () => {} })
  return { attempt: failure(Effect.scoped(attempt)), port, spokenTo }
})

it.scoped(
  "the first address is silent and the second refuses: both are in the error, and the limit that ended the first",
  () =>
    Effect.gen(function* () {
      const { attempt, port } = yield* setup("400 millis")
      const error = yield* attempt
      expect(error).toMatchObject({ _tag: "ConnectionError", reason: "Refused", outcome: "NotSent" })
      expect(String(error)).toContain(`${first}:${port} within 100 ms`)
      expect(String(error)).toContain(`connect ECONNREFUSED ${second}:${port}`)
    })
)

it.scoped(
  "the first address is silent and the second says nothing in TLS: the limit of the connection ends it, and says both",
  () =>
    Effect.gen(function* () {
      const { attempt, port } = yield* setup("400 millis")
      const reached = yield* Deferred.make<void>()
      yield* Effect.acquireRelease(
        Effect.async<ReturnType<typeof createServer>>((resume) => {
          const server = createServer(() => Deferred.unsafeDone(reached, Effect.void))
          server.listen(port, second, () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      const running = yield* Effect.fork(attempt)
      yield* Deferred.await(reached)
      yield* TestClock.adjust("400 millis")
      const error = yield* Fiber.join(running)
      expect(error).toMatchObject({ _tag: "TimeoutError", phase: "Connect" })
      expect(String(error)).toContain("within 400ms")
      expect(String(error)).toContain(`${first}:${port} within 100 ms`)
    })
)

it.scoped("a first address that is slow is waited for, as long as the limit of the connection leaves time", () =>
  Effect.gen(function* () {
    const { attempt, port, spokenTo } = yield* setup("10 minutes")
    const running = yield* Effect.fork(attempt)
    // Longer than the quarter of a second after which Node would give it up by default.
    expect(yield* occupy(port)).toBe(false)
    yield* Effect.raceFirst(spokenTo, Fiber.await(running))
    yield* TestClock.adjust("10 minutes")
    const error = yield* Fiber.join(running)
    expect(error).toMatchObject({ _tag: "TimeoutError", phase: "Connect" })
    expect(String(error)).not.toContain("no answer of")
  })
)
