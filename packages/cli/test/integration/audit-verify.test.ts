import { appendFileSync, linkSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as AuditVerify from "@agentweave/cli/AuditVerify"
import { IdentityProvider, X509Bundle } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { AuditAnchor, NodeAuditLog } from "@agentweave/transport-node"
import { NodeContext } from "@effect/platform-node"
import { expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as Format1 from "../../../transport-node/test/auditFormat1.js"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "audit-verify-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

const text = (lines: ReadonlyArray<string>) => lines.map((line) => `${line}\n`).join("")

/** A closed audit file of one event, and the bundles that it is verified with. */
const world = (description = "no successor came") =>
  Effect.gen(function* () {
    const dir = yield* folder
    const authority = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 1 })
    const foreign = yield* DevAuthority.make({ trustDomain: "example.org" })
    const svid = yield* authority.issue({ path: "/web" })
    const time = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
    const lines: Array<string> = []
    let head = Format1.start
    const add = (content: Format1.Content) => {
      const appended = Format1.append(head, content)
      head = appended.head
      lines.push(appended.line)
    }
    add({ header: { version: 1 as const, time, flushWindowMillis: 100 } })
    add({ event: { _tag: "IdentityProblem" as const, time, problem: "Stale" as const, description } })
    add(Format1.checkpoint(head, svid, true))
    const write = (name: string, content: string | Uint8Array) => {
      writeFileSync(join(dir, name), content)
      return join(dir, name)
    }
    const bundle = ["--bundle", write("bundle.pem", X509Bundle.toPem(authority.bundle))]
    const other = ["--bundle", write("foreign.pem", X509Bundle.toPem(foreign.bundle))]
    return { authority, dir, lines, write, bundle, other, expected: ["--expect", "spiffe://example.org/web"] }
  })

it.scopedLive("a file that is as it was written, by the expected workload, is verified", () =>
  Effect.gen(function* () {
    const { bundle, expected, lines, write } = yield* world()
    const file = write("audit.ndjson", text(lines))
    const { output, ...outcome } = yield* AuditVerify.run([file, ...bundle, ...expected])
    expect(outcome).toEqual({ verdict: "Verified", exitCode: 0 })
    expect(output.replaceAll(/\d{4}-[\d-]+T[\d:.]+Z/g, "DATE")).toBe(
      "Verified: 3 records, number 0 to 2, from DATE to DATE, closed, signed up to 1 by spiffe://example.org/web"
    )
  }).pipe(Effect.provide(NodeContext.layer))
)

it.scopedLive("each verdict has an exit code of its own", () =>
  Effect.gen(function* () {
    const { bundle, expected, lines, other, write } = yield* world()
    const verdictOf = (name: string, kept: ReadonlyArray<string>, ...args: ReadonlyArray<string>) =>
      Effect.map(AuditVerify.run([write(name, text(kept)), ...args]), ({ exitCode, verdict }) => [verdict, exitCode])
    const trust = [...bundle, ...expected]
    expect(yield* verdictOf("cut.ndjson", lines.slice(1), ...trust)).toEqual(["Tampered", 1])
    expect(yield* verdictOf("unsigned.ndjson", lines.slice(0, 2), ...trust)).toEqual(["Unsigned", 3])
    expect(yield* verdictOf("whole.ndjson", lines, ...other, ...expected)).toEqual(["SignerUnknown", 4])
    expect(yield* verdictOf("whole.ndjson", lines)).toEqual(["SignerUnknown", 4])
    expect(yield* verdictOf("whole.ndjson", lines, ...bundle, "--expect", "spiffe://example.org/api")).toEqual([
      "SignerUnknown",
      4
    ])
    // Old and new bundles are taken together.
    expect(yield* verdictOf("whole.ndjson", lines, ...other, ...trust)).toEqual(["Verified", 0])
    const changed = yield* AuditVerify.run([
      write("changed.ndjson", text(lines).replace("no successor", "a successor")),
      "--json"
    ])
    expect(changed.exitCode).toBe(1)
    expect(JSON.parse(changed.output)).toMatchObject({
      verdict: "Tampered",
      findings: [{ line: 2, seq: 1, problem: "Changed" }]
    })
  }).pipe(Effect.provide(NodeContext.layer))
)

it.scopedLive("bytes that are read as the same text are a change all the same", () =>
  Effect.gen(function* () {
    const { bundle, expected, lines, write } = yield* world("a \ufffd in it")
    const verdictOf = (bytes: Uint8Array) =>
      Effect.map(AuditVerify.run([write("bytes.ndjson", bytes), ...bundle, ...expected]), ({ output }) => output)
    const honest = Buffer.from(text(lines))
    expect(yield* verdictOf(honest)).toContain("Verified")
    const at = honest.indexOf("\ufffd")
    const other = Buffer.concat([honest.subarray(0, at), Buffer.from([0xff]), honest.subarray(at + 3)])
    expect(yield* verdictOf(other)).toContain("line 2 (record 1), Unreadable")
    const marked = Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), honest])
    expect(yield* verdictOf(marked)).toContain("TAMPERED")
  }).pipe(Effect.provide(NodeContext.layer))
)

