/** Many peers, their connections kept and bounded together; the background work lives in the layer's scope. */
import { ConnectionPool } from "@agentweave/transport"
import { Effect } from "effect"

export const connectionPool = Effect.fnUntraced(
  function* (peer: string) {
    const pool = yield* ConnectionPool.ConnectionPool
    return yield* pool.withChannel(peer, (channel) => Effect.flatMap(channel.get("/api"), (response) => response.json))
  },
  Effect.provide(ConnectionPool.layer({ maxConnectionsPerTarget: 10 }))
)
