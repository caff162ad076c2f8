import { AuditFile } from "@agentweave/transport-node"
import { expect, it } from "@effect/vitest"
import { chain } from "./auditForge.js"
import { kindOf } from "./auditReports.js"

const event = (path: string) => ({
  time: 1_000,
  content: `"event":{"_tag":"RequestStarted","time":1000,"side":"Client","connectionId":"c1","address":"127.0.0.1:1","requestId":"r1","peerId":"spiffe://example.org/api","method":"GET","path":"${path}","attempt":1}`
})

const header = (fields: object) => ({
  time: 1_000,
  content: `"header":${JSON.stringify({ version: 2, log: "log", flushWindowMillis: 100, ...fields })}`
})

/** Records 0 to 3 of a file, and one that begins with record 10 and says of its predecessor that it went to record 9. */
const files = (lost: { readonly from: number; readonly to: number } | undefined): ReadonlyArray<AuditFile.File> => {
  const hash = "1".repeat(64)
  const predecessor = { file: 0, seq: 9, hash, state: "Cut" }
  return [
    { name: "a", text: chain([header({ file: 0, begins: "New" }), event("/1"), event("/2"), event("/3")]) },
    {
      name: "b",
      text: chain(
        [header({ file: 1, begins: "PredecessorCut", predecessor, ...(lost && { lost }) }), event("/10")],
        undefined,
        { seq: 10, hash }
      )
    }
  ]
}

it("a file that ends earlier than its successor says is not tampered with where the successor has the rest as lost", () => {
  for (const lost of [
    { from: 4, to: 9 },
    { from: 0, to: 9 }
  ]) {
    const report = AuditFile.verify(files(lost))
    expect(report.findings.map(kindOf)).toContain("Lost")
    expect(report.findings.map(kindOf)).not.toContain("PredecessorMissing")
    expect(report.verdict).not.toBe("Tampered")
    expect(report.lost).toEqual([lost])
  }
})

it("it is tampered with where the successor has nothing as lost, or not all that is missing", () => {
  for (const lost of [undefined, { from: 5, to: 9 }, { from: 4, to: 8 }, { from: 10, to: 12 }]) {
    expect(AuditFile.verify(files(lost))).toMatchObject({
      verdict: "Tampered",
      findings: [{ _tag: "Tampered", problem: "Missing" }]
    })
  }
})
