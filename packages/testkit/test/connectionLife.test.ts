import { TestConnector } from "@agentweave/testkit"
import { Connector } from "@agentweave/transport"
import { HttpServerResponse } from "@effect/platform"
import { describe } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Layer, Scope, Stream } from "effect"
import { connectionLife } from "../../transport/test/connectionLife.js"
import { makeParties } from "../../transport/test/lifeParties.js"
import { type LifeRecord, meetBy, type Presented, paths, type Side } from "../../transport/test/lifeSide.js"

const network = (record: LifeRecord): Effect.Effect<Side, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const { identity, layer, peer, present } = yield* makeParties
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const held = yield* Deferred.make<void>()
    const presented: Array<Presented> = []
    const network = yield* TestConnector.make({
      handler: ({ path }) => {
        const rest = Stream.fromEffect(Effect.as(Deferred.await(held), "ved"))
        const halves = Stream.encodeText(Stream.concat(Stream.make("ser"), rest))
        if (path === paths.HalfAnswered) return Effect.succeed(HttpServerResponse.stream(halves))
        const begin = path === paths.Unanswered ? Deferred.await(held) : Effect.void
        return Effect.as(begin, HttpServerResponse.text("served"))
      },
      onConnect: ({ port }) =>
        Effect.suspend(() => {
          const kind = presented[port] ?? "Silent"
          return kind === "Silent" ? Effect.never : Effect.map(present(kind), (credentials) => ({ credentials }))
        })
    })
    const services = yield* network.layer.pipe(Layer.provide([layer, record.layer]), Layer.buildWithScope(scope))
    const meet = meetBy({
      connector: Context.get(services, Connector.Connector),
      peer,
      record,
      find: (kind) =>
        Effect.succeed({
          host: "peer",
          port: presented.push(kind) - 1,
          answer: Effect.asVoid(Deferred.succeed(held, undefined)),
          leave: network.closeAll()
        })
    })
    const end = Scope.close(scope, Exit.void)
    return { identity, peer, meet, end, abandoned: "Refused ScopeClosedError Connector" }
  })

describe("a connection of the test kit's network:", () => {
  connectionLife(network)
})
