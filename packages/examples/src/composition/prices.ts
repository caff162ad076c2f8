/**
 * The same parts in another order. `Transport` puts the breaker inside the retries: each attempt counts, and an open
 * breaker ends the retries. Here a request counts once, with all its attempts: the breaker stands outside, so that it
 * opens for requests that failed for their caller and not for attempts that a retry made good. Reads and writes have a
 * policy each, and a breaker that is open is answered from what is remembered.
 */
import { CircuitBreaker, ConnectionPool, RetryPolicy } from "@agentweave/transport"
import { NodeConnector } from "@agentweave/transport-node"
import { HttpClient, HttpClientRequest } from "@effect/platform"
import { Context, Duration, Effect, Layer, Option, Ref } from "effect"

export const pricesId = "spiffe://example.org/ns/shop/sa/prices"

/** What the application asks for; how it is asked is nobody's business. */
export class Prices extends Context.Tag("examples/Prices")<
  Prices,
  {
    readonly of: (article: string) => Effect.Effect<Option.Option<unknown>>
    readonly set: (article: string, price: number) => Effect.Effect<void, WriteError>
  }
>() {}

/** Every error there is has its tag; those that were dealt with are gone from the type. */
export type WriteError = Effect.Effect.Error<ReturnType<Clients["writes"]["execute"]>>
type Clients = Effect.Effect.Success<typeof clients>

const clients = Effect.gen(function* () {
  const pool = yield* ConnectionPool.ConnectionPool
  const breaker = yield* CircuitBreaker.make({ target: pricesId, failureThreshold: 3, timeout: "10 seconds" })
  const patient = yield* RetryPolicy.make({ maxRetries: 4, baseDelay: "50 millis", attemptTimeout: "1 second" })
  const once = yield* RetryPolicy.make({ maxRetries: 1, baseDelay: "50 millis" })
  const prices = pool.client(pricesId).pipe(HttpClient.mapRequest(HttpClientRequest.prependUrl("/v1")))
  return {
    reads: prices.pipe(RetryPolicy.withRetry(patient), CircuitBreaker.withBreaker(breaker)),
    writes: prices.pipe(RetryPolicy.withRetry(once), CircuitBreaker.withBreaker(breaker))
  }
})

const make = Effect.gen(function* () {
  const { reads, writes } = yield* clients
  const remembered = yield* Ref.make<ReadonlyMap<string, unknown>>(new Map())
  const recall = (article: string) =>
    Effect.map(Ref.get(remembered), (prices) => Option.fromNullable(prices.get(article)))

  const ask = (article: string) =>
    Effect.gen(function* () {
      const response = yield* reads.get(`/prices/${encodeURIComponent(article)}`)
      const price = yield* response.json
      yield* Ref.update(remembered, (prices) => new Map(prices).set(article, price))
      return Option.some(price)
    })

  return Prices.of({
    of: (article) =>
      ask(article).pipe(
        Effect.catchTags({
          CircuitOpenError: ({ retryAfter }) =>
            Effect.zipRight(
              Effect.logDebug(`prices are from memory for another ${Duration.format(retryAfter)}`),
              recall(article)
            ),
          // Somebody else answered at the address of the prices: no reason to go on as if nothing was.
          PeerVerificationError: (error) =>
            Effect.zipRight(Effect.logFatal(error.message), Effect.succeed(Option.none()))
        }),
        Effect.catchAll((error) => Effect.zipRight(Effect.logWarning(error.message), recall(article)))
      ),
    set: (article, price) =>
      HttpClientRequest.put(`/prices/${encodeURIComponent(article)}`).pipe(
        HttpClientRequest.bodyUnsafeJson({ price }),
        writes.execute,
        Effect.asVoid
      )
  })
})

/**
 * The prices over verified connections, for whoever brings an identity, an audit log and a directory: in Kubernetes
 * `PeerDirectory.layerTemplate("https://{4}.{2}.svc.cluster.local:8443")`.
 */
export const PricesLive = Layer.effect(Prices, make).pipe(
  Layer.provide(ConnectionPool.layer({ maxConnectionsPerTarget: 4, acquireTimeout: "200 millis" })),
  Layer.provide(NodeConnector.layer)
)
