import { AuditEvent } from "@agentweave/transport"
import { AuditFile } from "@agentweave/transport-node"
import { describe, expect, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import * as fc from "fast-check"
import { AuditBatch } from "../src/internal/auditBatch.js"
import { toJson } from "../src/internal/auditJson.js"

/** Any event; with strings of every kind, which the arbitraries of schemas make seldom. */
const event = fc
  .tuple(
    Arbitrary.make(AuditEvent.AuditEvent),
    fc.record(
      {
        path: fc.fullUnicodeString(),
        error: fc.oneof(fc.fullUnicodeString(), fc.constantFrom("\ud800", '"', "\\", "\u2028", "\u007f", "\n")),
        traceId: fc.string(),
        status: fc.constantFrom(200, -0, Number.NaN, Number.POSITIVE_INFINITY, 1e21)
      },
      { requiredKeys: [] }
    )
  )
  .map(([any, { path = "", traceId, ...outcome }]): AuditEvent.AuditEvent => {
    const trace = traceId === undefined ? undefined : { traceId }
    if (any._tag === "RequestStarted") return { ...any, path, ...trace }
    return any._tag === "RequestEnded" ? { ...any, path, ...trace, ...outcome } : any
  })

const ofRequests = event.filter(AuditEvent.isRequest)

describe("an event as JSON", () => {
  it("is what JSON.stringify makes of it, whatever is in it", () => {
    fc.assert(
      fc.property(fc.oneof(event, ofRequests), (any) => {
        expect(JSON.parse(toJson(any))).toEqual(JSON.parse(JSON.stringify(any)))
      }),
      { numRuns: 500 }
    )
  })

  it("has the fields in the order of their documentation", () => {
    const ended = {
      _tag: "RequestEnded",
      time: 1,
      side: "Server",
      connectionId: "c1",
      address: "127.0.0.1:1",
      requestId: "r1",
      traceId: "0af7",
      peerId: "spiffe://example.org/api",
      method: "GET",
      path: "/",
      attempt: 1,
      status: 500,
      error: "TimeoutError",
      durationMillis: 2
    } as const satisfies AuditEvent.AuditEvent
    expect(toJson(ended)).toBe(JSON.stringify(ended))
    expect(Schema.decodeUnknownSync(Schema.parseJson(AuditEvent.AuditEvent))(toJson(ended))).toEqual(ended)
  })
})

const lines = (batch: AuditBatch): string => Buffer.from(batch.lines).toString()

/** The same records, one after the other. */
const appended = (from: AuditFile.Head, events: ReadonlyArray<AuditEvent.AuditEvent>) => {
  let head = from
  const text = events.map((event) => {
    const { seq } = head
    const made = AuditFile.append(head, { event: JSON.parse(toJson(event)) })
    head = made.head
    expect(head.seq).toBe(seq + 1)
    return `${made.line}\n`
  })
  return { text: text.join(""), head }
}

const batchOf = (from: AuditFile.Head, events: ReadonlyArray<AuditEvent.AuditEvent>): AuditBatch => {
  const batch = new AuditBatch(from)
  for (const event of events) batch.add(event)
  return batch
}

const head = fc.record({
  seq: fc.oneof(fc.nat(20), fc.constantFrom(8, 9, 98, 99, 999_999)),
  hash: fc.hexaString({ minLength: 64, maxLength: 64 })
})

describe("a batch of records", () => {
  it("is chained as one record after the other would be", () => {
    fc.assert(
      fc.property(head, fc.array(event, { maxLength: 30 }), (from, events) => {
        const batch = batchOf(from, events)
        expect({ text: lines(batch), head: batch.head }).toEqual(appended(from, events))
      }),
      { numRuns: 60 }
    )
  })

  it("made to follow another record is as if it had been made there", () => {
    fc.assert(
      fc.property(head, head, fc.array(event, { maxLength: 30 }), (before, from, events) => {
        const batch = batchOf(before, events)
        batch.follow(from)
        expect({ text: lines(batch), head: batch.head }).toEqual(appended(from, events))
        // It goes on from there.
        const more = events.slice(0, 2)
        for (const event of more) batch.add(event)
        expect(lines(batch)).toBe(appended(from, [...events, ...more]).text)
      }),
      { numRuns: 60 }
    )
  })

  it("gives back what was added since a mark, and is empty when it is used again", () => {
    fc.assert(
      fc.property(head, head, fc.array(event), fc.array(event), (from, next, events, more) => {
        const batch = batchOf(from, events)
        const { mark } = batch
        for (const event of more) batch.add(event)
        batch.backTo(mark)
        expect({ text: lines(batch), head: batch.head }).toEqual(appended(from, events))
        // As it is, with some that are not chained yet.
        for (const event of more) batch.add(event)
        batch.reset(next)
        expect([lines(batch), batch.head]).toEqual(["", next])
        for (const event of more) batch.add(event)
        expect(lines(batch)).toBe(appended(next, more).text)
      }),
      { numRuns: 40 }
    )
  })

  it("keeps the order of events and of what else there is", () => {
    fc.assert(
      fc.property(head, fc.array(ofRequests, { minLength: 1, maxLength: 5 }), (from, events) => {
        const batch = batchOf(from, events)
        const { head: before } = batchOf(from, events)
        const made = AuditFile.append(before, { dropped: { requests: 1, others: 0 } })
        batch.addContent({ dropped: { requests: 1, others: 0 } })
        expect(lines(batch).endsWith(`${made.line}\n`)).toBe(true)
        expect(batch.head).toEqual(made.head)
      }),
      { numRuns: 20 }
    )
  })

  it("holds more than its first buffer", () => {
    const events = Array.from(
      { length: 2_000 },
      (_, n): AuditEvent.AuditEvent => ({
        _tag: "LeaseLeaked",
        time: n,
        targetId: "spiffe://example.org/api",
        heldMillis: n,
        origin: `é${"x".repeat(n % 300)}`
      })
    )
    const batch = new AuditBatch(AuditFile.start)
    batch.addContent({ header: { version: 1, time: 0, flushWindowMillis: 100 } })
    for (const event of events) batch.add(event)
    const whole = AuditFile.verify(lines(batch))
    expect(whole).toMatchObject({ isClosed: false, records: 2_001, head: batch.head })
    batch.reset(batch.head)
    for (const event of events) batch.add(event)
    expect(AuditFile.verify(lines(batch))).toMatchObject({
      findings: [{ _tag: "Tampered", problem: "Missing", line: 1 }]
    })
  })
})
