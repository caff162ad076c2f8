/**
 * Verified requests for libraries that speak HTTP by `fetch` or by undici: an undici `Dispatcher`, and a `fetch`, over a channel
 * or a `Transport`.
 *
 * @since 0.1.0
 */
import { Fetch } from "@effect/platform/FetchHttpClient"
import * as HttpClient from "@effect/platform/HttpClient"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { Dispatcher } from "undici"
import { ClientDispatcher } from "./internal/dispatcher/dispatcher.js"

/**
 * A dispatcher whose requests are made by this client: a `SecureChannel`, a client of `Transport` or of `ConnectionPool`, or
 * that of `Transport.layerHttpClient`, which knows the peers at many origins. So each of them is verified, on record, pooled,
 * and under the client's policies, and none goes anywhere else: a plaintext URL, a redirect to another origin and an unknown
 * origin fail, before a connection is opened, with the client's own error. With `fetch` it is the `cause` of its `TypeError`.
 *
 * It can be given to undici, to `setGlobalDispatcher`, as `dispatcher` to Node's `fetch`, and to every library that takes
 * one. Options of undici for connections and TLS, its `headersTimeout` and `bodyTimeout` have no effect, those of the client
 * have. `Upgrade` and `CONNECT` are refused. Requests end with the scope; `close` and `destroy` do nothing.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { SecureChannel } from "@agentweave/transport"
 * import { NodeDispatcher } from "@agentweave/transport-node"
 * import { Effect } from "effect"
 * import { request } from "undici"
 *
 * const program = Effect.gen(function* () {
 *   const channel = yield* SecureChannel.make({ peer: "spiffe://example.org/search", baseUrl: "https://search.internal" })
 *   const dispatcher = yield* NodeDispatcher.make(channel)
 *   return yield* Effect.tryPromise(() => request("https://search.internal/indexes", { dispatcher }))
 * })
 * ```
 */
export const make = <E>(client: HttpClient.HttpClient.With<E>): Effect.Effect<Dispatcher, never, Scope.Scope> =>
  Effect.map(FiberSet.makeRuntime<never, void, unknown>(), (runFork) => new ClientDispatcher(client, runFork))

/**
 * Node's `fetch` over {@link make}, for libraries that take a `fetch`. A `dispatcher` among its options has no effect.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { SecureChannel } from "@agentweave/transport"
 * import { NodeDispatcher } from "@agentweave/transport-node"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const channel = yield* SecureChannel.make({ peer: "spiffe://example.org/models", baseUrl: "https://models.internal" })
 *   const fetch = yield* NodeDispatcher.makeFetch(channel)
 *   return { baseURL: "https://models.internal/v1", fetch } // for the client of an SDK
 * })
 * ```
 */
export const makeFetch = <E>(
  client: HttpClient.HttpClient.With<E>
): Effect.Effect<typeof globalThis.fetch, never, Scope.Scope> =>
  Effect.map(make(client), (dispatcher) => (input, init) => {
    // Node's types know of `dispatcher` by another version of undici.
    const options: RequestInit = Object.assign({}, init, { dispatcher })
    return globalThis.fetch(input, options)
  })

/**
 * The `fetch` that `FetchHttpClient` and libraries of Effect use, over the program's `HttpClient`: that of
 * `SecureChannel.layerHttpClient` or `Transport.layerHttpClient`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { SecureChannel } from "@agentweave/transport"
 * import { NodeDispatcher } from "@agentweave/transport-node"
 * import { Layer } from "effect"
 *
 * const FetchLive = NodeDispatcher.layerFetch.pipe(
 *   Layer.provide(SecureChannel.layerHttpClient({ peer: "spiffe://example.org/models", baseUrl: "https://models.internal" }))
 * )
 * ```
 */
export const layerFetch: Layer.Layer<Fetch, never, HttpClient.HttpClient> = Layer.scoped(
  Fetch,
  Effect.flatMap(HttpClient.HttpClient, makeFetch)
)
