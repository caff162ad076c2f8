/** A library that knows nothing of Effect and takes a `fetch`: its requests go to one verified peer and nowhere else. */
import { SecureChannel } from "@agentweave/transport"
import { NodeDispatcher } from "@agentweave/transport-node"
import { Effect } from "effect"

/** Such a library, as the clients of many services are. */
export class ModelsClient {
  private readonly options: { readonly baseURL: string; readonly fetch: typeof globalThis.fetch }

  constructor(options: { readonly baseURL: string; readonly fetch: typeof globalThis.fetch }) {
    this.options = options
  }

  async complete(prompt: string): Promise<unknown> {
    const { baseURL, fetch } = this.options
    const response = await fetch(`${baseURL}/completions`, { method: "POST", body: JSON.stringify({ prompt }) })
    return response.json()
  }
}

/** The library over a channel: pooled, on record, and under the channel's limits. */
export const models = (baseURL: string) =>
  Effect.gen(function* () {
    const channel = yield* SecureChannel.make({ peer: "spiffe://example.org/models", baseUrl: baseURL })
    return new ModelsClient({ baseURL, fetch: yield* NodeDispatcher.makeFetch(channel) })
  })
