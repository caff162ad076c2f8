import { DevAuthority } from "@agentweave/testkit"
import type { AuditEvent } from "@agentweave/transport"
import { AuditFile } from "@agentweave/transport-node"
import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fc from "fast-check"

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
    let head = AuditFile.start
    const add = (content: AuditFile.Content) => {
      const appended = AuditFile.append(head, content)
      lines.push(appended.line)
      head = appended.head
    }
    add({ header: { version: 1, time: 0, flushWindowMillis: 100 } })
    for (let n = 1; n <= records; n++) {
      add({ event: event(n) })
      if (n % 5 === 0) add(AuditFile.checkpoint(head, svid, false))
    }
    add(AuditFile.checkpoint(head, svid, true))
    return { lines, svid }
  })

const text = (lines: ReadonlyArray<string>) => lines.map((line) => `${line}\n`).join("")

it.effect("a closed log is intact, and says who signed it", () =>
  Effect.gen(function* () {
    const { lines, svid } = yield* write(12)
    const found = AuditFile.verify(text(lines))
    expect(found).toMatchObject({
      _tag: "Intact",
      records: lines.length,
      signers: [{ ownId: "spiffe://example.org/web" }]
    })
    if (found._tag !== "Intact") return
    expect(found.signers.map((signer) => Buffer.from(signer.certificates[0]))).toEqual([
      Buffer.from(svid.certificates[0])
    ])
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
      expect(AuditFile.verify(text(changed)), `changed ${at}`).toMatchObject({ _tag: "Tampered", line: at + 1 })
      const removed = lines.toSpliced(at, 1)
      expect(AuditFile.verify(text(removed)), `removed ${at}`).toMatchObject({
        _tag: "Tampered",
        line: at + 1,
        problem: "Missing"
      })
      const inserted = lines.toSpliced(at, 0, lines[at] ?? "")
      expect(AuditFile.verify(text(inserted)), `inserted ${at}`).toMatchObject({
        _tag: "Tampered",
        line: at + 2,
        problem: "OutOfPlace"
      })
      if (at + 1 >= lines.length - 1) continue
      const swapped = lines.with(at, lines[at + 1] ?? "").with(at + 1, lines[at] ?? "")
      expect(AuditFile.verify(text(swapped)), `swapped ${at}`).toMatchObject({
        _tag: "Tampered",
        line: at + 1,
        problem: "Missing"
      })
    }
  })
)

it.effect("a chain written anew without the key has no valid signature", () =>
  Effect.gen(function* () {
    const { lines } = yield* write(12)
    let head = AuditFile.start
    const forged = lines.map((line) => {
      const { prev: _prev, seq: _seq, ...content } = JSON.parse(line)
      if (content.event !== undefined) content.event.status = 500
      const appended = AuditFile.append(head, content)
      head = appended.head
      return appended.line
    })
    expect(AuditFile.verify(text(forged))).toMatchObject({ _tag: "Tampered", problem: "BadSignature", line: 7 })
  })
)

it.effect("a log cut off anywhere is interrupted, and says up to where it is signed", () =>
  Effect.gen(function* () {
    const { lines } = yield* write(12)
    const whole = text(lines)
    fc.assert(
      fc.property(fc.integer({ min: 1, max: whole.length - 1 }), (length) => {
        const found = AuditFile.verify(whole.slice(0, length))
        expect(found._tag).toBe("Interrupted")
        if (found._tag !== "Interrupted") return
        const kept = whole.slice(0, length).split("\n").length - 1
        expect(found.records).toBe(kept)
        expect(found.signedUpTo).toBeLessThan(kept)
        expect(found.description).toContain(kept > 0 ? "100 ms" : "not closed")
      }),
      { numRuns: 200 }
    )
  })
)

it("what is no record is named and never throws", () => {
  fc.assert(
    fc.property(fc.string(), (garbage) => {
      const found = AuditFile.verify(`${garbage}\n`)
      expect(found._tag).toBe("Tampered")
    })
  )
})
