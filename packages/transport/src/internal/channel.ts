import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import type { SpiffeId } from "@agentweave/spiffe/SpiffeId"
import * as HttpClient from "@effect/platform/HttpClient"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"
import * as ClientRequest from "@effect/platform/HttpClientRequest"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import * as Effect from "effect/Effect"
import type { ExchangeError } from "../Connector.js"
import type { SecureChannel } from "../SecureChannel.js"

export const TypeId: unique symbol = Symbol.for("@agentweave/transport/SecureChannel")

/**
 * An `HttpClient.With` around one function. `HttpClient.make` would add an `AbortController`, a finalization registry
 * entry, a rebuilt URL and a span to every request; `makeWith` keeps every combinator working without them.
 */
export const makeClient = <E, R>(
  execute: (request: HttpClientRequest) => Effect.Effect<HttpClientResponse, E, R>
): HttpClient.HttpClient.With<E, R> => {
  const client = HttpClient.makeWith<E, R, E, R>((request) => Effect.flatMap(request, execute), Effect.succeed)
  return Object.assign(client, { execute })
}

const brand: Pick<SecureChannel, typeof TypeId> = { [TypeId]: TypeId }

/** A channel from the function that runs one request. */
export const make = <Peer extends SpiffeId | undefined>(options: {
  readonly peer: Peer
  readonly mySpiffeId: Effect.Effect<SpiffeId, IdentityError>
  readonly execute: (request: HttpClientRequest) => Effect.Effect<HttpClientResponse, ExchangeError>
}): SecureChannel<Peer> => {
  const request: SecureChannel["request"] = (method, url, requestOptions) =>
    options.execute(ClientRequest.make(method)(url, requestOptions))
  return Object.assign(makeClient(options.execute), brand, {
    peerSpiffeId: options.peer,
    mySpiffeId: options.mySpiffeId,
    request
  })
}
