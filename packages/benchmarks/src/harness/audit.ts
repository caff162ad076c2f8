import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type AuditEvent, AuditLog } from "@agentweave/transport"
import { NodeAuditLog } from "@agentweave/transport-node"
import { Layer } from "effect"

/** What an audit sink saw. */
export interface Recorded {
  readonly counts: Map<AuditEvent.AuditEvent["_tag"], number>
  /** Refusals are part of the plan. */
  lenient: boolean
  established: Extract<AuditEvent.AuditEvent, { readonly _tag: "ConnectionEstablished" }> | undefined
}

export const recorded = (): Recorded => ({ counts: new Map(), lenient: false, established: undefined })

/**
 * A sink that counts: what it costs is what making the events costs. A refused connection ends the process, because a
 * benchmark of refusals is a mistake.
 */
export const layerCounting = (into: Recorded): Layer.Layer<AuditLog.AuditLog> =>
  Layer.succeed(AuditLog.AuditLog, {
    unsafeRecord: (event) => {
      into.counts.set(event._tag, (into.counts.get(event._tag) ?? 0) + 1)
      if (event._tag === "ConnectionEstablished") into.established = event
      if (event._tag === "ConnectionRefused" && !into.lenient) {
        console.error(`refused: ${event.reason}: ${event.description}`)
        process.exit(1)
      }
      return undefined
    }
  })

/** A real audit file, chained and signed, in a folder that goes with the process. */
export const layerFile = () => {
  const folder = mkdtempSync(join(tmpdir(), "agentweave-bench-"))
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }))
  return NodeAuditLog.layerFile({ path: join(folder, "audit.ndjson") })
}
