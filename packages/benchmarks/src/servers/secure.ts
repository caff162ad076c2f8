import { type IdentityProvider, PeerMatcher } from "@agentweave/spiffe"
import { NodeSecureServer } from "@agentweave/transport-node"
import { HttpServer } from "@effect/platform"
import { Layer, ManagedRuntime } from "effect"
import { layerCounting, layerFile, recorded } from "../harness/audit.js"
import { clientId, leafId } from "../harness/credentials.js"

/** A `NodeSecureServer` that lives as long as the process. */
export const serveSecurely = async <E>(
  identity: Layer.Layer<IdentityProvider.IdentityProvider>,
  app: Layer.Layer<never, E, Layer.Layer.Success<ReturnType<typeof NodeSecureServer.layer>>>,
  audit: "file" | "memory" = "memory"
): Promise<{ readonly port: number }> => {
  const server = NodeSecureServer.layer({
    port: 0,
    host: "127.0.0.1",
    authorize: PeerMatcher.oneOf([clientId, leafId])
  })
  const runtime = ManagedRuntime.make(
    Layer.provideMerge(app, server).pipe(
      Layer.provide(audit === "file" ? layerFile() : layerCounting(recorded())),
      Layer.provide(identity)
    )
  )
  const { address } = await runtime.runPromise(HttpServer.HttpServer)
  if (address._tag !== "TcpAddress") throw new Error("expected a TCP address")
  return { port: address.port }
}
