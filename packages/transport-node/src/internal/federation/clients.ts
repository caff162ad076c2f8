import type { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import type { SpiffeId } from "@agentweave/spiffe/SpiffeId"
import type { Connector } from "@agentweave/transport/Connector"
import * as SecureChannel from "@agentweave/transport/SecureChannel"
import * as HttpClient from "@effect/platform/HttpClient"
import type { HttpClientError } from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Agent } from "undici"

const requestFor = (url: URL): HttpClientRequest.HttpClientRequest => HttpClientRequest.get(url, { acceptJson: true })

/**
 * A GET as browsers do it (`https_web`): the URL's host proven by a certificate of the public web, or of `authorities`,
 * PEM, in their place. Each has its own connection: nothing is resumed, and the environment cannot turn verification off.
 */
export const getWeb = Effect.fnUntraced(function* (
  url: URL,
  options: { readonly timeout: Duration.Duration; readonly authorities?: string | undefined }
): Effect.fn.Return<HttpClientResponse, HttpClientError, Scope.Scope> {
  const agent = yield* Effect.acquireRelease(
    Effect.sync(
      () =>
        new Agent({
          connect: {
            rejectUnauthorized: true,
            minVersion: "TLSv1.2",
            maxCachedSessions: 0,
            timeout: Duration.toMillis(options.timeout),
            ...(options.authorities === undefined ? undefined : { ca: options.authorities })
          }
        })
    ),
    (agent) => Effect.promise(() => agent.destroy())
  )
  const client = HttpClient.withTracerPropagation(NodeHttpClient.makeUndici(agent), false)
  return yield* client.execute(requestFor(url))
})

/** A GET of an endpoint that proves to be `endpointId` by its SVID (`https_spiffe`), on a connection of its own. */
export const getSpiffe = (
  url: URL,
  options: { readonly timeout: Duration.Duration; readonly endpointId: SpiffeId }
): Effect.Effect<HttpClientResponse, Error, Scope.Scope | IdentityProvider | Connector> =>
  Effect.flatMap(
    SecureChannel.make({
      peer: options.endpointId,
      config: { connections: 1, timeout: options.timeout, connectTimeout: options.timeout, tlsMinVersion: "TLSv1.2" }
    }),
    (channel): Effect.Effect<HttpClientResponse, Error> => channel.execute(requestFor(url))
  )
