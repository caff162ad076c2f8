/** PostgreSQL's driver over a verified connection: what it takes is a function that makes streams. */
import { NodeSecureSocket } from "@agentweave/transport-node"
import { Effect } from "effect"
import pg from "pg"

/**
 * A client that is connected, until the scope closes. The driver's own TLS is off: whatever host it is told, it talks to this
 * peer at this address. A pool takes the same options.
 */
export const database = (address: { readonly host: string; readonly port: number }) =>
  Effect.gen(function* () {
    const stream = yield* NodeSecureSocket.makeFactory({ peer: "spiffe://example.org/db", ...address })
    return yield* Effect.acquireRelease(
      Effect.tryPromise(async () => {
        const client = new pg.Client({ stream, ssl: false, user: "app", database: "app" })
        client.on("error", () => {})
        await client.connect()
        return client
      }),
      (client) => Effect.promise(() => client.end())
    )
  })
