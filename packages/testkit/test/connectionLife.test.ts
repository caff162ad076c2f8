import { TestConnector } from "@agentweave/testkit"
import { Connector } from "@agentweave/transport"
import { HttpServerResponse } from "@effect/platform"
import { describe } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Layer, Scope } from "effect"
import {
  connectionLife,
  type LifeRecord,
  meetBy,
  type Presented,
  type Side
} from "../../transport/test/connectionLife.js"
import { makeParties } from "../../transport/test/lifeParties.js"

const network = (record: LifeRecord): Effect.Effect<Side, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const { identity, layer, peer, present } = yield* makeParties
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const held = yield* Deferred.make<void>()
    const presented: Array<Presented> = []
    const network = yield* TestConnector.make({
      handler: ({ path }) =>
        Effect.as(path === "/held" ? Deferred.await(held) : Effect.void, HttpServerResponse.text("served")),
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
