import { X509BundleSet, X509Context, type X509Svid } from "@agentweave/spiffe"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as TestIdentity from "@agentweave/testkit/TestIdentity"
import * as Connector from "@agentweave/transport/Connector"
import * as TransportError from "@agentweave/transport/TransportError"
import * as NodeSecureWebSocket from "@agentweave/transport-node/NodeSecureWebSocket"
import { HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Deferred, Effect, Fiber, Schedule, Stream } from "effect"
import { failure, host, startClient, startServer } from "./fixture.js"
import { callRpc, client, serveRpc, type Way, ways } from "./rpcFixture.js"
import { text } from "./socketFixture.js"

// OpenSSL judges dates by the system's clock and identities change in real time, so the clock here is the live one.

/** How many rotations a test waits for, of each side. */
const enough = 20

/** Rotates an identity every 100 ms. Its SVIDs are issued beforehand: that is an agent's work, and not in this process. */
const rotating = Effect.fnUntraced(function* (
  authority: DevAuthority.DevAuthority,
  identity: TestIdentity.TestIdentity,
  path: string
) {
  const done = yield* Deferred.make<void>()
  const svids = yield* Effect.replicateEffect(authority.issue({ path }), 10)
  let count = 0
  const rotate = Effect.suspend(() => {
    const svid = svids[count++ % svids.length] as X509Svid.X509Svid
    if (count === enough) Deferred.unsafeDone(done, Effect.void)
    return identity.set(X509Context.make({ svid, bundles: X509BundleSet.of(authority.bundle) }))
  })
  yield* Effect.forkScoped(Effect.repeat(rotate, Schedule.fixed("100 millis")))
  return Deferred.await(done)
})

/** A trust domain, and an identity for either side of a connection. `ttl` is how long the server's first SVID lasts. */
const world = Effect.fnUntraced(function* (ttl: "5 seconds" | "1 hour" = "1 hour") {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  return {
    authority,
    serverIdentity: yield* TestIdentity.make(yield* authority.context({ path: "/server", ttl })),
    clientIdentity: yield* TestIdentity.make(yield* authority.context({ path: "/client" }))
  }
})

const rotatingBoth = Effect.fnUntraced(function* ({
  authority,
  clientIdentity,
  serverIdentity
}: Effect.Effect.Success<ReturnType<typeof world>>) {
  const ofServer = yield* rotating(authority, serverIdentity, "/server")
  const ofClient = yield* rotating(authority, clientIdentity, "/client")
  return Effect.zipRight(ofServer, ofClient)
})

const rpc = Effect.fnUntraced(function* (way: Way, ttl?: "5 seconds") {
  const identities = yield* world(ttl)
  const served = yield* serveRpc(way, identities.serverIdentity)
  const called = yield* callRpc(way, served.port, identities.clientIdentity)
  return { identities, serverLog: served.log, log: called.log, procedures: called.procedures }
})

/** The first of our typed errors among the causes of an error. */
const typed = (error: unknown): unknown => {
  for (let at = error; typeof at === "object" && at !== null; at = "cause" in at ? at.cause : undefined) {
    if ("_tag" in at && "isRetryable" in at) return at
  }
  return error
}

