/** The client's process: a call, a plaintext URL, a stranger at the address; then pool, breaker and retry at work. */
import { SpiffeId } from "@agentweave/spiffe"
import { SecureChannel } from "@agentweave/transport"
import { NodeConnector } from "@agentweave/transport-node"
import { WorkloadApi } from "@agentweave/workload-api"
import { NodeRuntime } from "@effect/platform-node"
import { Effect, Either, Layer } from "effect"
import { apiId, layerAudit, say, trustDomain, verdict } from "./story.js"

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

NodeRuntime.runMain(
  calls.pipe(
    Effect.scoped,
    Effect.provide(NodeConnector.layer.pipe(Layer.provideMerge(Layer.merge(WorkloadApi.layer(), layerAudit("client")))))
  )
)
