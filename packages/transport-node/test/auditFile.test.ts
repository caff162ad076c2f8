import { DevAuthority } from "@agentweave/testkit"
import type { AuditEvent } from "@agentweave/transport"
import { AuditFile } from "@agentweave/transport-node"
import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fc from "fast-check"
import { chain } from "./auditForge.js"
import * as Format1 from "./auditFormat1.js"
import { kindOf, problemsOf, trustIn } from "./auditReports.js"

const event = (n: number): AuditEvent.AuditEvent => ({
  _tag: "RequestEnded",
  time: 1000 + n,
  side: "Client",
  connectionId: "c1",
  address: "127.0.0.1:1",
  requestId: `r${n}`,
  peerId: "spiffe://example.org/api",
  method: "GET",
  path: `/item/${n}`,
  attempt: 1,
  status: 200,
  durationMillis: 1
})

/** A closed log of `records` events with a checkpoint after every fifth, as lines. */
const write = (records: number) =>
  Effect.gen(function* () {
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const svid = yield* authority.issue({ path: "/web" })
    const lines: Array<string> = []
    let head = Format1.start
    const add = (content: Format1.Content) => {
      const appended = Format1.append(head, content)
      lines.push(appended.line)
      head = appended.head
    }
    add({ header: { version: 1, time: 0, flushWindowMillis: 100 } })
    for (let n = 1; n <= records; n++) {
      add({ event: event(n) })
      if (n % 5 === 0) add(Format1.checkpoint(head, svid, false))
    }
    add(Format1.checkpoint(head, svid, true))
    return { authority, lines, svid }
  })

/** A report of a file of which this is the first bad record. */
const bad = (at: { readonly line?: number; readonly problem?: AuditFile.TamperedProblem }) => ({
  verdict: "Tampered",
  findings: [{ _tag: "Tampered", ...at }]
})

const text = (lines: ReadonlyArray<string>) => lines.map((line) => `${line}\n`).join("")

it.effect("a closed log is intact, and says who signed it", () =>
  Effect.gen(function* () {
    const { authority, lines, svid } = yield* write(12)
    const found = AuditFile.verify(text(lines), trustIn(authority, "/web"))
    expect(found).toMatchObject({
      verdict: "Verified",
      findings: [],
      isClosed: true,
      records: lines.length,
      signers: [{ ownId: "spiffe://example.org/web" }]
    })
    expect(found.signers.map((signer) => Buffer.from(signer.certificates[0]))).toEqual([
      Buffer.from(svid.certificates[0])
    ])
  })
)

it.effect("a log with an event that this version does not know is intact", () =>
  Effect.gen(function* () {
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const svid = yield* authority.issue({ path: "/web" })
    const header = { version: 2, log: "0".repeat(32), file: 0, begins: "New", flushWindowMillis: 100 }
    const former = {
      _tag: "AttemptsSummed",
      time: 1000,
      side: "Server",
      since: 0,
      attempts: 9,
      addresses: 1,
      reasons: {}
    }
    const records = chain(
      [
        { time: 1000, content: `"header":${JSON.stringify(header)}` },
        { time: 1001, content: `"event":${JSON.stringify(former)}` },
        { content: '"end":{"state":"Closed"}' },
        { time: 1002, content: '"checkpoint":{}' }
      ],
      svid
    )
    expect(AuditFile.verify(records, trustIn(authority, "/web"))).toMatchObject({ verdict: "Verified", findings: [] })
  })
)

it.effect("a changed, removed, swapped or inserted record is named", () =>
  Effect.gen(function* () {
    const { lines } = yield* write(12)
    for (let at = 1; at < lines.length - 1; at++) {
      const changed = lines.with(
        at,
        (lines[at] ?? "").replace(/"time":\d/, '"time":9').replace(/"final":/, '"final" :')
      )
      expect(AuditFile.verify(text(changed)), `changed ${at}`).toMatchObject(bad({ line: at + 1 }))
      const removed = lines.toSpliced(at, 1)
      expect(AuditFile.verify(text(removed)), `removed ${at}`).toMatchObject(bad({ line: at + 1, problem: "Missing" }))
      const inserted = lines.toSpliced(at, 0, lines[at] ?? "")
      expect(AuditFile.verify(text(inserted)), `inserted ${at}`).toMatchObject(
        bad({ line: at + 2, problem: "OutOfPlace" })
      )
      if (at + 1 >= lines.length - 1) continue
      const swapped = lines.with(at, lines[at + 1] ?? "").with(at + 1, lines[at] ?? "")
      expect(AuditFile.verify(text(swapped)), `swapped ${at}`).toMatchObject(bad({ line: at + 1, problem: "Missing" }))
    }
  })
)

