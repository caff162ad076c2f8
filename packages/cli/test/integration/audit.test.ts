import { appendFile, rename, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { type AuditEvent, AuditLog } from "@agentweave/transport"
import { NodeAuditLog } from "@agentweave/transport-node"
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Layer, Queue, TestClock } from "effect"
import { directory, run, start } from "../commandLine.js"

const opened = (to: string): AuditEvent.AuditEvent => ({
  _tag: "CircuitStateChanged",
  time: 1_767_225_600_000,
  target: "spiffe://example.org/api",
  from: "Closed",
  to
})

const written = (path: string, events: ReadonlyArray<AuditEvent.AuditEvent>) =>
  Effect.gen(function* () {
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const identity = IdentityProvider.layerStatic(yield* authority.context({ path: "/web" }))
    yield* Effect.gen(function* () {
      const log = Context.get(
        yield* Layer.build(Layer.provide(NodeAuditLog.layerFile({ path }), identity)),
        AuditLog.AuditLog
      )
      for (const event of events) log.unsafeRecord(event)
    }).pipe(Effect.scoped)
  })

describe("agentweave audit tail", () => {
  it.scopedLive("prints the last events of an audit file, a line each, or the records as JSON", () =>
    Effect.gen(function* () {
      const path = join(yield* directory, "audit.ndjson")
      yield* written(path, ["Open", "HalfOpen", "Closed\u001b[2J"].map(opened))
      const all = yield* run(["audit", "tail", path])
      expect(all.exitCode).toBe(0)
      expect(all.out.split("\n")).toStrictEqual([
        "-- file begins: New",
        ...["Open", "HalfOpen", "Closed\\u{1b}[2J"].map(
          (to) => `2026-01-01T00:00:00.000Z CircuitStateChanged target=spiffe://example.org/api from=Closed to=${to}`
        ),
        "-- file ends: Closed"
      ])
      const json = yield* run(["audit", "tail", path, "--lines", "3", "--json"])
      expect(json.out.split("\n").map((line) => Object.keys(JSON.parse(line)).at(-1))).toStrictEqual([
        "event",
        "end",
        "checkpoint"
      ])
    })
  )

  it.scoped("follows the log into the file that comes after a full one, and loses no line", () =>
    Effect.gen(function* () {
      const path = join(yield* directory, "audit.ndjson")
      const line = (to: string) => `${JSON.stringify({ seq: 0, event: opened(to) })}\n`
      yield* Effect.promise(() => writeFile(path, line("one") + line("two")))
      const lines = yield* start(["audit", "tail", path, "--follow", "--lines", "1"])
      expect(yield* Queue.take(lines)).toContain("to=two")

      const next = Effect.zipRight(TestClock.adjust("250 millis"), Effect.yieldNow())
      const taken = (pattern: string) =>
        Effect.gen(function* () {
          const fiber = yield* Effect.fork(Queue.take(lines))
          while ((yield* fiber.poll)._tag === "None") yield* next
          expect(yield* fiber).toContain(pattern)
        })
      // Half of a line is none.
      yield* Effect.promise(() => appendFile(path, line("three") + line("four").slice(0, 20)))
      yield* taken("to=three")
      yield* Effect.promise(async () => {
        await appendFile(path, line("four").slice(20))
        await rename(path, `${path}.3`)
        await appendFile(`${path}.3`, line("five"))
        await writeFile(path, line("six"))
      })
      yield* taken("to=four")
      yield* taken("to=five")
      yield* taken("to=six")
    })
  )
})

describe("agentweave audit verify", () => {
  it.scopedLive("gives the verdict and the exit code of the audit file", () =>
    Effect.gen(function* () {
      const path = join(yield* directory, "audit.ndjson")
      yield* written(path, ["Open", "HalfOpen"].map(opened))
      const unknown = yield* run(["audit", "verify", path, "--json"])
      expect(unknown.exitCode).toBe(4)
      expect(JSON.parse(unknown.out)).toMatchObject({ verdict: "SignerUnknown", isClosed: true })
      const watched = yield* run(["audit", "verify", path], { isWatched: true })
      expect(watched.out).toContain("SignerUnknown: ")
      expect(watched.err).toBe(`reads and verifies ${path}`)
    })
  )
})

describe("agentweave dev-agent", () => {
  it.scopedLive("says where its sockets are, a line each or as JSON, and serves them", () =>
    Effect.gen(function* () {
      const folder = yield* directory
      const args = (name: string) => ["dev-agent", "--socket", join(folder, name), "--workload", "/web"]
      const lines = yield* start(args("a.sock"))
      const said = yield* Queue.take(lines)
      expect(said).toBe(`SPIFFE_ENDPOINT_SOCKET=unix://${join(folder, "a.sock")}   # spiffe://dev.local/web`)
      const json = yield* start([...args("b.sock"), "--socket", join(folder, "c.sock"), "--workload", "/api", "--json"])
      expect(JSON.parse(yield* Queue.take(json))).toStrictEqual({
        sockets: [
          { endpoint: `unix://${join(folder, "b.sock")}`, ids: ["spiffe://dev.local/web"] },
          { endpoint: `unix://${join(folder, "c.sock")}`, ids: ["spiffe://dev.local/api"] }
        ]
      })
      expect((yield* run(["svid", "show", "--endpoint", `unix://${join(folder, "a.sock")}`])).exitCode).toBe(0)
    })
  )
})
