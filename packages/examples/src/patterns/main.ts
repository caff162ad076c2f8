/** The five patterns at work: a service of its own, in the same process, with identities of a development authority. */
import { IdentityProvider, PeerMatcher } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { AuditLog, PeerDirectory } from "@agentweave/transport"
import { NodeConnector, NodeSecureServer } from "@agentweave/transport-node"
import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Context, Effect, Layer } from "effect"
import { circuitBreaker, ServiceLive } from "./circuitBreaker.js"
import { combined } from "./combined.js"
import { connectionPool } from "./connectionPool.js"
import { retryPolicy } from "./retryPolicy.js"
import { secureChannel } from "./secureChannel.js"

/** Starts the service; where it listens. Every third response is a 503. */
const serve = Effect.fnUntraced(function* (authority: DevAuthority.DevAuthority) {
  let requests = 0
  const answer = Effect.suspend(() =>
    ++requests % 3 === 0 ? HttpServerResponse.empty({ status: 503 }) : HttpServerResponse.json({ requests })
  )
  const services = yield* HttpServer.serve(HttpRouter.empty.pipe(HttpRouter.get("/api", answer))).pipe(
    Layer.provideMerge(
      NodeSecureServer.layer({ port: 0, host: "127.0.0.1", authorize: PeerMatcher.exactly(authority.id("/web")) })
    ),
    Layer.provide(IdentityProvider.layerStatic(yield* authority.context({ path: "/service" }))),
    Layer.build
  )
  const { address } = Context.get(services, HttpServer.HttpServer)
  return `https://127.0.0.1:${address._tag === "TcpAddress" ? address.port : 0}`
})

const program = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const baseUrl = yield* serve(authority)
  const peer = authority.id("/service")
  const say = (name: string) => (result: unknown) => Console.log(`${name}: ${JSON.stringify(result)}`)

  const Platform = NodeConnector.layer.pipe(
    Layer.merge(PeerDirectory.layerStatic({ [peer]: baseUrl })),
    Layer.provideMerge(IdentityProvider.layerStatic(yield* authority.context({ path: "/web" })))
  )
  const call = Effect.flatMap(secureChannel(peer, baseUrl), (response) => response.json).pipe(Effect.scoped)
  yield* Effect.gen(function* () {
    yield* Effect.flatMap(call, say("channel"))
    yield* Effect.flatMap(connectionPool(peer), say("pool"))
    yield* Effect.flatMap(combined(peer), say("pool, breaker and retries"))
    yield* Effect.flatMap(retryPolicy(call), say("retries"))
    for (let n = 0; n < 5; n++) yield* Effect.ignore(circuitBreaker(Effect.fail("down"), "from memory"))
    yield* Effect.flatMap(circuitBreaker(call, "from memory"), say("open breaker"))
  }).pipe(Effect.provide(ServiceLive), Effect.provide(Platform))
})

NodeRuntime.runMain(Effect.scoped(program).pipe(Effect.provide(AuditLog.layerMemory([]))))
