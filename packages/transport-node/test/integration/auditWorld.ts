/** A place for an audit log, the workload that writes it, and its files. */
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { AuditEvent, AuditLog, type InvalidConfigError } from "@agentweave/transport"
import { type AuditAnchor, NodeAuditLog } from "@agentweave/transport-node"
import { Context, Effect, Exit, Layer, Schema, Scope, TestClock } from "effect"
import type { TextFile } from "../auditReports.js"
import { folder } from "./auditEvents.js"
import { realTime } from "./fixture.js"

/** Options that a log is opened with. */
export interface OpenOptions extends Partial<NodeAuditLog.Options> {
  readonly identity?: Layer.Layer<IdentityProvider.IdentityProvider> | undefined
  readonly anchor?: Layer.Layer<AuditAnchor.AuditAnchor, InvalidConfigError.InvalidConfigError> | undefined
}

export const world = Effect.gen(function* () {
  // Files are as old as the disk says.
  yield* realTime
  const dir = yield* folder
  const path = join(dir, "audit.ndjson")
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const web = IdentityProvider.layerStatic(yield* authority.context({ path: "/web", ttl: "10 days" }))
  const open = ({ anchor, identity = web, ...options }: OpenOptions = {}) =>
    Effect.gen(function* () {
      const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
      const file = Layer.provide(NodeAuditLog.layerFile({ path, ...options }), identity)
      const built = yield* Layer.build(anchor === undefined ? file : Layer.provide(file, anchor)).pipe(
        Scope.extend(scope),
        Effect.onError(() => Scope.close(scope, Exit.void))
      )
      return { log: Context.get(built, AuditLog.AuditLog), close: Scope.close(scope, Exit.void) }
    })
  const session = Effect.flatMap(open(), ({ close }) => close)
  return { authority, dir, path, open, session }
})

/** Lets flush windows pass until it is so: writes are the system's, and not on the test's clock. */
export const until = (isSo: () => boolean) =>
  Effect.repeat(
    Effect.zipRight(
      TestClock.adjust("100 millis"),
      Effect.promise(() => new Promise<void>(setImmediate))
    ),
    { until: isSo }
  )

/** Not in two steps: the log renames files at the same time. */
export const read = (path: string): string => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return ""
  }
}

/** The full files of the log `audit.ndjson`, oldest first, and the live one. */
export const logFiles = (dir: string): ReadonlyArray<TextFile> =>
  readdirSync(dir)
    .filter((name) => /^audit\.ndjson(\.\d+)?$/.test(name))
    .toSorted((a, b) => (Number(a.split(".")[2]) || Number.MAX_VALUE) - (Number(b.split(".")[2]) || Number.MAX_VALUE))
    .map((name) => ({ name, text: read(join(dir, name)) }))

const decode = Schema.decodeUnknownSync(AuditEvent.AuditEvent)

/** The events of a text, read through their schema. */
export const eventsOf = (text: string): ReadonlyArray<AuditEvent.AuditEvent> =>
  text
    .split("\n")
    .filter((line) => line !== "")
    .flatMap((line) => {
      const { event } = JSON.parse(line)
      return event === undefined ? [] : [decode(event)]
    })
