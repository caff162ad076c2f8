import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as TestIdentity from "@agentweave/testkit/TestIdentity"
import type * as AuditEvent from "@agentweave/transport/AuditEvent"
import * as Connector from "@agentweave/transport/Connector"
import * as PeerIdentity from "@agentweave/transport/PeerIdentity"
import * as NodeSecureWebSocket from "@agentweave/transport-node/NodeSecureWebSocket"
import { HttpServerRequest, HttpServerResponse, type Socket } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Scope } from "effect"
import { failure, host, realTime, type ServerOptions, startClient, startServer } from "./fixture.js"
import { text } from "./socketFixture.js"

/** Greets its caller by name, then sends back what comes. */
const greeting: ServerOptions["app"] = Effect.gen(function* () {
  const socket = yield* HttpServerRequest.upgrade
  const { spiffeId } = yield* PeerIdentity.current
  const write = yield* socket.writer
  yield* socket.run(write, { onOpen: Effect.orDie(write(spiffeId)) })
  return HttpServerResponse.empty()
}).pipe(Effect.scoped, Effect.orDie)

const setUp = Effect.fnUntraced(function* (refuses?: (event: AuditEvent.AuditEvent) => boolean) {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const identity = yield* TestIdentity.make(yield* authority.context({ path: "/client" }))
  const server = yield* startServer({
    identity: yield* authority.context({ path: "/server" }),
    authorize: authority.id("/client"),
    app: greeting
  })
  const client = yield* startClient(identity, refuses)
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
  const socket = yield* NodeSecureWebSocket.make({
    peer: authority.id("/server"),
    url: `wss://${host}:${server.port}/feed`
  }).pipe(Effect.provideService(Connector.Connector, client.connector), Scope.extend(scope))
  return { authority, identity, server, log: client.log, socket, close: Scope.close(scope, Exit.void) }
})

/** Runs the socket, with what tells of the messages that came. */
const running = (socket: Socket.Socket) =>
  Effect.gen(function* () {
    const received: Array<string> = []
    const waiting = new Map<string, Deferred.Deferred<void>>()
    const arrived = (message: string) =>
      Effect.gen(function* () {
        if (received.includes(message)) return
        const deferred = yield* Deferred.make<void>()
        waiting.set(message, deferred)
        yield* Deferred.await(deferred)
      })
    const run = yield* Effect.forkScoped(
      socket.run((bytes) => {
        received.push(text(bytes))
        const deferred = waiting.get(text(bytes))
        if (deferred !== undefined) Deferred.unsafeDone(deferred, Effect.void)
      })
    )
    return { run, arrived, write: yield* socket.writer }
  })

describe("a WebSocket over a verified connection", () => {
  it.scoped(
    "carries messages both ways, the server knows its caller, and both sides have it on record to its end",
    () =>
      Effect.gen(function* () {
        const { authority, close, log, server, socket } = yield* setUp()
        const { arrived, write } = yield* running(socket)
        yield* arrived(authority.id("/client"))
        yield* write("ping")
        yield* arrived("ping")
        yield* close
        expect(yield* log.nth("ConnectionClosed")).toMatchObject({ peerId: authority.id("/server"), requests: 1 })
        expect(log.all("RequestStarted")).toMatchObject([{ method: "GET", path: "/feed" }])
        const [ended] = log.all("RequestEnded")
        expect(ended).toMatchObject({ path: "/feed", status: 101, peerId: authority.id("/server") })
        expect(ended?.error).toBeUndefined()
        expect(yield* server.log.nth("RequestEnded")).toMatchObject({ path: "/feed", peerId: authority.id("/client") })
        yield* server.log.nth("ConnectionClosed")
      })
  )

  it.scoped("ends, with our error as its cause, when the authority of the server is withdrawn", () =>
    Effect.gen(function* () {
      const { authority, identity, log, server, socket } = yield* setUp()
      const { arrived, run } = yield* running(socket)
      yield* arrived(authority.id("/client"))
      const successor = yield* Effect.flatMap(authority.rotateRoot(), ({ retireOldRoots }) => retireOldRoots)
      yield* identity.set(yield* successor.context({ path: "/client" }))
      const error = yield* failure(Effect.fromFiber(run))
      expect(error).toMatchObject({ _tag: "SocketError", cause: { _tag: "ConnectionError", reason: "Lost" } })
      expect(yield* log.nth("ConnectionClosed")).toMatchObject({ reason: "Distrust" })
      expect(log.all("RequestEnded")).toMatchObject([{ status: 101, error: "ConnectionError" }])
      yield* server.log.nth("ConnectionClosed")
    })
  )

  it.scoped("is not opened where its request cannot be put on record", () =>
    Effect.gen(function* () {
      const { log, server, socket } = yield* setUp(({ _tag }) => _tag === "RequestStarted")
      const error = yield* failure(socket.run(() => {}))
      expect(error).toMatchObject({
        _tag: "SocketError",
        reason: "Open",
        cause: { _tag: "AuditError", reason: "Full" }
      })
      yield* log.nth("ConnectionClosed")
      yield* server.close
      expect(server.log.all("RequestStarted")).toEqual([])
      expect(log.all("RequestEnded")).toEqual([])
    })
  )

  it.scoped("runs again, over a connection of its own, after it has ended", () =>
    Effect.gen(function* () {
      const { authority, log, socket } = yield* setUp()
      for (let round = 0; round < 2; round++) {
        yield* Effect.scoped(
          Effect.gen(function* () {
            const { arrived } = yield* running(socket)
            yield* arrived(authority.id("/client"))
          })
        )
        yield* log.nth("ConnectionClosed", round)
      }
      expect(log.all("ConnectionEstablished")).toHaveLength(2)
    })
  )
})
