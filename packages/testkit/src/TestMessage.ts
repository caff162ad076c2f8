/**
 * Requests as the handler of a {@link TestConnector} sees them, and what it answers.
 *
 * @since 0.1.0
 */
import type { PeerVerifier, SpiffeId } from "@agentweave/spiffe"
import { PeerIdentity, type SecureSocket, type TransportError } from "@agentweave/transport"
import * as HttpApp from "@effect/platform/HttpApp"
import type * as HttpClientError from "@effect/platform/HttpClientError"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

/**
 * One request that reached the peer.
 *
 * @since 0.1.0
 * @category models
 */
export interface TestRequest {
  readonly request: HttpClientRequest
  /** The request target: path and query, with the base URL's path in front. */
  readonly path: string
  /** The peer that was called. */
  readonly peer: SpiffeId.SpiffeId
  /** The caller, as the peer has verified it. */
  readonly caller: PeerVerifier.VerifiedPeer
  /** `host:port`. */
  readonly address: string
  readonly connectionId: string
  /** The request's body. It is only run when it is read, and once. */
  readonly body: Stream.Stream<Uint8Array, HttpClientError.RequestError>
  /** The whole body as text. */
  readonly text: Effect.Effect<string, HttpClientError.RequestError>
}

/**
 * Answers requests. Its failure is what the request fails with, and the connection is gone; a connection that breaks is
 * a `ConnectionError`. It runs on the clock of the test; while it does not answer, the request's `timeout` runs.
 *
 * @since 0.1.0
 * @category models
 */
export type Handler<R = never> = (
  request: TestRequest
) => Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  TransportError.TransportError | HttpClientError.HttpClientError,
  R
>

/**
 * The other end of a stream: its `peer` is the client, as it was verified. When it has ended, it has sent its last byte; when
 * it fails, the connection is lost.
 *
 * @since 0.1.0
 * @category models
 */
export type StreamHandler<R = never> = (socket: SecureSocket.SecureSocket) => Effect.Effect<unknown, unknown, R>

const toWeb = (request: TestRequest) =>
  Effect.map(Stream.toReadableStreamEffect(request.body), (body) => {
    const { headers, method } = request.request
    const hasBody = method !== "GET" && method !== "HEAD" && request.request.body._tag !== "Empty"
    // `duplex` is what fetch asks for with a streamed body; lib.dom does not know it yet.
    const init = { method, headers, body: hasBody ? body : null, duplex: "half" as const }
    return new Request(`https://${request.address}${request.path}`, init)
  })

/**
 * A handler out of a whole HTTP application, an `HttpRouter` or `HttpApi` for example: client and server of a test
 * together, in memory. Its handlers find their caller in `PeerIdentity`, as they would on a secure server.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { TestConnector, TestMessage } from "@agentweave/testkit"
 * import { HttpRouter, HttpServerResponse } from "@effect/platform"
 *
 * const app = HttpRouter.empty.pipe(
 *   HttpRouter.get("/invoices", HttpServerResponse.text("none")),
 *   HttpRouter.catchAll(() => HttpServerResponse.empty({ status: 404 }))
 * )
 * const network = TestConnector.make({ handler: TestMessage.fromApp(app) })
 * ```
 */
export const fromApp =
  <E, R>(
    app: HttpApp.Default<E, R>
  ): Handler<
    Exclude<Exclude<Exclude<R, PeerIdentity.PeerIdentity>, Scope.Scope>, HttpServerRequest.HttpServerRequest>
  > =>
  (request) =>
    Effect.gen(function* () {
      const answer = yield* Deferred.make<HttpServerResponse.HttpServerResponse>()
      const identified = Effect.provideService(app, PeerIdentity.PeerIdentity, {
        of: () => Option.some(request.caller),
        ofSocket: () => Option.none()
      })
      const web = HttpServerRequest.fromWeb(yield* toWeb(request))
      // The application's failure is in its response already.
      yield* HttpApp.toHandled(identified, (_, response) => Deferred.succeed(answer, response)).pipe(
        Effect.provideService(HttpServerRequest.HttpServerRequest, web),
        Effect.catchAllCause(() => Deferred.succeed(answer, HttpServerResponse.empty({ status: 500 })))
      )
      return yield* Deferred.await(answer)
    })
