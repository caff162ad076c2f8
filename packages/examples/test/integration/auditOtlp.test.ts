import { mkdtemp, readFile, rm } from "node:fs/promises"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DevAuthority } from "@agentweave/testkit"
import { AuditLog, IdentityProvider } from "@agentweave/transport"
import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { audit } from "../../src/auditOtlp.js"

/** A collector of OTLP logs over HTTP: the bodies it was sent, and its URL. */
const collector = (status: number) =>
  Effect.gen(function* () {
    const bodies: Array<string> = []
    const server = yield* Effect.acquireRelease(
      Effect.sync(() =>
        createServer((request, response) => {
          let body = ""
          request.on("data", (chunk) => {
            body += chunk
          })
          request.on("end", () => {
            bodies.push(body)
            response.writeHead(status, { "content-type": "application/json" }).end("{}")
          })
        })
      ),
      (server) =>
        Effect.async<void>((resume) => {
          server.close(() => resume(Effect.void))
          server.closeAllConnections()
        })
    )
    yield* Effect.async<void>((resume) => {
      server.listen(0, "127.0.0.1", () => resume(Effect.void))
    })
    return { bodies, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/logs` }
  })

const directory = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "audit-otlp-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
)

/** Records one event through the example's layer; the tags that stand in its file then. */
const recordOne = (url: string) =>
  Effect.gen(function* () {
    const path = join(yield* directory, "audit.ndjson")
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const identity = IdentityProvider.layerStatic(yield* authority.context({ path: "/web" }))
    yield* AuditLog.record({
      _tag: "LeaseLeaked",
      time: 1_767_225_600_000,
      targetId: "spiffe://example.org/api",
      heldMillis: 60_000,
      origin: "invoices"
    }).pipe(Effect.provide(audit(path, url)), Effect.provide(identity))
    const lines = (yield* Effect.promise(() => readFile(path, "utf8"))).trimEnd().split("\n")
    return lines.map((line) => JSON.parse(line)).flatMap(({ event }) => (event === undefined ? [] : [event._tag]))
  })

it.scopedLive("an audit event reaches the collector of an organisation, and the signed file", () =>
  Effect.gen(function* () {
    const { bodies, url } = yield* collector(200)
    expect(yield* recordOne(url)).toContain("LeaseLeaked")
    const [record] = bodies.flatMap((body) => JSON.parse(body).resourceLogs[0].scopeLogs[0].logRecords)
    expect(record).toMatchObject({
      timeUnixNano: "1767225600000000000",
      severityText: "WARN",
      body: { stringValue: "LeaseLeaked" }
    })
    expect(record.attributes).toContainEqual({ key: "targetId", value: { stringValue: "spiffe://example.org/api" } })
  })
)

it.scopedLive("an audit event stands in the file where the collector refuses it", () =>
  Effect.gen(function* () {
    const { bodies, url } = yield* collector(400)
    expect(yield* recordOne(url)).toContain("LeaseLeaked")
    expect(bodies).not.toEqual([])
  })
)
