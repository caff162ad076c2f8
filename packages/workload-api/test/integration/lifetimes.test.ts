import { tmpdir } from "node:os"
import { join } from "node:path"
import { IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority, FakeWorkloadApi } from "@agentweave/testkit"
import { WorkloadApi, WorkloadApiClient, WorkloadApiServer, WorkloadEndpoint } from "@agentweave/workload-api"
import { describe } from "@effect/vitest"
import { Config, Effect, Layer, Stream } from "effect"
import { providerEnd } from "../../../spiffe/test/support/providerEnd.js"
import { eachEnds, row } from "../../../spiffe/test/support/uninterruptible.js"

let sockets = 0
const socketPath = (): string => join(tmpdir(), `lifetimes-${process.pid}-${sockets++}.sock`)

/** An agent that has an identity for everybody, and where it listens. */
const agent = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const agent = yield* FakeWorkloadApi.make()
  yield* agent.push(yield* authority.context({ path: "/api" }))
  return agent.endpoint
})

const identity = Effect.map(DevAuthority.make({ trustDomain: "example.org" }), (authority) =>
  DevAuthority.layerIdentity(authority, { path: "/api" })
)

const read = Effect.flatMap(IdentityProvider.IdentityProvider, ({ x509Context }) => x509Context)

/** A call that is answered, and open until the server ends. */
const call = (path: string) =>
  Effect.flatMap(WorkloadEndpoint.parse(`unix://${path}`), (endpoint) => {
    const { x509Svids } = WorkloadApiClient.make(endpoint)
    return Effect.zipRight(Effect.forkDaemon(Effect.exit(Stream.runDrain(x509Svids))), Stream.runHead(x509Svids))
  })

const client = Effect.map(agent, (endpoint) =>
  Layer.unwrapEffect(Effect.map(WorkloadEndpoint.parse(endpoint), (_) => WorkloadApiClient.layer(_)))
)

const paths = { server: socketPath(), identity: socketPath() }

describe("every layer of the Workload API", () => {
  eachEnds(new URL("../../src/", import.meta.url), [
    row(
      "WorkloadApi.layer",
      Effect.map(agent, (endpoint) => WorkloadApi.layer({ endpoint })),
      read
    ),
    row(
      "WorkloadApi.layerConfig",
      Effect.map(agent, (endpoint) => WorkloadApi.layerConfig({ endpoint: Config.succeed(endpoint) })),
      read
    ),
    row(
      "WorkloadApi.layerClient",
      Effect.map(client, (services) => Layer.provide(WorkloadApi.layerClient(), services)),
      read
    ),
    row(
      "WorkloadApi.layer of an agent that does not answer",
      Effect.map(FakeWorkloadApi.make(), ({ endpoint }) => WorkloadApi.layer({ endpoint }))
    ),
    row(
      "WorkloadApi.layer below a layer that waits for the first identity",
      Effect.map(agent, (endpoint) => Layer.provide(Layer.effectDiscard(read), WorkloadApi.layer({ endpoint })))
    ),
    row("WorkloadApiClient.layer", client),
    row(
      "WorkloadApiServer.layer",
      Effect.map(identity, (layer) =>
        Layer.unwrapEffect(
          Effect.map(IdentityProvider.IdentityProvider, (source) =>
            WorkloadApiServer.layer({ socketPath: paths.server, source })
          )
        ).pipe(Layer.provide(layer))
      ),
      call(paths.server)
    ),
    row(
      "WorkloadApiServer.layerIdentityProvider",
      Effect.map(identity, (layer) =>
        Layer.provide(WorkloadApiServer.layerIdentityProvider({ socketPath: paths.identity }), layer)
      ),
      call(paths.identity)
    )
  ])
})

describe("a source of identity whose scope has ended", () => {
  providerEnd(
    "WorkloadApi.layer",
    Effect.map(agent, (endpoint) => WorkloadApi.layer({ endpoint }))
  )
  providerEnd(
    "WorkloadApi.layerClient",
    Effect.map(client, (services) => Layer.provide(WorkloadApi.layerClient(), services))
  )
})
