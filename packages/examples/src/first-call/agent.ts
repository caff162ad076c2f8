/** A Workload API for development, with one socket for each workload: SPIRE's agent takes its place in production. */
import { resolve } from "node:path"
import { IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { WorkloadApiServer } from "@agentweave/workload-api"
import { NodeRuntime } from "@effect/platform-node"
import { Context, Effect, Layer } from "effect"

const agent = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  for (const name of ["api", "web"]) {
    const identity = IdentityProvider.layerStatic(yield* authority.context({ path: `/${name}` }))
    const source = Context.get(yield* Layer.build(identity), IdentityProvider.IdentityProvider)
    const { endpoint } = yield* WorkloadApiServer.make({ socketPath: resolve(`${name}.sock`), source })
    console.log(`${authority.id(`/${name}`)} is served at ${endpoint}`)
  }
  yield* Effect.never
})

NodeRuntime.runMain(Effect.scoped(agent))
