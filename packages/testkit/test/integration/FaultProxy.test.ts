import * as net from "node:net"
import * as Fault from "@agentweave/testkit/Fault"
import * as FaultProxy from "@agentweave/testkit/FaultProxy"
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Deferred, Effect, Fiber, Option, Queue, type Scope, TestClock } from "effect"

/** A server that answers every piece with the same bytes, doubled, and ends when the client does. */
const echo = Effect.acquireRelease(
  Effect.async<{ readonly port: number; readonly seen: Array<string>; readonly server: net.Server }>((resume) => {
    const seen: Array<string> = []
    const server = net.createServer((socket) => {
      seen.push("connection")
      socket.on("data", (bytes) => {
        seen.push(bytes.toString())
        socket.write(Buffer.concat([bytes, bytes]))
      })
      socket.on("error", (error: NodeJS.ErrnoException) => seen.push(error.code ?? "error"))
    })
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      resume(Effect.succeed({ port: typeof address === "object" ? (address?.port ?? 0) : 0, seen, server }))
    })
  }),
  ({ server }) => Effect.async<void>((resume) => void server.close(() => resume(Effect.void)))
)

type Outcome = "end" | "close" | { readonly code: string | undefined }

interface Client {
  readonly socket: net.Socket
  readonly received: () => string
  /** Resolves when at least that many bytes arrived. */
  readonly bytes: (count: number) => Effect.Effect<string>
  /** Every event of the socket's end, in order. */
  readonly outcome: Effect.Effect<Outcome>
}

const client = (port: number): Effect.Effect<Client, never, Scope.Scope> =>
  Effect.gen(function* () {
    const outcome = yield* Deferred.make<Outcome>()
    const pieces = yield* Queue.unbounded<string>()
    let text = ""
    const socket = yield* Effect.acquireRelease(
      Effect.sync(() => net.connect({ host: "127.0.0.1", port })),
      (socket) => Effect.sync(() => socket.destroy())
    )
    socket.on("data", (bytes) => {
      text += bytes.toString("latin1")
      pieces.unsafeOffer(text)
    })
    socket.on("error", (error: NodeJS.ErrnoException) =>
      Deferred.unsafeDone(outcome, Effect.succeed({ code: error.code }))
    )
    socket.on("end", () => Deferred.unsafeDone(outcome, Effect.succeed("end" as const)))
    socket.on("close", () => Deferred.unsafeDone(outcome, Effect.succeed("close" as const)))
    const bytes = (count: number): Effect.Effect<string> =>
      Effect.suspend(() =>
        text.length >= count ? Effect.succeed(text) : Effect.zipRight(Queue.take(pieces), bytes(count))
      )
    return { socket, received: () => text, bytes, outcome: Deferred.await(outcome) }
  })

const setup = Effect.gen(function* () {
  const server = yield* echo
  const proxy = yield* FaultProxy.make({ port: server.port })
  return { server, proxy, connect: client(proxy.port) }
})

