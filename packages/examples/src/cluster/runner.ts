/**
 * A runner: `runner.ts FOLDER PORTS NUMBER ENDPOINT [--lie]`. What its audit log has of refused connections goes to the process
 * that started it.
 */
import { SecureSocketRunner } from "@agentweave/cluster"
import { AuditLog } from "@agentweave/transport"
import { FileSystem } from "@effect/platform"
import { NodeContext, NodeRuntime } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { Account, idAt, layerPlatform, members, oneOf, type Place, strangerId } from "./ledger.js"

const [folder = ".", list = "", number = "1", endpoint = ""] = process.argv.slice(2)
const ports = list.split(",").map(Number)
const port = ports[Number(number) - 1]
const place: Place = { folder, ports, port }
/** It says of itself that it is the one that belongs at its address. */
const lies = process.argv.includes("--lie")

/** An entry is in a file of this runner before it is acknowledged. One that was not acknowledged may be made again elsewhere. */
const AccountLive = Account.toLayer(
  Effect.map(FileSystem.FileSystem, (fs) => ({
    Enter: ({ payload }) =>
      fs
        .writeFileString(`${folder}/entries-${port}`, `${payload.key}\n`, { flag: "a" })
        .pipe(Effect.orDie, Effect.as(port ?? 0))
  }))
)

const Audit = Layer.succeed(AuditLog.AuditLog, {
  unsafeRecord: (event) => {
    if (event._tag === "ConnectionRefused") process.send?.({ reason: event.reason, address: event.address })
    return undefined
  }
})

const Runner = AccountLive.pipe(
  Layer.provide(SecureSocketRunner.layer({ authorize: oneOf(lies ? [...members, strangerId] : members) })),
  Layer.provide(layerPlatform(place, endpoint, (other) => (lies && other === port ? strangerId : idAt(place, other)))),
  Layer.provide(Audit),
  Layer.provide(NodeContext.layer)
)

NodeRuntime.runMain(Layer.launch(Runner))