it.effect("a chain written anew without the key has no valid signature", () =>
  Effect.gen(function* () {
    const { lines } = yield* write(12)
    let head = Format1.start
    const forged = lines.map((line) => {
      const { prev: _prev, seq: _seq, ...content } = JSON.parse(line)
      if (content.event !== undefined) content.event.status = 500
      const appended = Format1.append(head, content)
      head = appended.head
      return appended.line
    })
    expect(AuditFile.verify(text(forged))).toMatchObject(bad({ problem: "BadSignature", line: 7 }))
  })
)

it.effect("a log cut off anywhere is interrupted, and says up to where it is signed", () =>
  Effect.gen(function* () {
    const { lines } = yield* write(12)
    const whole = text(lines)
    fc.assert(
      fc.property(fc.integer({ min: 1, max: whole.length - 1 }), (length) => {
        const found = AuditFile.verify(whole.slice(0, length))
        const kept = whole.slice(0, length).split("\n").length - 1
        expect(found.isClosed).toBe(false)
        expect(found.records).toBe(kept)
        expect(found.signedUpTo).toBeLessThan(kept)
        const last = found.findings.at(-1)
        expect(last?.description).toContain(kept > 0 ? "100 ms" : "no whole record")
      }),
      { numRuns: 200 }
    )
  })
)

it("what is no record is named and never throws", () => {
  fc.assert(
    fc.property(fc.string(), (garbage) => {
      const found = AuditFile.verify(`${garbage}\n`)
      expect(found.verdict).toBe("Tampered")
    })
  )
})

it.effect("a file whose first records were removed begins with no header, and is tampered with", () =>
  Effect.gen(function* () {
    const { lines } = yield* write(12)
    for (let cut = 1; cut < lines.length; cut++) {
      expect(AuditFile.verify(text(lines.slice(cut)))).toMatchObject(bad({ line: 1, problem: "Missing" }))
    }
  })
)

it.effect("records without any signature are not verified, whoever is expected to have signed", () =>
  Effect.gen(function* () {
    const { authority, lines } = yield* write(4)
    const unsigned = AuditFile.verify(text(lines.slice(0, -1)), trustIn(authority, "/web"))
    expect(unsigned.verdict).toBe("Unsigned")
    expect(unsigned.findings).toMatchObject([{ _tag: "Unsigned", from: 0, to: 4 }, { what: "TailOpen" }])
  })
)

it.effect("a signer who cannot be verified with the bundles at hand makes a file not tampered with, but unknown", () =>
  Effect.gen(function* () {
    const { lines } = yield* write(4)
    const other = yield* DevAuthority.make({ trustDomain: "example.org" })
    const found = AuditFile.verify(text(lines), trustIn(other, "/web"))
    expect(found.verdict).toBe("SignerUnknown")
    expect(found.findings.map(kindOf)).toEqual(["SignerUnknown"])
    expect(found.findings[0]?.description).toContain("was issued by the authority")
  })
)

it.effect("what is signed after the signer's SVID had expired is unsigned, and not tampered with", () =>
  Effect.gen(function* () {
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const svid = yield* authority.issue({ path: "/web", ttl: "1 minute" })
    let head = Format1.start
    let file = ""
    const add = (content: Format1.Content) => {
      const appended = Format1.append(head, content)
      file += `${appended.line}\n`
      head = appended.head
    }
    add({ header: { version: 1, time: 0, flushWindowMillis: 100 } })
    add({ event: event(1) })
    add(Format1.checkpoint(head, svid, false))
    add({ event: event(120_000) })
    add(Format1.checkpoint(head, svid, true))
    expect(problemsOf(file)).toEqual(["Unsigned"])
    expect(AuditFile.verify(file, trustIn(authority, "/web"))).toMatchObject({
      verdict: "Unsigned",
      findings: [{ from: 3, to: 3 }]
    })
  })
)
