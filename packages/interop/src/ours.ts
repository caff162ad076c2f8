/** Our own peers: a server and a client that take their identity from a Workload API. */
import { createServer } from "node:net"
import { PeerMatcher, type SpiffeId } from "@agentweave/spiffe"
import { AuditLog, PeerIdentity, SecureChannel } from "@agentweave/transport"
import { NodeConnector, NodeSecureServer } from "@agentweave/transport-node"
import { WorkloadApi } from "@agentweave/workload-api"
import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { Context, Effect, Either, Layer, Logger, LogLevel } from "effect"
import type { Workload } from "./world.js"

/** A port that was free a moment ago, for servers that do not say which one they took. */
export const freePort = Effect.async<number>((resume) => {
  const server = createServer()
  server.listen(0, "127.0.0.1", () => {
    const address = server.address()
    server.close(() => resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0)))
  })
})

const quiet = Logger.minimumLogLevel(LogLevel.None)

const router = HttpRouter.empty.pipe(
  HttpRouter.get(
    "/",
    Effect.map(PeerIdentity.caller, ({ spiffeId }) => HttpServerResponse.text(spiffeId))
  )
)

/** The port of a server that answers with the caller's ID, and serves whom it is told to. */
export const serve = Effect.fnUntraced(function* (workload: Workload, authorize: SpiffeId.SpiffeId) {
  const context = yield* Layer.build(
    HttpServer.serve(router).pipe(
      Layer.provideMerge(
        NodeSecureServer.layer({ port: 0, host: "127.0.0.1", authorize: PeerMatcher.exactly(authorize) })
      ),
      Layer.provide(AuditLog.layerMemory([])),
      Layer.provide(WorkloadApi.layer({ endpoint: workload.endpoint })),
      Layer.provide(quiet)
    )
  )
  const { address } = Context.get(context, HttpServer.HttpServer)
  return address._tag === "TcpAddress" ? address.port : 0
})

/** What becomes of so many requests, each on a connection of its own: how many had the right answer, else the first error. */
export const get = (
  workload: Workload,
  options: {
    readonly url: string
    readonly peer: SpiffeId.SpiffeId
    readonly count?: number
    readonly expect?: (body: string) => boolean
  }
) =>
  Effect.gen(function* () {
    const { count = 1, expect = (body) => body === workload.id, peer, url } = options
    let ok = 0
    let problem = ""
    for (let index = 0; index < count; index++) {
      const answer = yield* Effect.either(
        Effect.scoped(
          Effect.gen(function* () {
            const channel = yield* SecureChannel.make({ peer, baseUrl: url })
            const response = yield* channel.get("/")
            return { status: response.status, body: yield* response.text }
          })
        )
      )
      if (Either.isLeft(answer)) {
        const { left } = answer
        problem ||= `${left._tag} ${"reason" in left ? left.reason : ""}`.trim()
      } else if (answer.right.status === 200 && expect(answer.right.body)) ok += 1
      else problem ||= `status ${answer.right.status}: ${answer.right.body.slice(0, 80)}`
      if (count > 1) yield* Effect.sleep("10 millis")
    }
    return problem === "" ? `${ok} of ${count}` : `${ok} of ${count}: ${problem}`
  }).pipe(
    Effect.provide(
      NodeConnector.layer.pipe(
        Layer.provide(AuditLog.layerMemory([])),
        Layer.provideMerge(WorkloadApi.layer({ endpoint: workload.endpoint })),
        Layer.provide(quiet)
      )
    )
  )
