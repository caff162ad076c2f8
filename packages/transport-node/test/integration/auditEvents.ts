import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { AuditEvent } from "@agentweave/transport"
import { Effect } from "effect"

/** An event that is refused where it cannot be recorded. */
export const refused = (n: number): AuditEvent.AuditEvent => ({
  _tag: "PoolExhausted",
  time: n,
  targetId: "spiffe://example.org/api",
  limit: "Total",
  maxConnections: n
})

const common = (n: number) => ({
  side: "Client" as const,
  connectionId: "c1",
  address: "127.0.0.1:1",
  requestId: `r${n}`,
  peerId: "spiffe://example.org/api",
  method: "GET",
  path: "/",
  attempt: 1
})

export const started = (n: number): AuditEvent.AuditEvent => ({ _tag: "RequestStarted", time: 1, ...common(n) })

export const ended = (n: number): AuditEvent.AuditEvent => ({
  _tag: "RequestEnded",
  time: 2,
  ...common(n),
  status: 200,
  durationMillis: 1
})

/** An event that is dropped and counted where it cannot be recorded. */
export const requested: AuditEvent.AuditEvent = started(1)

/** A folder that is gone when the test has ended. */
export const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "audit-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)
