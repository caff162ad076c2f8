import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as AuditVerify from "@agentweave/cli/AuditVerify"
import { X509Bundle } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { AuditFile } from "@agentweave/transport-node"
import { NodeContext } from "@effect/platform-node"
import { expect, it } from "@effect/vitest"
import { Effect } from "effect"

it.scopedLive("a file is verified with its signers, and a changed one is named", () =>
  Effect.gen(function* () {
    const folder = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "audit-verify-"))),
      (path) => Effect.sync(() => rmSync(path, { recursive: true }))
    )
    const authority = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 1 })
    const foreign = yield* DevAuthority.make({ trustDomain: "example.org" })
    const svid = yield* authority.issue({ path: "/web" })
    let head = AuditFile.start
    let text = ""
    const now = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
    for (const content of [
      () => ({ header: { version: 1 as const, time: now, flushWindowMillis: 100 } }),
      () => ({
        event: {
          _tag: "IdentityProblem" as const,
          time: now,
          problem: "Stale" as const,
          description: "no successor came"
        }
      }),
      () => AuditFile.checkpoint(head, svid, true)
    ]) {
      const appended = AuditFile.append(head, content())
      head = appended.head
      text += `${appended.line}\n`
    }
    const file = join(folder, "audit.ndjson")
    const changed = join(folder, "changed.ndjson")
    writeFileSync(file, text)
    writeFileSync(changed, text.replace("no successor", "a successor"))
    writeFileSync(join(folder, "bundle.pem"), X509Bundle.toPem(authority.bundle))
    writeFileSync(join(folder, "foreign.pem"), X509Bundle.toPem(foreign.bundle))
    const expected = ["--expect", "spiffe://example.org/web"]

    const good = yield* AuditVerify.run([file, "--bundle", join(folder, "bundle.pem"), ...expected])
    expect(good).toEqual({
      intact: true,
      output: "intact: 3 records up to number 2, closed and signed by spiffe://example.org/web"
    })
    const bad = yield* AuditVerify.run([changed, "--json"])
    expect(bad.intact).toBe(false)
    expect(JSON.parse(bad.output)).toMatchObject({ _tag: "Tampered", line: 2, problem: "Changed" })
    const stranger = yield* AuditVerify.run([file, "--bundle", join(folder, "foreign.pem"), ...expected])
    expect(stranger.intact).toBe(false)
    expect(stranger.output).toContain("signed by another")
    for (const wrong of [[], [file, ...expected], ["--unknown"]]) {
      const error = yield* Effect.flip(AuditVerify.run(wrong))
      expect(error).toMatchObject({ _tag: "UsageError" })
      expect(error.message).toContain("usage:")
    }
  }).pipe(Effect.provide(NodeContext.layer))
)
