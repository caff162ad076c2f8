/** The client: it talks to `api` and to nobody else. */
import { AuditLog, SecureChannel } from "@agentweave/transport"
import { NodeConnector } from "@agentweave/transport-node"
import { WorkloadApi } from "@agentweave/workload-api"
import { NodeRuntime } from "@effect/platform-node"
import { Effect, Layer } from "effect"

const baseUrl = process.env["API_URL"] ?? "https://127.0.0.1:8443"
const peer = process.env["API_ID"] ?? "spiffe://example.org/api"

const call = Effect.gen(function* () {
  const channel = yield* SecureChannel.make({ peer, baseUrl })
  const response = yield* channel.get("/hello")
  console.log(response.status, yield* response.text)
})

const Platform = NodeConnector.layer.pipe(Layer.provideMerge(Layer.merge(WorkloadApi.layer(), AuditLog.layerLogger)))

NodeRuntime.runMain(Effect.scoped(call).pipe(Effect.provide(Platform)))