describe("FaultProxy", () => {
  it.scoped("passes bytes both ways and records them", () =>
    Effect.gen(function* () {
      const { connect, proxy } = yield* setup
      const one = yield* connect
      one.socket.write("hello")
      expect(yield* one.bytes(10)).toBe("hellohello")
      yield* proxy.awaitOpen(1)
      yield* TestClock.adjust("1 second")
      one.socket.end()
      expect(yield* one.outcome).toBe("end")
      yield* proxy.awaitOpen(0)
      expect(yield* proxy.connections).toEqual([
        { index: 0, fault: Fault.passThrough, openedAt: 0, closedAt: 1000, fromClient: 5, toClient: 10 }
      ])
    })
  )

  it.scoped("carries a megabyte through with backpressure", () =>
    Effect.gen(function* () {
      const { connect, proxy } = yield* setup
      const one = yield* connect
      one.socket.write("x".repeat(1_000_000))
      expect((yield* one.bytes(2_000_000)).length).toBe(2_000_000)
      const [record] = yield* proxy.awaitConnections(([only]) => only?.toClient === 2_000_000)
      expect(record?.fromClient).toBe(1_000_000)
    })
  )

  it.scoped("hands a reset of one side on to the other", () =>
    Effect.gen(function* () {
      const { connect, proxy, server } = yield* setup
      const one = yield* connect
      one.socket.write("a")
      yield* one.bytes(2)
      one.socket.resetAndDestroy()
      yield* proxy.awaitOpen(0)
      yield* Effect.repeat(Effect.yieldNow(), { until: () => server.seen.length === 3 })
      expect(server.seen).toEqual(["connection", "a", "ECONNRESET"])
    })
  )

  it.scoped("reads no more from one side than it can pass on to the other", () =>
    Effect.gen(function* () {
      const { connect, proxy, server } = yield* setup
      const answering: Array<net.Socket> = []
      server.server.on("connection", (socket) => answering.push(socket))
      yield* proxy.setFault(Fault.delay("1 hour"))
      const one = yield* connect
      one.socket.write(Buffer.alloc(12_000_000))
      yield* proxy.awaitConnections(([only]) => only?.fromClient === 12_000_000)
      // The first piece of the answer is held back; 24 MB do not fit into the kernel's buffers.
      yield* Effect.repeatN(Effect.yieldNow(), 500)
      expect(answering[0]?.writableLength).toBeGreaterThan(1_000_000)
    })
  )

  it.scoped("refuses, and listens on the same port again", () =>
    Effect.gen(function* () {
      const { connect, proxy } = yield* setup
      yield* proxy.setFault(Fault.refuse)
      const refused = yield* connect
      expect(yield* refused.outcome).toEqual({ code: "ECONNREFUSED" })
      expect(yield* proxy.connections).toEqual([])
      yield* proxy.setFault(Fault.passThrough)
      const one = yield* connect
      one.socket.write("a")
      expect(yield* one.bytes(2)).toBe("aa")
    })
  )

  it.scoped("resets a connection at once, before the server has seen it", () =>
    Effect.gen(function* () {
      const { connect, proxy, server } = yield* setup
      yield* proxy.setFault(Fault.reset())
      const one = yield* connect
      one.socket.write("hello")
      expect(yield* one.outcome).toEqual({ code: "ECONNRESET" })
      yield* proxy.awaitConnections((all) => all.length === 1 && all[0]?.closedAt !== undefined)
      expect(server.seen).toEqual([])
    })
  )

  it.scoped("resets both sides in the middle of a response", () =>
    Effect.gen(function* () {
      const { connect, proxy, server } = yield* setup
      yield* proxy.setFault(Fault.reset({ afterBytes: 3 }))
      const one = yield* connect
      one.socket.write("hello")
      // Node reports the reset as an end when it finds the last bytes and the reset together.
      expect(["end", { code: "ECONNRESET" }]).toContainEqual(yield* one.outcome)
      expect(one.received().length).toBeLessThanOrEqual(3)
      const [record] = yield* proxy.awaitConnections((all) => all[0]?.closedAt !== undefined)
      expect(record).toMatchObject({ fromClient: 5, toClient: 3 })
      yield* Effect.repeat(Effect.yieldNow(), { until: () => server.seen.length === 3 })
      expect(server.seen).toEqual(["connection", "hello", "ECONNRESET"])
    })
  )

  it.scoped("cuts what the client sends after so many bytes", () =>
    Effect.gen(function* () {
      const { connect, proxy } = yield* setup
      yield* proxy.setFault(Fault.reset({ afterBytes: 2, direction: "FromClient" }))
      const one = yield* connect
      one.socket.write("hello")
      expect(yield* one.outcome).toEqual({ code: "ECONNRESET" })
      const [record] = yield* proxy.awaitConnections((all) => all[0]?.closedAt !== undefined)
      expect(record).toMatchObject({ fromClient: 2 })
    })
  )

  it.scoped("ends a connection in an orderly way after so many bytes, or at once", () =>
    Effect.gen(function* () {
      const { connect, proxy, server } = yield* setup
      yield* proxy.setFault(Fault.finish({ afterBytes: 3 }))
      const one = yield* connect
      one.socket.write("hello")
      expect(yield* one.outcome).toBe("end")
      expect(one.received()).toBe("hel")
      yield* proxy.setFault(Fault.finish())
      const two = yield* connect
      expect(yield* two.outcome).toBe("end")
      expect(two.received()).toBe("")
      expect(server.seen.filter((event) => event === "connection").length).toBe(1)
      yield* proxy.awaitOpen(0)
    })
  )

  it.scoped("accepts and never answers", () =>
    Effect.gen(function* () {
      const { connect, proxy, server } = yield* setup
      yield* proxy.setFault(Fault.silence)
      const one = yield* connect
      one.socket.write("hello")
      const [record] = yield* proxy.awaitConnections((all) => all[0]?.fromClient === 5)
      expect(record).toMatchObject({ toClient: 0, closedAt: undefined })
      expect(server.seen).toEqual([])
      one.socket.destroy()
      yield* proxy.awaitOpen(0)
    })
  )

  it.scoped("holds answers back on Effect's clock", () =>
    Effect.gen(function* () {
      const { connect, proxy, server } = yield* setup
      yield* proxy.setFault(Fault.delay("10 seconds"))
      const one = yield* connect
      one.socket.write("hello")
      const arrived = yield* Effect.fork(one.bytes(10))
      yield* proxy.awaitConnections((all) => all[0]?.fromClient === 5)
      // The answer is in the proxy once the clock has a sleeper.
      yield* Effect.repeat(Effect.zipRight(Effect.yieldNow(), TestClock.sleeps()), {
        until: (sleeps) => Chunk.size(sleeps) > 0
      })
      yield* TestClock.adjust("9 seconds")
      expect(one.received()).toBe("")
      yield* TestClock.adjust("1 second")
      expect(yield* Fiber.join(arrived)).toBe("hellohello")
      expect(server.seen).toEqual(["connection", "hello"])
    })
  )

  it.scoped("answers with garbage or with plaintext HTTP, without the server", () =>
    Effect.gen(function* () {
      const { connect, proxy, server } = yield* setup
      yield* proxy.setFault(Fault.plaintextHttp)
      const one = yield* connect
      one.socket.write("hello")
      expect(yield* one.outcome).toBe("end")
      expect(one.received()).toMatch(/^HTTP\/1\.1 400 /)
      yield* proxy.setFault(Fault.garbage)
      const two = yield* connect
      two.socket.write("hello")
      expect(yield* two.outcome).toBe("end")
      expect(two.received().length).toBe(512)
      expect(server.seen).toEqual([])
    })
  )

  it.scoped("chooses a fault for each connection, and live ones keep theirs", () =>
    Effect.gen(function* () {
      const { connect, proxy } = yield* setup
      yield* proxy.setFaults((index) => (index === 1 ? Fault.reset() : Fault.passThrough))
      const zero = yield* connect
      yield* proxy.awaitOpen(1)
      const one = yield* connect
      expect(yield* one.outcome).toEqual({ code: "ECONNRESET" })
      yield* proxy.setFault(Fault.reset())
      zero.socket.write("a")
      expect(yield* zero.bytes(2)).toBe("aa")
    })
  )

  it.scoped("cuts all live connections, on both sides, and accepts new ones", () =>
    Effect.gen(function* () {
      const { connect, proxy, server } = yield* setup
      const all = yield* Effect.replicateEffect(connect, 3)
      for (const one of all) one.socket.write("a")
      yield* Effect.forEach(all, (one) => one.bytes(2))
      yield* proxy.cutAll
      expect(yield* proxy.open).toBe(0)
      for (const one of all) expect(yield* one.outcome).toEqual({ code: "ECONNRESET" })
      expect((yield* proxy.connections).map(({ closedAt }) => closedAt)).toEqual([0, 0, 0])
      const next = yield* connect
      next.socket.write("b")
      expect(yield* next.bytes(2)).toBe("bb")
      expect(server.seen.filter((event) => event === "ECONNRESET").length).toBe(3)
    })
  )

  it.scoped("leads new connections to another target", () =>
    Effect.gen(function* () {
      const { connect, proxy, server } = yield* setup
      const other = yield* echo
      yield* proxy.setTarget({ port: other.port })
      const one = yield* connect
      one.socket.write("a")
      yield* one.bytes(2)
      expect([server.seen, other.seen]).toEqual([[], ["connection", "a"]])
    })
  )

  it.effect("does not listen again when it is told of a fault after its scope has ended", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const proxy = yield* Effect.scoped(FaultProxy.make({ port: 1 }))
        yield* proxy.setFault(Fault.silence)
        const late = yield* client(proxy.port)
        expect(yield* late.outcome).toEqual({ code: "ECONNREFUSED" })
      })
    )
  )

  it.effect("is gone with its scope: connections reset, port free", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const server = yield* echo
        const [one, port] = yield* Effect.scoped(
          Effect.gen(function* () {
            const proxy = yield* FaultProxy.make({ port: server.port })
            const one = yield* Effect.flatMap(Effect.scope, () => client(proxy.port)).pipe(Effect.option)
            return [Option.getOrThrow(one), proxy.port] as const
          })
        )
        expect(yield* one.outcome).toBeDefined()
        const late = yield* client(port)
        expect(yield* late.outcome).toEqual({ code: "ECONNREFUSED" })
      })
    )
  )
})
