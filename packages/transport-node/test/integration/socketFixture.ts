/** Secure socket servers and their clients for the tests in this folder. */
import { createServer, type Http2Server } from "node:http2"
import type * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as Connector from "@agentweave/transport/Connector"
import * as PeerIdentity from "@agentweave/transport/PeerIdentity"
import * as SecureSocket from "@agentweave/transport/SecureSocket"
import * as NodeSecureSocketServer from "@agentweave/transport-node/NodeSecureSocketServer"
import { type Socket, SocketServer } from "@effect/platform"
import { Effect, Exit, Layer, Option, Scope } from "effect"
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

const whoamiOverHttp2 = (caller: string): Http2Server =>
  createServer().on("stream", (stream, headers) => {
    stream.on("error", () => {})
    if (headers[":path"] === "/whoami") stream.end(caller)
  })

/** Serves HTTP/2: `/whoami` is answered with the caller, everything else never. */
export const http2: Handler = (socket) =>
  Effect.gen(function* () {
    const { spiffeId } = yield* PeerIdentity.callerOf(socket)
    const stream = Option.getOrThrow(NodeSecureSocketServer.toNetSocket(socket))
    whoamiOverHttp2(spiffeId).emit("connection", stream)
    yield* Effect.async<void>((resume) => void stream.once("close", () => resume(Effect.void)))
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
