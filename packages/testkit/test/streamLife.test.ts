import { TestConnector } from "@agentweave/testkit"
import { Connector, SecureSocket } from "@agentweave/transport"
import { describe } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Layer, Scope } from "effect"
import { makeParties } from "../../transport/test/lifeParties.js"
import { type LifeRecord, limits } from "../../transport/test/lifeSide.js"
import { type StreamSide, streamLife } from "../../transport/test/streamLife.js"

const network = (record: LifeRecord): Effect.Effect<StreamSide, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const { identity, layer, peer, present } = yield* makeParties
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const lost = yield* Deferred.make<never, string>()
    const network = yield* TestConnector.make({ streamHandler: () => Deferred.await(lost) })
    const services = yield* network.layer.pipe(Layer.provide([layer, record.layer]), Layer.buildWithScope(scope))
    const open: StreamSide["open"] = (presented) =>
      Effect.gen(function* () {
        const credentials = yield* present(presented)
        yield* network.setOnConnect(() => Effect.succeed({ credentials }))
        const config = { maxConnectionAge: limits.age }
        const socket = yield* SecureSocket.connect({ peer, host: "peer", port: 7000, config }).pipe(
          Effect.provideService(Connector.Connector, Context.get(services, Connector.Connector))
        )
        const goneAtPeer = Effect.repeat(network.open, { until: (count) => count === 0 })
        return { socket, lose: Deferred.fail(lost, "lost"), goneAtPeer }
      })
    return { identity, end: Scope.close(scope, Exit.void), open }
  })

describe("a stream of the test kit's network", () => {
  streamLife(network)
})
