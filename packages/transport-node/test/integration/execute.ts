import type * as Connector from "@agentweave/transport/Connector"
import type * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import { Effect } from "effect"

/** An exchange, and how often it settled. */
export interface Settled {
  count: number
}

/** Runs one exchange on a connection. */
export const execute = (
  connection: Connector.Connection,
  request: HttpClientRequest.HttpClientRequest,
  settled: Settled = { count: 0 }
): Effect.Effect<HttpClientResponse.HttpClientResponse, Connector.ExchangeError> =>
  Effect.withFiberRuntime((fiber) =>
    Effect.async((resume) => {
      const cancel = connection.unsafeStart(
        {
          request,
          path: request.url,
          fiber: fiber as Connector.Exchange["fiber"],
          onSettled: () => {
            settled.count++
          }
        },
        resume
      )
      return Effect.sync(cancel)
    })
  )
