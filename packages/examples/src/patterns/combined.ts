/** Pool, circuit breaker and retries in one, for each peer its own. */
import { Transport } from "@agentweave/transport"
import { Effect } from "effect"

export const combined = Effect.fnUntraced(function* (peer: string) {
  const transport = yield* Transport.Transport
  const client = yield* transport.client(peer)
  return yield* Effect.flatMap(client.get("/api"), (response) => response.json)
}, Effect.provide(Transport.layer()))
