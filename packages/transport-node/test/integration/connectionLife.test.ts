import { connect, type Socket } from "node:net"
import { connect as connectTls } from "node:tls"
import { PeerMatcher } from "@agentweave/spiffe"
import { Fault, FaultProxy } from "@agentweave/testkit"
import { Connector } from "@agentweave/transport"
import { NodeConnector, NodeSecureServer } from "@agentweave/transport-node"
import { HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { describe } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Scope, Stream } from "effect"
import { connectionLife } from "../../../transport/test/connectionLife.js"
import { makeParties } from "../../../transport/test/lifeParties.js"
import { type LifeRecord, limits, meetBy, type Opened, paths, type Side } from "../../../transport/test/lifeSide.js"
import { host, hostileServer, presented as ofNode } from "./fixture.js"

const response = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nserved"

const client = (record: LifeRecord): Effect.Effect<Side, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const { identity, layer, peer, present } = yield* makeParties
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const services = yield* NodeConnector.layer.pipe(Layer.provide([layer, record.layer]), Layer.buildWithScope(scope))
    const silent = Effect.gen(function* () {
      const { host, port, setFault } = yield* FaultProxy.make({ port: 1 })
      yield* setFault(Fault.silence)
      return { host, port, answer: Effect.void, leave: Effect.void }
    })
    const meet = meetBy({
      connector: Context.get(services, Connector.Connector),
      peer,
      record,
      find: (presented) => {
        if (presented === "Silent") return silent
        return Effect.gen(function* () {
          let answer = () => {}
          const accepted: Array<Socket> = []
          const { port } = yield* hostileServer(yield* present(presented), {
            onSecure: (socket) => accepted.push(socket),
            onRequest: (socket, bytes) => {
              const held = bytes.includes(paths.Unanswered)
                ? response.length
                : bytes.includes(paths.HalfAnswered)
                  ? 3
                  : 0
              socket.write(response.slice(0, response.length - held))
              answer = () => socket.write(response.slice(response.length - held))
            }
          })
          return {
            host,
            port,
            answer: Effect.sync(() => answer()),
            leave: Effect.sync(() => {
              for (const socket of accepted) socket.end()
            })
          }
        })
      }
    })
    const end = Scope.close(scope, Exit.void)
    return { identity, peer, meet, end, abandoned: "Refused ScopeClosedError Connector" }
  })

/** One request on a socket: whether it was answered. */
const ask = (socket: Socket, path: string, onHalf = () => {}): Effect.Effect<boolean> =>
  Effect.async((resume) => {
    let received = ""
    const onData = (chunk: Buffer) => {
      received += chunk
      if (received.endsWith("ser")) onHalf()
      if (received.endsWith("served")) finish(true)
    }
    const onClose = () => finish(false)
    const finish = (answered: boolean) => {
      socket.off("data", onData)
      socket.off("close", onClose)
      resume(Effect.succeed(answered))
    }
    if (socket.destroyed) return finish(false)
    socket.on("data", onData)
    socket.once("close", onClose)
    socket.write(`GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`)
  })

/** A socket that is closed with the test, and tells no error. */
const opening = (open: () => Socket): Effect.Effect<Socket, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => open().on("error", () => {})),
    (socket) => Effect.sync(() => socket.destroy())
  )

const server = (record: LifeRecord): Effect.Effect<Side, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const { identity, layer, peer, present } = yield* makeParties
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const held = yield* Deferred.make<void>()
    const rest = Stream.fromEffect(Effect.as(Deferred.await(held), "ved"))
    const halves = Stream.encodeText(Stream.concat(Stream.make("ser"), rest))
    const app = Effect.gen(function* () {
      const { url } = yield* HttpServerRequest.HttpServerRequest
      if (url === paths.HalfAnswered) return HttpServerResponse.stream(halves, { contentLength: 6 })
      if (url === paths.Unanswered) yield* Deferred.await(held)
      return HttpServerResponse.text("served")
    })
    const services = yield* HttpServer.serve(app).pipe(
      Layer.provideMerge(
        NodeSecureServer.layer({
          port: 0,
          host,
          authorize: PeerMatcher.exactly(peer),
          handshakeTimeout: limits.handshake,
          maxConnectionAge: limits.age,
          gracefulShutdownTimeout: limits.grace,
          keepAliveTimeout: "10 hours"
        })
      ),
      Layer.provide([layer, record.layer]),
      Layer.buildWithScope(scope)
    )
    const { address } = Context.get(services, HttpServer.HttpServer)
    if (address._tag !== "TcpAddress") return yield* Effect.dieMessage("expected a TCP address")
    const { port } = address
    const meet: Side["meet"] = (presented) =>
      Effect.gen(function* () {
        const credentials = presented === "Silent" ? undefined : ofNode(yield* present(presented))
        const socket = yield* opening(() =>
          credentials === undefined
            ? connect(port, host)
            : connectTls({ host, port, ...credentials, rejectUnauthorized: false })
        )
        const begin: Opened["begin"] = Effect.fnUntraced(function* (progress) {
          const started = record.all("RequestStarted").length
          const hasHalf = yield* Deferred.make<void>()
          const onHalf = () => Deferred.unsafeDone(hasHalf, Effect.void)
          const running = yield* Effect.forkScoped(ask(socket, paths[progress], onHalf))
          yield* record.until("RequestStarted", started + 1)
          if (progress === "HalfAnswered") yield* Deferred.await(hasHalf)
          const answered = Deferred.succeed(held, undefined)
          return { answer: Effect.zipRight(answered, Effect.asVoid(Fiber.await(running))) }
        })
        return { request: ask(socket, "/"), begin, leave: Effect.sync(() => socket.end()) }
      })
    const end = Scope.close(scope, Exit.void)
    return { identity, peer, meet, end, abandoned: "Refused Interrupted Interrupted" }
  })

describe("a client's connection over sockets:", () => {
  connectionLife(client)
})

describe("a server's connection over sockets:", () => {
  connectionLife(server)
})
