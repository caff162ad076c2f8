/** A client whose process shows itself on the inspector, and a reader of its stream in another process. */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { Activity, Inspector } from "@agentweave/inspector"
import { IdentityProvider, type X509Context } from "@agentweave/spiffe"
import { PeerDirectory, Transport } from "@agentweave/transport"
import { NodeConnector } from "@agentweave/transport-node"
import { Context, Effect, Layer, Logger, LogLevel, Option } from "effect"
import { layerFile } from "../harness/audit.js"
import { contextOf, serverId } from "../harness/credentials.js"
import type { Open } from "./effects.js"
import { connections, originOf } from "./promises.js"

/** Reads the stream at an address for as long as it lives, and says so when the first snapshot has come. */
const readerScript = `
  require("node:http").get(process.argv[1], (response) => {
    response.once("data", () => process.stdout.write("reading"))
    response.resume()
  })
`

const reader = (url: string) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const child = spawn(process.execPath, ["-e", readerScript, url], { stdio: ["ignore", "pipe", "inherit"] })
      await once(child.stdout, "data")
      return child
    }),
    (child) => Effect.sync(() => child.kill())
  )

const inspector = (identity: X509Context.X509Context) =>
  Inspector.layer({ port: 0 }).pipe(
    Layer.provide(Logger.minimumLogLevel(LogLevel.Warning)),
    Layer.provideMerge(
      Transport.layer({ pool: { maxConnectionsPerTarget: connections, acquireTimeout: "30 seconds" } })
    ),
    Layer.provide(NodeConnector.layer),
    Layer.provideMerge(Activity.layerAuditLog(layerFile())),
    Layer.provideMerge(IdentityProvider.layerStatic(identity))
  )

/** As the client `transport`, with an inspector that nobody looks at, or that one reader does. */
export const inspected =
  (isWatched: boolean): Open =>
  (environment, server) =>
    Effect.gen(function* () {
      const { credentials } = environment
      const directory = PeerDirectory.layerStatic({ [serverId]: originOf(environment, server) })
      const layer = Layer.provide(inspector(contextOf(credentials, credentials.client)), directory)
      const context = yield* Layer.build(layer)
      const { url } = Context.get(context, Inspector.Inspector)
      if (isWatched) yield* reader(`${Option.getOrThrow(url)}api/events`)
      const client = yield* Context.get(context, Transport.Transport).client(serverId)
      return { base: "", execute: client.execute }
    })
