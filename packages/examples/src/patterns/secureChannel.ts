/** One peer, one channel, closed with its scope. */
import { SecureChannel } from "@agentweave/transport"
import { Effect } from "effect"

export const secureChannel = Effect.fnUntraced(function* (peer: string, baseUrl: string) {
  const channel = yield* SecureChannel.make({ peer, baseUrl, config: { timeout: "30 seconds" } })
  return yield* channel.get("/api")
})
