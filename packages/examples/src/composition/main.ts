/** The prices at work: a service in the same process, which is asked, told a price, and then stopped. */
import { IdentityProvider, PeerMatcher } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { AuditLog, PeerDirectory } from "@agentweave/transport"
import { NodeSecureServer } from "@agentweave/transport-node"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Context, Effect, Exit, Layer, Option, Schema, Scope } from "effect"
import { Prices, PricesLive, pricesId } from "./prices.js"

const prices = new Map<string, number>([["apple", 3]])

const article = Effect.map(HttpRouter.params, ({ article = "" }) => article)

const routes = HttpRouter.empty.pipe(
  HttpRouter.get(
    "/v1/prices/:article",
    Effect.flatMap(article, (article) => HttpServerResponse.json(prices.get(article) ?? null))
  ),
  HttpRouter.put(
    "/v1/prices/:article",
    Effect.gen(function* () {
      const { price } = yield* HttpServerRequest.schemaBodyJson(Schema.Struct({ price: Schema.Number }))
      prices.set(yield* article, price)
      return HttpServerResponse.empty()
    })
  )
)

/** Starts the service in a scope; where it listens. */
const serve = Effect.fnUntraced(function* (authority: DevAuthority.DevAuthority, scope: Scope.Scope) {
  const authorize = PeerMatcher.exactly(authority.id("/web"))
  const Server = HttpServer.serve(routes).pipe(
    Layer.provideMerge(NodeSecureServer.layer({ port: 0, host: "127.0.0.1", authorize })),
    Layer.provide(IdentityProvider.layerStatic(yield* authority.context({ path: "/ns/shop/sa/prices" })))
  )
  const { address } = Context.get(yield* Layer.buildWithScope(Server, scope), HttpServer.HttpServer)
  return `https://127.0.0.1:${address._tag === "TcpAddress" ? address.port : 0}`
})

const program = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const scope = yield* Scope.make()
  const Client = PricesLive.pipe(
    Layer.provide(PeerDirectory.layerStatic({ [pricesId]: yield* serve(authority, scope) })),
    Layer.provide(IdentityProvider.layerStatic(yield* authority.context({ path: "/web" })))
  )
  yield* Effect.gen(function* () {
    const { of, set } = yield* Prices
    const show = (when: string, article: string) =>
      Effect.flatMap(of(article), (price) =>
        Console.log(`${when}: ${article} ${Option.match(price, { onNone: () => "unknown", onSome: JSON.stringify })}`)
      )
    yield* show("asked", "apple")
    yield* set("pear", 4)
    yield* show("told", "pear")
    yield* Scope.close(scope, Exit.void)
    // Each fails with all its attempts; at the third the breaker opens.
    for (let n = 1; n <= 3; n++) yield* show(`service stopped, ${n}`, "apple")
    yield* show("breaker open", "apple")
  }).pipe(Effect.provide(Client))
})

NodeRuntime.runMain(Effect.scoped(program).pipe(Effect.provide(AuditLog.layerMemory([]))))
