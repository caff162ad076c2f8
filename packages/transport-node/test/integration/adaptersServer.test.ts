import { connect } from "node:net"
import type { TLSSocket } from "node:tls"
import type { Credentials } from "@agentweave/testkit/Credentials"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as TestIdentity from "@agentweave/testkit/TestIdentity"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, TestClock } from "effect"
import { type Attempt, host, hostileClient, realTime } from "./fixture.js"
import { client } from "./rpcFixture.js"
import { type ServerAdapter, type Serving, serverAdapters } from "./serverAdapters.js"

const setUp = Effect.fnUntraced(function* (adapter: ServerAdapter) {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const identity = yield* TestIdentity.make(yield* authority.context({ path: "/server" }))
  return { authority, identity, serving: yield* adapter.start(identity) }
})

type World = Effect.Effect.Success<ReturnType<typeof setUp>>

/** Calls the server, until the connection has closed. `onTold` is called when the server has said who the client is. */
const call = (
  adapter: ServerAdapter,
  { port }: Serving,
  credentials: Credentials | undefined,
  onTold: (socket: TLSSocket) => void
): Effect.Effect<Attempt> =>
  Effect.suspend(() => {
    const [first = "", ...rest] = adapter.messages
    return hostileClient(port, credentials, {
      request: first,
      ...(adapter.protocols === undefined ? undefined : { ALPNProtocols: [...adapter.protocols] }),
      onData: (received, socket) => {
        const next = rest.shift()
        if (next !== undefined) socket.write(next)
        else if (received.includes(client)) onTold(socket)
      }
    })
  })

/** A client that was served and keeps its connection, for what becomes of that. */
const served = Effect.fnUntraced(function* (adapter: ServerAdapter, { authority, serving }: World) {
  const told = yield* Deferred.make<void>()
  const credentials = yield* authority.issueRaw({ path: "/client" })
  const connection = yield* Effect.fork(
    call(adapter, serving, credentials, () => Deferred.unsafeDone(told, Effect.void))
  )
  yield* Deferred.await(told)
  return connection
})

type Stranger = readonly [
  reason: string,
  credentials: (world: World) => Effect.Effect<Credentials | undefined, unknown>
]

/** Clients that are not served, what each presents, and what each is refused with. */
const strangers: Readonly<Record<string, Stranger>> = {
  "another workload of the same trust domain": [
    "UnexpectedPeer",
    ({ authority }) => authority.issueRaw({ path: "/other" })
  ],
  "a client whose certificate has expired": [
    "Expired",
    ({ authority }) => authority.issueRaw({ path: "/client", validity: "Expired" })
  ],
  "a client whose certificate is not valid yet": [
    "NotYetValid",
    ({ authority }) => authority.issueRaw({ path: "/client", validity: "Future" })
  ],
  "a client without a certificate": ["NoCertificate", () => Effect.succeed(undefined)],
  "a client of an authority that calls itself ours": [
    "UntrustedChain",
    () =>
      Effect.flatMap(DevAuthority.make({ trustDomain: "example.org" }), (foreign) =>
        foreign.issueRaw({ path: "/client" })
      )
  ],
  "a client of a trust domain whose bundle it does not have": [
    "UntrustedChain",
    () =>
      Effect.flatMap(DevAuthority.make({ trustDomain: "example.com" }), (foreign) =>
        foreign.issueRaw({ path: "/client" })
      )
  ],
  "a client of a trust domain it federates with, under the same path": [
    "UntrustedChain",
    ({ authority, identity }) =>
      Effect.gen(function* () {
        const foreign = yield* DevAuthority.make({ trustDomain: "example.com" })
        yield* identity.set(yield* authority.context({ path: "/server", federatesWith: [foreign] }))
        return yield* foreign.issueRaw({ path: "/client" })
      })
  ]
}

