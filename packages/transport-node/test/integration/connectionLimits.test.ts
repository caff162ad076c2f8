/** Limits of a server's connections and handshakes, and keep-alive of TCP, on the sockets of this machine. */
import { readFileSync } from "node:fs"
import { connect, type Socket } from "node:net"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import { describe, expect, it } from "@effect/vitest"
import { Effect, TestClock } from "effect"
import { host, realTime, type ServerOptions, startClient, startServer } from "./fixture.js"

const setup = (options: Partial<ServerOptions>) =>
  Effect.gen(function* () {
    yield* realTime
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const identity = yield* authority.context({ path: "/server" })
    const server = yield* startServer({ identity, authorize: authority.id("/client"), ...options })
    return { authority, server }
  })

/** A TCP connection from an address of this machine that sends nothing. */
const silent = (port: number, localAddress = host) =>
  Effect.acquireRelease(
    Effect.sync(() => connect({ port, host, localAddress }).on("error", () => {})),
    (socket) => Effect.sync(() => socket.destroy())
  )

/** How many bytes came before the server closed it. */
const closed = (socket: Socket): Effect.Effect<number> =>
  Effect.async((resume) => {
    const finish = () => resume(Effect.succeed(socket.bytesRead))
    if (socket.closed) finish()
    else socket.once("close", finish).resume()
  })

const isLinux = process.platform === "linux"

const limits = [
  { limit: "maxConnections", ofOneAddress: false },
  { limit: "maxHandshakes", ofOneAddress: false },
  { limit: "maxConnectionsPerAddress", ofOneAddress: true },
  { limit: "maxHandshakesPerAddress", ofOneAddress: true }
] as const

describe("a server with two connections in their handshake", () => {
  it.scoped.each(limits)(
    "closes a third at $limit 2, says so once on record, and takes another when one has gone",
    (row) =>
      Effect.gen(function* () {
        const { limit, ofOneAddress } = row
        const { server } = yield* setup({ [limit]: 2 })
        const { log, port } = server
        let refused = 0
        /** Tries to connect: whether the server has closed it, without a byte. */
        const isRefused = (localAddress?: string) =>
          Effect.gen(function* () {
            const attempts = log.all("ConnectionAttempted").length
            const socket = yield* silent(port, localAddress)
            const isTaken = Effect.as(log.nth("ConnectionAttempted", attempts), false)
            const outcome = yield* Effect.raceFirst(
              Effect.map(closed(socket), (bytes) => bytes === 0),
              isTaken
            )
            if (outcome) refused++
            return outcome
          })
        const first = yield* silent(port)
        yield* log.nth("ConnectionAttempted")
        expect(yield* isRefused()).toBe(false)
        expect(yield* isRefused()).toBe(true)
        // Linux alone has more than one address of the loopback as it is.
        if (isLinux) expect(yield* isRefused("127.0.0.2")).toBe(!ofOneAddress)
        first.destroy()
        yield* log.nth("ConnectionRefused")
        // The place is free when the connection is off the wire, which is soon after its end is on record.
        yield* Effect.repeat(isRefused(), { while: (isClosed) => isClosed })
        expect(log.all("ConnectionsRefused")).toEqual([])
        yield* TestClock.adjust("10 seconds")
        expect(log.all("ConnectionsRefused")).toMatchObject([{ reason: limit, count: refused }])
      })
  )
})

/** The state of a TCP connection between two ports of this machine, and the timer that runs for it. */
const timerOf = (from: number, to: number): string | undefined => {
  const portOf = (address = "") => Number.parseInt(address.slice(address.indexOf(":") + 1), 16)
  const rows = readFileSync("/proc/net/tcp", "utf8")
    .split("\n")
    .map((row) => row.trim().split(/\s+/))
  const row = rows.find(([, local, remote]) => portOf(local) === from && portOf(remote) === to)
  return row?.[5]?.slice(0, 2)
}

/** `2` is the one that asks whether the other host is there (proc_net_tcp of Linux). */
const isKeptAlive = (from: number, to: number) =>
  Effect.repeat(
    Effect.promise(() => new Promise<void>(setImmediate)),
    { until: () => timerOf(from, to) === "02" }
  )

if (isLinux) {
  it.scoped(
    "the system asks on both sides of a connection whether the other host is still there, as Linux's table of TCP shows",
    () =>
      Effect.gen(function* () {
        const { authority, server } = yield* setup({})
        const client = yield* startClient(yield* authority.context({ path: "/client" }))
        yield* client.connect({ port: server.port, peer: authority.id("/server") })
        const { address } = yield* server.log.nth("ConnectionEstablished")
        const clientPort = Number(address.slice(address.lastIndexOf(":") + 1))
        yield* isKeptAlive(clientPort, server.port)
        yield* isKeptAlive(server.port, clientPort)
      })
  )
}
