/** The client's process: a call, a plaintext URL, a stranger at the address; then pool, breaker and retry at work. */
import { SpiffeId } from "@agentweave/spiffe"
import { CircuitBreakerRegistry, ConnectionPool, PeerDirectory, SecureChannel, Transport } from "@agentweave/transport"
import { NodeConnector } from "@agentweave/transport-node"
import { WorkloadApi } from "@agentweave/workload-api"
import { NodeRuntime } from "@effect/platform-node"
import { Clock, Effect, Either, Layer } from "effect"
import { apiId, isInspected, layerAudit, layerInspector, say, send, trustDomain, verdict } from "./story.js"

const baseUrl = process.env["QUICKSTART_URL"] ?? ""

/** The typed outcome of a call, in a word or two. */
const outcome = <A>(result: Either.Either<A, { readonly _tag: string; readonly reason?: string }>): string =>
  Either.match(result, {
    onLeft: (error) => (error.reason === undefined ? error._tag : `${error._tag} ${error.reason}`),
    onRight: () => "accepted"
  })

const calls = Effect.gen(function* () {
  const channel = yield* SecureChannel.make({ peer: apiId, baseUrl })
  const hello = yield* Effect.either(Effect.flatMap(channel.get("/hello"), (response) => response.text))
  yield* say("client", `GET /hello: ${Either.getOrElse(hello, (error) => error.message)}`)
  yield* verdict("web calls api", "accepted", outcome(hello))

  const plaintext = yield* Effect.either(channel.get(baseUrl.replace("https:", "http:")))
  yield* say("client", `a plaintext URL: ${Either.isLeft(plaintext) ? plaintext.left.message : "was called!"}`)
  yield* verdict("web calls a plaintext URL", "RequestError InvalidUrl", outcome(plaintext))

  const payments = yield* SecureChannel.make({ peer: SpiffeId.make(`spiffe://${trustDomain}/payments`), baseUrl })
  const stranger = yield* Effect.either(payments.get("/hello"))
  yield* say(
    "client",
    `another workload at the address: ${Either.isLeft(stranger) ? stranger.left.message : "was called!"}`
  )
  yield* verdict("web calls payments, api answers", "PeerVerificationError UnexpectedPeer", outcome(stranger))
})

/** `503` three times, then fine: retries ride it out, and a breaker that opens at three failures fails fast meanwhile. */
const resilience = Effect.gen(function* () {
  const transport = yield* Transport.Transport
  const pool = yield* ConnectionPool.ConnectionPool
  const breakers = yield* CircuitBreakerRegistry.CircuitBreakerRegistry
  const api = yield* transport.client(apiId)
  const since = yield* stopwatch

  const attempt = (name: string) =>
    Effect.gen(function* () {
      const before = (yield* breakers.metrics).get(apiId)?.totalCalls ?? 0
      const answer = yield* Effect.either(api.get("/shaky"))
      const calls = ((yield* breakers.metrics).get(apiId)?.totalCalls ?? 0) - before
      const state = (yield* breakers.metrics).get(apiId)?.state ?? "Closed"
      const result = Either.match(answer, {
        onLeft: (error) => error._tag,
        onRight: (response) => String(response.status)
      })
      yield* say(
        "client",
        `${yield* since} ${name.padEnd(22)} ${result}, ${calls} calls reached the breaker, now ${state}`
      )
      return result
    })

  yield* say("client", "the server is told to fail twice; retries after about 50 and 100 ms")
  yield* api.post("/fail/2")
  yield* verdict("two failures are retried", "200", yield* attempt("retried"))

  yield* say("client", "the server is told to fail ten times; the breaker opens at the third failure in a row")
  yield* api.post("/fail/10")
  yield* attempt("until the breaker opens")
  yield* verdict("an open breaker fails fast", "CircuitOpenError", yield* attempt("fails fast"))
  yield* say("client", "the server is repaired; half a second later the breaker lets a probe through")
  yield* pool.withChannel(apiId, (channel) => channel.post("/fail/0"))
  yield* Effect.sleep("600 millis")
  yield* verdict("the breaker recovers", "200", yield* attempt("recovered"))

  const together = yield* Effect.forEach(Array.from({ length: 20 }), () => api.get("/shaky"), { concurrency: 20 })
  const stats = yield* pool.stats
  yield* say(
    "client",
    `${together.length} requests at once: ${stats.totalCreations} connections made in all, ${stats.totalAcquisitions} leases, ${stats.idle} idle now`
  )
  yield* verdict("the pool keeps its limit", "at most 4", stats.totalConnections <= 4 ? "at most 4" : "more")
})

/** Milliseconds since it was made, for the lines of the story. */
const stopwatch = Effect.map(Clock.currentTimeMillis, (start) =>
  Effect.map(Clock.currentTimeMillis, (now) => `${String(now - start).padStart(5)} ms`)
)

const Resilient = Transport.layer({
  pool: { maxConnectionsPerTarget: 4, acquireTimeout: "2 seconds" },
  breaker: { failureThreshold: 3, successThreshold: 1, timeout: "500 millis" },
  retry: { maxRetries: 3, baseDelay: "50 millis", jitter: false }
}).pipe(Layer.provide(PeerDirectory.layerStatic({ [apiId]: baseUrl })))

/** Calls without end, so that there is something to look at; now and then the server is told to fail. */
const traffic = Effect.gen(function* () {
  const transport = yield* Transport.Transport
  const api = yield* transport.client(apiId)
  yield* send({ _tag: "GoesOn" })
  const round = Effect.zipRight(
    Effect.ignore(api.post("/fail/3")),
    Effect.repeatN(Effect.delay(Effect.ignore(api.get("/shaky")), "100 millis"), 200)
  )
  return yield* Effect.forever(round)
})

const resilient = (isInspected ? Effect.zipRight(resilience, traffic) : resilience).pipe(
  Effect.provide(Layer.provideMerge(layerInspector("client"), Resilient))
)

NodeRuntime.runMain(
  Effect.zipRight(calls, resilient).pipe(
    Effect.scoped,
    Effect.provide(
      NodeConnector.layer.pipe(Layer.provideMerge(layerAudit("client")), Layer.provideMerge(WorkloadApi.layer()))
    )
  )
)