for (const adapter of serverAdapters) {
  describe(`a server: ${adapter.name}`, () => {
    it.scoped("serves the right peer as the caller that it is, on record from start to end", () =>
      Effect.gen(function* () {
        const { authority, serving } = yield* setUp(adapter)
        const credentials = yield* authority.issueRaw({ path: "/client" })
        for (let round = 1; round <= 2; round++) {
          const { received } = yield* call(adapter, serving, credentials, (socket) => socket.end())
          expect(received).toContain(client)
          expect(yield* serving.log.nth("ConnectionClosed", round - 1)).toMatchObject({ peerId: client })
          expect(serving.handled()).toBe(round)
        }
        const one = ["ConnectionAttempted", "ConnectionEstablished", "ConnectionClosed"]
        expect(serving.log.connections()).toEqual([...one, ...one])
        const requests = adapter.recordsRequests ? [{ peerId: client }, { peerId: client }] : []
        expect(serving.log.all("RequestStarted")).toMatchObject(requests)
        expect(serving.log.all("RequestEnded")).toMatchObject(requests)
      })
    )

    for (const [title, [reason, credentialsOf]] of Object.entries(strangers)) {
      it.scoped(`does not serve ${title}: its code is not reached, nothing stays open`, () =>
        Effect.gen(function* () {
          const world = yield* setUp(adapter)
          const { serving } = world
          const told: Array<TLSSocket> = []
          const { received } = yield* call(adapter, serving, yield* credentialsOf(world), (socket) => told.push(socket))
          expect(yield* serving.log.nth("ConnectionRefused")).toMatchObject({ reason })
          expect(serving.log.connections()).toEqual(["ConnectionAttempted", "ConnectionRefused"])
          // Only a server that speaks HTTP may say more than that the connection has ended.
          expect(received.startsWith("HTTP/1.1 403 ") ? "" : received).toBe("")
          expect(told).toEqual([])
          expect(serving.handled()).toBe(0)
          expect(serving.log.all("RequestStarted")).toEqual([])
        })
      )
    }

    it.scoped("does not serve a client that speaks no TLS", () =>
      Effect.gen(function* () {
        const { serving } = yield* setUp(adapter)
        yield* Effect.async<void>((resume) => {
          const socket = connect(serving.port, host)
          socket.on("error", () => {})
          socket.on("close", () => resume(Effect.void))
          socket.resume()
          socket.write(`${adapter.messages[0]}`)
        })
        expect(yield* serving.log.nth("ConnectionRefused")).toMatchObject({ error: "ConnectionError" })
        expect(serving.handled()).toBe(0)
      })
    )

    it.scoped("begins no handshake once its own identity has expired", () =>
      Effect.gen(function* () {
        const { authority, serving } = yield* setUp(adapter)
        const credentials = yield* authority.issueRaw({ path: "/client" })
        yield* TestClock.adjust("365 days")
        const { received, secured } = yield* call(adapter, serving, credentials, () => {})
        expect({ received, secured }).toEqual({ received: "", secured: false })
        expect(yield* serving.log.nth("ConnectionRefused")).toMatchObject({ error: "IdentityError", reason: "Expired" })
        expect(serving.handled()).toBe(0)
      })
    )

    it.scoped("ends the connection of a client whose authority was withdrawn, and serves that client no more", () =>
      Effect.gen(function* () {
        const world = yield* setUp(adapter)
        const { authority, identity, serving } = world
        const connection = yield* served(adapter, world)
        const successor = yield* Effect.flatMap(authority.rotateRoot(), ({ retireOldRoots }) => retireOldRoots)
        yield* identity.set(yield* successor.context({ path: "/server" }))
        // What is under way may have its time, which passes with the test's clock.
        yield* Effect.repeat(TestClock.adjust("100 millis"), {
          until: () => serving.log.all("ConnectionClosed").length > 0
        })
        expect(serving.log.all("ConnectionClosed")).toMatchObject([{ reason: "Distrust", peerId: client }])
        yield* Fiber.join(connection)
        yield* call(adapter, serving, yield* authority.issueRaw({ path: "/client" }), () => {})
        expect(yield* serving.log.nth("ConnectionRefused")).toMatchObject({ reason: "UntrustedChain" })
        expect(serving.handled()).toBe(1)
      })
    )

    it.scoped("has ended every connection, on record, when its scope has ended", () =>
      Effect.gen(function* () {
        const world = yield* setUp(adapter)
        const { serving } = world
        const connection = yield* served(adapter, world)
        const closing = yield* Effect.fork(serving.close)
        yield* Effect.repeat(TestClock.adjust("100 millis"), {
          until: () => serving.log.all("ConnectionClosed").length > 0
        })
        yield* Fiber.join(closing)
        yield* Fiber.join(connection)
        expect(serving.log.all("ConnectionClosed")).toHaveLength(1)
        expect(serving.log.all("RequestEnded")).toHaveLength(adapter.recordsRequests ? 1 : 0)
      })
    )
  })
}