it.scopedLive("a directory is verified log by log, and the gravest verdict counts", () =>
  Effect.gen(function* () {
    const { bundle, dir, expected, lines } = yield* world()
    mkdirSync(join(dir, "logs"))
    writeFileSync(join(dir, "logs", "client.ndjson"), text(lines))
    writeFileSync(join(dir, "logs", "server.ndjson"), text(lines.slice(0, 2)))
    writeFileSync(join(dir, "logs", "notes.txt"), "not an audit file")
    const { output, verdict } = yield* AuditVerify.run([join(dir, "logs"), ...bundle, ...expected])
    expect(verdict).toBe("Unsigned")
    expect(output).toContain("client.ndjson:\nVerified")
    expect(output).toContain("server.ndjson:\nUnsigned")
    expect(output).toContain(`passed over, because they are no audit files: ${join(dir, "logs", "notes.txt")}`)
    // A file that is called after a log is one of its files, whatever it holds now.
    writeFileSync(join(dir, "logs", "client.ndjson.7"), ` ${text(lines)}`)
    expect((yield* AuditVerify.run([join(dir, "logs"), ...bundle, ...expected])).verdict).toBe("Tampered")
  }).pipe(Effect.provide(NodeContext.layer))
)

it.scopedLive(
  "a directory tells what its files alone do not: a live file that is gone, and one file with two names",
  () =>
    Effect.gen(function* () {
      const { authority, bundle, dir, expected } = yield* world()
      const logs = join(dir, "logs")
      mkdirSync(logs)
      const path = join(logs, "log.ndjson")
      const log = NodeAuditLog.layerFile({ path }).pipe(
        Layer.provide(IdentityProvider.layerStatic(yield* authority.context({ path: "/web" })))
      )
      for (let session = 0; session < 2; session++) yield* Effect.scoped(Layer.build(log))
      const found = AuditVerify.run([logs, ...bundle, ...expected])
      expect((yield* found).verdict).toBe("Verified")
      // As a process leaves it that is killed in the middle of renaming.
      linkSync(path, `${path}.5`)
      expect((yield* found).verdict).toBe("Verified")
      rmSync(path)
      expect((yield* found).output).toContain("is not there: what was recorded after 5 is missing")
      expect((yield* found).verdict).toBe("Incomplete")
      // A text that is no record does not go unseen because of an empty file behind it.
      renameSync(`${path}.5`, path)
      appendFileSync(path, "no record")
      writeFileSync(`${path}.9`, "")
      expect((yield* found).verdict).toBe("Incomplete")
    }).pipe(Effect.provide(NodeContext.layer))
)

it.scopedLive(
  "files that are named in any order are verified in that of their records, and with what an anchor kept",
  () =>
    Effect.gen(function* () {
      const { authority, bundle, dir, expected } = yield* world()
      const path = join(dir, "log.ndjson")
      const anchor = join(dir, "anchor.ndjson")
      const identity = IdentityProvider.layerStatic(yield* authority.context({ path: "/web" }))
      const log = NodeAuditLog.layerFile({ path }).pipe(
        Layer.provide(identity),
        Layer.provide(AuditAnchor.layerFile({ path: anchor }))
      )
      for (let session = 0; session < 2; session++) yield* Effect.scoped(Layer.build(log))
      const verdictOf = (...args: ReadonlyArray<string>) =>
        Effect.map(AuditVerify.run([...args, ...bundle, ...expected]), ({ exitCode, verdict }) => [verdict, exitCode])
      expect(yield* verdictOf(path, `${path}.2`, "--anchor", anchor)).toEqual(["Verified", 0])
      // A whole session that was removed shows with the anchor alone.
      expect(yield* verdictOf(`${path}.2`)).toEqual(["Verified", 0])
      expect(yield* verdictOf(`${path}.2`, "--anchor", anchor)).toEqual(["Tampered", 1])
      expect(yield* verdictOf(path)).toEqual(["Incomplete", 5])
    }).pipe(Effect.provide(NodeContext.layer))
)

it.scopedLive("nothing that a file holds can steer a terminal", () =>
  Effect.gen(function* () {
    const { bundle, expected, lines, write } = yield* world()
    const hostile = '{"seq":0,"\u001b]0;owned\u0007\u009b2J\u202e\u2066'
    for (const args of [[], ["--json"]]) {
      const file = write("hostile.ndjson", text([hostile, ...lines]))
      const { exitCode, output } = yield* AuditVerify.run([file, ...bundle, ...expected, ...args])
      expect(exitCode).toBe(1)
      expect(output).toMatch(/^[ -~\n]*$/)
      expect(output).toContain("owned")
    }
  }).pipe(Effect.provide(NodeContext.layer))
)

it.scopedLive("wrong use is told from a bad file", () =>
  Effect.gen(function* () {
    const { dir, expected, lines, write } = yield* world()
    const file = write("audit.ndjson", text(lines))
    mkdirSync(join(dir, "nothing"))
    for (const wrong of [[], [file, ...expected], ["--unknown"]]) {
      const error = yield* Effect.flip(AuditVerify.run(wrong))
      expect(error).toMatchObject({ _tag: "UsageError" })
      expect(error.message).toContain("usage:")
    }
    const empty = write("empty.ndjson", "")
    const bundle = write("bundle.pem", "")
    const foreign = [file, "--bundle", bundle, ...expected, "--expect", "spiffe://other.org/web"]
    for (const wrong of [[empty], foreign, ["/dev/null"], [join(dir, "nothing")], [file, "--anchor", empty]]) {
      expect(yield* Effect.flip(AuditVerify.run(wrong))).toMatchObject({ _tag: "UsageError" })
    }
  }).pipe(Effect.provide(NodeContext.layer))
)