for (const [name, way] of Object.entries(ways)) {
  describe(`RPC over ${name}, with a rotation every 100 ms on both sides`, () => {
    it.scopedLive("fails no call and ends no stream", () =>
      Effect.gen(function* () {
        const { identities, procedures } = yield* rpc(way)
        const rotated = yield* rotatingBoth(identities)
        const called = yield* Deferred.make<void>()
        const read = yield* Deferred.make<void>()
        let calls = 0
        const call = Effect.map(procedures.WhoAmI(), (who) => {
          expect(who).toBe(client)
          if (++calls === enough) Deferred.unsafeDone(called, Effect.void)
        })
        const count = Effect.map(Stream.runCollect(procedures.Count({ to: 50 })), (numbers) =>
          expect(Chunk.toReadonlyArray(numbers)).toEqual(Array.from({ length: 50 }, (_, index) => index + 1))
        )
        const load = yield* Effect.fork(
          Effect.all(
            [call, call, count].map((each) => Effect.repeat(each, Schedule.spaced("10 millis"))),
            { concurrency: "unbounded", discard: true }
          )
        )
        let last = 0
        const long = yield* procedures.Ticks().pipe(
          Stream.runForEach((tick) =>
            Effect.sync(() => {
              expect(tick).toBe(last + 1)
              last = tick
              if (tick === enough) Deferred.unsafeDone(read, Effect.void)
            })
          ),
          Effect.fork
        )
        const allDone = Effect.all([rotated, Deferred.await(called), Deferred.await(read)])
        // The load ends by a failure alone.
        yield* Effect.raceFirst(allDone, Effect.zip(Fiber.join(load), Fiber.join(long)))
        expect(long.unsafePoll()).toBeNull()
        yield* Fiber.interruptAll([load, long])
      })
    )
  })

  describe(`RPC over ${name}, on a connection whose credentials end`, () => {
    it.scopedLive("a stream ends with the reason, and calls are served over a new connection by themselves", () =>
      Effect.gen(function* () {
        const { identities, log, procedures, serverLog } = yield* rpc(way, "5 seconds")
        const { authority, serverIdentity } = identities
        const begun = yield* Deferred.make<void>()
        const stream = yield* procedures.Ticks().pipe(
          Stream.runForEach(() => Deferred.succeed(begun, undefined)),
          failure,
          Effect.fork
        )
        yield* Deferred.await(begun)
        yield* serverIdentity.rotate(authority.context({ path: "/server" }))
        const error = yield* Fiber.join(stream)
        expect(error).toMatchObject({ _tag: "RpcClientError" })
        // Either side may be the first to end it: the other sees the end of the connection.
        const told = typed(error)
        const expected =
          told instanceof TransportError.ConnectionError ? { reason: "Lost" } : { cause: { reason: "Close" } }
        expect(told).toMatchObject(expected)
        const closed = [yield* log.nth("ConnectionClosed"), yield* serverLog.nth("ConnectionClosed")]
        expect(closed.map(({ reason }) => reason)).toContain("Expiry")
        // While it connects again a client of a socket refuses calls.
        expect(yield* Effect.retry(procedures.WhoAmI(), Schedule.spaced("50 millis"))).toBe(client)
        expect(log.all("ConnectionEstablished").length).toBeGreaterThan(1)
        expect(log.all("ConnectionRefused")).toEqual([])
      })
    )
  })
}

describe("a WebSocket, with a rotation every 100 ms on both sides", () => {
  it.scopedLive("loses no message and is not ended", () =>
    Effect.gen(function* () {
      const identities = yield* world()
      const server = yield* startServer({
        identity: identities.serverIdentity,
        authorize: identities.authority.id("/client"),
        app: Effect.gen(function* () {
          const socket = yield* HttpServerRequest.upgrade
          const write = yield* socket.writer
          yield* socket.run(write)
          return HttpServerResponse.empty()
        }).pipe(Effect.scoped, Effect.orDie)
      })
      const { connector, log } = yield* startClient(identities.clientIdentity)
      const socket = yield* NodeSecureWebSocket.make({
        peer: identities.authority.id("/server"),
        url: `wss://${host}:${server.port}/feed`
      }).pipe(Effect.provideService(Connector.Connector, connector))
      const write = yield* socket.writer
      const rotated = yield* rotatingBoth(identities)
      let next = 1
      // Each message that comes back is followed by the next.
      const running = yield* Effect.fork(
        socket.run(
          (bytes) => {
            expect(text(bytes)).toBe(`${next}`)
            next++
            return write(`${next}`)
          },
          { onOpen: Effect.orDie(write("1")) }
        )
      )
      yield* Effect.raceFirst(rotated, Fiber.join(running))
      expect(running.unsafePoll()).toBeNull()
      expect(next).toBeGreaterThan(10)
      expect(log.all("ConnectionEstablished")).toHaveLength(1)
      expect(log.all("ConnectionClosed")).toEqual([])
      yield* Fiber.interrupt(running)
    })
  )
})
