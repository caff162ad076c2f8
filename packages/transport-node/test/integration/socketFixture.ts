/** Secure socket servers and their clients for the tests in this folder. */
import type * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as Connector from "@agentweave/transport/Connector"
import * as PeerIdentity from "@agentweave/transport/PeerIdentity"
import * as SecureSocket from "@agentweave/transport/SecureSocket"
import * as NodeSecureSocketServer from "@agentweave/transport-node/NodeSecureSocketServer"
import { type Socket, SocketServer } from "@effect/platform"
import { Effect, Exit, Layer, Scope } from "effect"
import { type Client, host, type Identity, identityLayer, type Log, makeLog } from "./fixture.js"

export const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

export type Handler = (
  socket: Socket.Socket
) => Effect.Effect<unknown, unknown, PeerIdentity.PeerIdentity | Scope.Scope>

/** Sends back what comes. */
export const echo: Handler = (socket) => Effect.flatMap(socket.writer, (write) => socket.run(write))

/** Says whom it talks to, and ends. */
export const whoami: Handler = (socket) =>
  Effect.gen(function* () {
    const { spiffeId } = yield* PeerIdentity.callerOf(socket)
    const write = yield* socket.writer
    yield* write(spiffeId)
  })

export interface RunningSocketServer {
  readonly port: number
  readonly log: Log
  /** How many connections reached the handler. */
  readonly handled: () => number
  readonly close: Effect.Effect<void>
}

export const startSocketServer = Effect.fnUntraced(function* ({
  handler = whoami,
  identity,
  ...options
}: Partial<NodeSecureSocketServer.Options> & {
  readonly identity: Identity
  readonly authorize: PeerMatcher.PeerMatcher
  readonly handler?: Handler
}) {
  const log = makeLog()
  let handled = 0
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
  const services = yield* NodeSecureSocketServer.layer({ port: 0, host, ...options }).pipe(
    Layer.provide(identityLayer(identity)),
    Layer.provide(log.layer),
    Layer.buildWithScope(scope)
  )
  const { address, run } = yield* Effect.provide(SocketServer.SocketServer, services)
  if (address._tag !== "TcpAddress") return yield* Effect.dieMessage("expected a TCP address")
  const counted: Handler = (socket) =>
    Effect.suspend(() => {
      handled++
      return handler(socket)
    })
  yield* run((socket) => Effect.scoped(counted(socket))).pipe(
    Effect.provide(services),
    Effect.interruptible,
    Effect.forkScoped,
    Scope.extend(scope)
  )
  const running: RunningSocketServer = {
    port: address.port,
    log,
    handled: () => handled,
    close: Scope.close(scope, Exit.void)
  }
  return running
})

export type To = Omit<SecureSocket.Options, "host">

/** Opens a socket with the client's connector. */
export const openSocket = (client: Client, to: To) =>
  Effect.provideService(SecureSocket.connect({ host, ...to }), Connector.Connector, client.connector)

/** Everything that comes until the peer ends. */
export const readAll = (socket: Socket.Socket) =>
  Effect.suspend(() => {
    let received = ""
    return Effect.map(
      socket.run((bytes) => {
        received += text(bytes)
      }),
      () => received
    )
  })
