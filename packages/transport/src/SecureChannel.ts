/**
 * A verified HTTP channel to one named peer.
 *
 * @since 0.1.0
 */
import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import type { SpiffeId } from "@agentweave/spiffe/SpiffeId"
import type { HttpClient } from "@effect/platform/HttpClient"
import type * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import type { HttpMethod } from "@effect/platform/HttpMethod"
import type * as Effect from "effect/Effect"
import type { RequestFailure } from "./Connector.js"
import * as internal from "./internal/channel.js"

/**
 * @since 0.1.0
 * @category type ids
 */
export const TypeId: typeof internal.TypeId = internal.TypeId

/**
 * @since 0.1.0
 * @category type ids
 */
export type TypeId = typeof TypeId

/**
 * An `HttpClient` whose every connection is mutual TLS to exactly `peerSpiffeId`. Its life is a `Scope`.
 *
 * @since 0.1.0
 * @category models
 */
export interface SecureChannel extends HttpClient.With<RequestFailure> {
  readonly [TypeId]: TypeId
  readonly peerSpiffeId: SpiffeId
  /** Our own SPIFFE ID; it can rotate, so it is read when asked for. */
  readonly mySpiffeId: Effect.Effect<SpiffeId, IdentityError>
  readonly request: (
    method: HttpMethod,
    url: string | URL,
    options?: HttpClientRequest.Options.NoUrl
  ) => Effect.Effect<HttpClientResponse, RequestFailure>
}
